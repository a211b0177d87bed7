//! From the files of a checkout to a tree, by the host's git directory alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lime_core::{Error, ErrorKind, Result};

use crate::attempt::Attempt;
use crate::failure;
use crate::git::Git;
use crate::history;

const STAGE: &str = "git.stage";

/// What stands for the mode of a repository inside of another.
const GITLINK: &str = "160000";

/// Stages everything that is not ignored, and gives back the tree; the caller holds the attempt's lock.
///
/// - Not by `git add`: for a repository inside of the checkout that runs `git status` there, which obeys the
///   settings that the agent may have written for it. Here such a repository counts with the commit it is at, which
///   is read and not asked for; one without a commit, or that cannot be read, stays as it was.
/// - Ignored is what the `.gitignore` files of the checkout say, and nothing that is set on a machine or in the
///   agent's `.git/info/exclude`.
pub(crate) async fn tree(git: &Git, attempt: &Attempt) -> Result<String> {
    remove_stale_lock(&attempt.git_dir)?;
    let call = || git.call(STAGE).at(&attempt.git_dir).over(&attempt.checkout);
    let (changed, new) = tokio::try_join!(
        call().args(["diff-files", "--raw", "-z", "--no-abbrev", "--ignore-submodules=dirty"]).stdout(),
        call().args(["ls-files", "-z", "--others", "--exclude-standard"]).stdout(),
    )?;
    let mut files = BTreeSet::new();
    let mut infos = Vec::new();
    let mut inform = |mode: &str, id: &str, path: &[u8]| {
        infos.extend_from_slice(format!("{mode} {id}\t").as_bytes());
        infos.extend_from_slice(path);
        infos.push(0);
    };
    for (entry, path) in entries(&changed)? {
        let zeros = "0".repeat(entry.id_length);
        let found = fs::symlink_metadata(attempt.checkout.join(history::os(path)));
        let kind = found.map(|found| found.file_type());
        if entry.status == b'D'
            || !kind.as_ref().is_ok_and(|kind| kind.is_dir() || kind.is_file() || kind.is_symlink())
        {
            // Gone, or something that git cannot hold, such as a pipe.
            inform("0", &zeros, path);
        } else if kind.is_ok_and(|kind| kind.is_dir()) {
            match history::nested_head(&attempt.checkout, path) {
                Some(id) => inform(GITLINK, &id, path),
                // A file became a folder, whose files are new; a repository without a commit stays as it was.
                None if entry.old_mode != GITLINK.as_bytes() => inform("0", &zeros, path),
                None => {}
            }
        } else {
            files.insert(path);
        }
    }
    for path in new.split(|&byte| byte == 0).filter(|path| !path.is_empty()) {
        match path.strip_suffix(b"/") {
            None => _ = files.insert(path),
            Some(path) => match history::nested_head(&attempt.checkout, path) {
                Some(id) => inform(GITLINK, &id, path),
                None => tracing::warn!(
                    path = %String::from_utf8_lossy(path),
                    "a repository without a commit inside of the checkout is left out"
                ),
            },
        }
    }
    if !infos.is_empty() {
        call().args(["update-index", "-z", "--index-info"]).input(infos).stdout().await?;
    }
    if !files.is_empty() {
        let mut paths = files.into_iter().collect::<Vec<_>>().join(&0);
        paths.push(0);
        let call = call().args(["update-index", "--add", "--replace", "-z", "--stdin"]).input(paths);
        let said = call.output().await?;
        if said.code != Some(0) {
            return Err(failure::failed(STAGE, &said));
        }
        if !said.stderr.is_empty() {
            tracing::warn!(
                git = failure::last_lines(&said.stderr),
                "names that git does not take are left out"
            );
        }
    }
    call().args(["write-tree"]).text().await
}

/// One line of `diff-files --raw`.
struct Entry<'a> {
    old_mode: &'a [u8],
    id_length: usize,
    status: u8,
}

/// Reads `:100644 100644 <id> <id> M\0path\0`, over and over.
fn entries(raw: &[u8]) -> Result<Vec<(Entry<'_>, &[u8])>> {
    let mut fields = raw.split(|&byte| byte == 0);
    let mut entries = Vec::new();
    while let Some(head) = fields.next().filter(|head| !head.is_empty()) {
        let parts: Vec<_> = head.split(|&byte| byte == b' ').collect();
        let (&[old_mode, _, id, _, status], Some(path)) = (parts.as_slice(), fields.next()) else {
            return Err(Error::new(ErrorKind::Corrupt, STAGE, "git's list of changes cannot be read"));
        };
        let old_mode = old_mode.strip_prefix(b":").unwrap_or(old_mode);
        let status = status.first().copied().unwrap_or_default();
        entries.push((Entry { old_mode, id_length: id.len(), status }, path));
    }
    Ok(entries)
}

/// A staging that was killed leaves git's own lock; nobody else has it now, since we hold the attempt's.
fn remove_stale_lock(git_dir: &Path) -> Result<()> {
    let lock = git_dir.join("index.lock");
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(failure::io(STAGE, "a lock left by a call that was killed cannot be removed", &lock, error))
        }
        _ => Ok(()),
    }
}
