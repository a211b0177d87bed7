//! What lies between two trees, for people and for rules.

use lime_core::ports::Changes;
use lime_core::repos::{CodeDiff, DiffStats};
use lime_core::{Error, ErrorKind, Result};

use crate::attempt::Attempt;
use crate::git::Git;

const DIFF: &str = "git.diff";

/// How every diff is made: as plain `git diff` shows it, with renames found and nothing run.
const FLAGS: &[&str] =
    &["diff", "--no-color", "--no-ext-diff", "--no-textconv", "--find-renames", "--submodule=short"];

/// The beginning of each file's part; a line of content never looks like it, since it begins with a sign.
const FILE: &str = "diff --git ";

/// What is put where a diff was cut.
const MARK: &str = "# The rest of this diff is left out, since it is over 64 MiB.\n";

/// The changes from one tree or commit to another.
pub(crate) async fn between(git: &Git, attempt: &Attempt, from: &str, to: &str) -> Result<Changes> {
    let call = || {
        // Attributes say what is binary; those of the result count, wherever the diff is made.
        let call = git.call(DIFF).at(&attempt.git_dir).over(&attempt.checkout).env("GIT_ATTR_SOURCE", to);
        call.args(FLAGS)
    };
    let (numbers, diff) = tokio::try_join!(
        call().args(["--numstat", "-z", from, to, "--"]).stdout(),
        call().args([from, to, "--"]).max_output(CodeDiff::MAX_BYTES).output(),
    )?;
    if !diff.cut && diff.code != Some(0) {
        return Err(crate::failure::failed(DIFF, &diff));
    }
    let (stats, paths) = numbers_of(&numbers)?;
    Ok(Changes { unified_diff: bounded(text(diff.stdout), diff.cut, CodeDiff::MAX_BYTES), stats, paths })
}

/// The bytes as text that a database takes: what is not UTF-8, and NUL, become the replacement character.
fn text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// The diff in at most `limit` bytes: cut before the first file that is not there as a whole, and marked.
fn bounded(mut diff: String, cut: bool, limit: usize) -> String {
    if !cut && diff.len() <= limit {
        return diff;
    }
    let mut end = diff.len().min(limit.saturating_sub(MARK.len()));
    while !diff.is_char_boundary(end) {
        end -= 1;
    }
    let whole = diff[..end].rfind(&format!("\n{FILE}")).map_or(0, |newline| newline + 1);
    diff.truncate(whole);
    diff.push_str(MARK);
    diff
}

/// Reads `--numstat -z`: `1\t2\tpath\0`, or `1\t2\t\0old\0new\0` for a rename; `-` stands for a binary file.
///
/// - A rename counts as one file, and gives both paths, since both have changed.
fn numbers_of(numstat: &[u8]) -> Result<(DiffStats, Vec<String>)> {
    let corrupt = || Error::new(ErrorKind::Corrupt, DIFF, "git's numbers cannot be read");
    let (mut stats, mut paths) = (DiffStats::default(), Vec::new());
    let mut fields = numstat.split(|&byte| byte == 0);
    while let Some(field) = fields.next().filter(|field| !field.is_empty()) {
        let mut parts = field.splitn(3, |&byte| byte == b'\t');
        let (Some(added), Some(removed), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(corrupt());
        };
        let lines =
            |digits: &[u8]| str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        stats.files_changed = stats.files_changed.saturating_add(1);
        stats.insertions = stats.insertions.saturating_add(lines(added));
        stats.deletions = stats.deletions.saturating_add(lines(removed));
        let mut add = |path: &[u8]| paths.push(String::from_utf8_lossy(path).into_owned());
        if path.is_empty() {
            add(fields.next().ok_or_else(corrupt)?);
            add(fields.next().ok_or_else(corrupt)?);
        } else {
            add(path);
        }
    }
    paths.sort_unstable();
    paths.dedup();
    Ok((stats, paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "diff --git a/a b/a\n+diff --git x\ndiff --git a/b b/b\n+ö\n";

    #[test]
    fn a_diff_is_cut_between_files() {
        assert_eq!(bounded(TWO.into(), false, TWO.len()), TWO);
        let room = TWO.len() + MARK.len();
        let first = TWO.split_inclusive('\n').take(2).collect::<String>();
        assert_eq!(bounded(TWO.repeat(9), false, room - 1), format!("{first}{MARK}"));
        // Git was stopped in the midst of the second file.
        assert_eq!(bounded(TWO[..TWO.len() - 4].into(), true, room), format!("{first}{MARK}"));
        assert_eq!(bounded(TWO.repeat(9), false, MARK.len() + 3), MARK);
    }

    #[test]
    fn bytes_that_no_database_takes_are_replaced() {
        assert_eq!(text(b"a\xff\0b".to_vec()), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn numbers_are_added_up_and_both_names_of_a_rename_count() {
        let (stats, paths) = numbers_of(b"1\t2\tb\nc\0-\t-\tz\0\x30\t3\t\0old\0new\0").unwrap();
        assert_eq!((stats.files_changed, stats.insertions, stats.deletions), (3, 1, 5));
        assert_eq!(paths, ["b\nc", "new", "old", "z"]);
    }
}
