//! Files of a commit, read off the host's git directory: nothing that an agent has written is looked at.

use lime_core::ports::{CommittedFile, CommittedFiles, FilesWanted, LeftOut, WhyLeftOut};
use lime_core::{Error, ErrorKind, Result};

use crate::attempt::Attempt;
use crate::failure;
use crate::git::Git;

const FILES: &str = "git.files";

/// The most bytes that are read of lists of files: 1 MiB.
const MAX_LIST: usize = 1 << 20;

/// What a tree has at a path.
struct Entry {
    path: Vec<u8>,
    object: String,
    /// A plain file, executable or not.
    is_file: bool,
    bytes: usize,
}

/// A path that is wanted: one file, or every file of a folder whose name ends so.
enum Wanted<'p> {
    File(&'p str),
    Folder { folder: &'p str, ending: &'p str },
}

impl<'p> Wanted<'p> {
    fn of(path: &'p str) -> Self {
        match path.rsplit_once("/*") {
            Some((folder, ending)) => Self::Folder { folder, ending },
            None => Self::File(path),
        }
    }

    /// What `git ls-tree` takes, which knows no patterns: with a slash at its end, it looks into the folder.
    fn argument(&self) -> String {
        match self {
            Self::File(path) => (*path).to_owned(),
            Self::Folder { folder, .. } => format!("{folder}/"),
        }
    }

    fn means(&self, path: &[u8]) -> bool {
        match self {
            Self::File(wanted) => wanted.as_bytes() == path,
            Self::Folder { folder, ending } => path
                .strip_prefix(folder.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"/"))
                .is_some_and(|name| !name.contains(&b'/') && name.ends_with(ending.as_bytes())),
        }
    }
}

/// What of the wanted files a commit has.
pub(crate) async fn of(
    git: &Git,
    attempt: &Attempt,
    commit: &str,
    wanted: &FilesWanted,
) -> Result<CommittedFiles> {
    let paths: Vec<_> = wanted.paths.iter().map(|path| Wanted::of(path)).collect();
    let listing = git.call(FILES).at(&attempt.git_dir).max_output(MAX_LIST);
    let listing = listing.args(["ls-tree", "-z", "-l", "--full-tree", commit, "--"]);
    let listing = listing.args(paths.iter().map(Wanted::argument)).output().await?;
    if !listing.cut && listing.code != Some(0) {
        return Err(failure::failed(FILES, &listing));
    }
    let entries = entries(&listing.stdout, listing.cut)?;
    let mut found = CommittedFiles::default();
    let mut chosen: Vec<&Entry> = Vec::new();
    let mut bytes = 0_usize;
    for path in &paths {
        for entry in entries.iter().filter(|entry| path.means(&entry.path)) {
            if chosen.iter().any(|known| known.path == entry.path) {
                continue;
            }
            let why = if !entry.is_file {
                Some(WhyLeftOut::NoFile)
            } else if entry.bytes > wanted.max_file_bytes {
                Some(WhyLeftOut::TooLong)
            } else if chosen.len() == wanted.max_files || bytes.saturating_add(entry.bytes) > wanted.max_bytes
            {
                Some(WhyLeftOut::TooMany)
            } else {
                None
            };
            match why {
                Some(why) => found.left_out.push(left_out(&entry.path, why)),
                None => {
                    bytes += entry.bytes;
                    chosen.push(entry);
                }
            }
        }
    }
    if listing.cut {
        let folders = paths.iter().filter(|path| matches!(path, Wanted::Folder { .. }));
        let rest = folders.map(|path| left_out(path.argument().as_bytes(), WhyLeftOut::TooMany));
        found.left_out.extend(rest);
    }
    for (entry, content) in chosen.iter().zip(read(git, attempt, &chosen).await?) {
        let text = String::from_utf8(content).ok().filter(|text| !text.contains('\0'));
        match (text, str::from_utf8(&entry.path)) {
            (Some(content), Ok(path)) => {
                found.files.push(CommittedFile { path: path.to_owned(), content });
            }
            _ => found.left_out.push(left_out(&entry.path, WhyLeftOut::NoText)),
        }
    }
    Ok(found)
}

fn left_out(path: &[u8], why: WhyLeftOut) -> LeftOut {
    LeftOut { path: String::from_utf8_lossy(path).into_owned(), why }
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, FILES, "git's list of files cannot be read")
}

/// Reads `ls-tree -z -l`: `100644 blob <object>    <bytes>\tpath\0`; the last one may have been cut off.
fn entries(listing: &[u8], cut: bool) -> Result<Vec<Entry>> {
    let whole = if cut {
        let end = listing.iter().rposition(|&byte| byte == 0).map_or(0, |nul| nul + 1);
        &listing[..end]
    } else {
        listing
    };
    let lines = whole.split(|&byte| byte == 0).filter(|line| !line.is_empty());
    lines.map(|line| entry(line).ok_or_else(corrupt)).collect()
}

fn entry(line: &[u8]) -> Option<Entry> {
    let tab = line.iter().position(|&byte| byte == b'\t')?;
    let mut words = str::from_utf8(&line[..tab]).ok()?.split_ascii_whitespace();
    let (mode, kind, object, bytes) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let is_file = kind == "blob" && mode.starts_with("100");
    // Folders and submodules have `-` for their size.
    let bytes = if is_file { bytes.parse().ok()? } else { 0 };
    Some(Entry { path: line[tab + 1..].to_vec(), object: object.to_owned(), is_file, bytes })
}

/// The contents of files, in their order, by one call.
async fn read(git: &Git, attempt: &Attempt, files: &[&Entry]) -> Result<Vec<Vec<u8>>> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let names: String = files.iter().map(|file| format!("{}\n", file.object)).collect();
    let call = git.call(FILES).at(&attempt.git_dir).args(["cat-file", "--batch"]).input(names);
    let output = call.stdout().await?;
    let mut rest = output.as_slice();
    let contents = files.iter().map(|file| {
        let header = format!("{} blob {}\n", file.object, file.bytes);
        let (content, after) = rest.strip_prefix(header.as_bytes())?.split_at_checked(file.bytes)?;
        rest = after.strip_prefix(b"\n")?;
        Some(content.to_vec())
    });
    contents.collect::<Option<_>>().ok_or_else(corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_far_as_they_are_whole() {
        let list = b"100644 blob 0a1b      12\tAGENTS.md\x00120000 blob 0c       9\tCLAUDE.md\x00160000 commit 0d       -\tsub";
        let names = |cut| {
            let entries = entries(list, cut).unwrap();
            entries.iter().map(|entry| (entry.is_file, entry.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(names(false), [(true, 12), (false, 0), (false, 0)]);
        assert_eq!(names(true), [(true, 12), (false, 0)]);
        assert!(entries(b"100644 blob\tx", false).is_err());
    }

    #[test]
    fn a_pattern_means_the_files_of_its_folder() {
        let rules = Wanted::of(".claude/rules/*.md");
        assert_eq!(rules.argument(), ".claude/rules/");
        assert!(rules.means(b".claude/rules/a.md"));
        for other in [&b".claude/rules/a.txt"[..], b".claude/rules/x/a.md", b".claude/rulesx/a.md", b"a.md"] {
            assert!(!rules.means(other));
        }
        let file = Wanted::of("AGENTS.md");
        assert!(file.means(b"AGENTS.md") && !file.means(b"x/AGENTS.md"));
    }
}
