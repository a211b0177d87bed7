use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// The path of a file in the worktree, `/` between its parts.
///
/// - Checked when the recording is read: relative, without `.` and `..`, and not in a `.git`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Place(String);

/// The most bytes of a path.
const MAX_BYTES: usize = 1_024;

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("the path {path:?} {why}"));
        if path.is_empty() || path.len() > MAX_BYTES {
            return refused("must have 1 to 1024 bytes");
        }
        if path.chars().any(|c| c == '\\' || c.is_control()) {
            return refused("must have `/` between its parts, and no control characters");
        }
        if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
            return refused("leaves the worktree: write it relative to the worktree, without `..`");
        }
        if path.split('/').any(|part| part.is_empty() || part == ".") {
            return refused("has an empty part or a `.`");
        }
        if path.split('/').any(|part| part.eq_ignore_ascii_case(".git")) {
            return refused("is git's own: a recording edits files, not the repository's database");
        }
        Ok(Self(path))
    }
}

impl Place {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the file is on the disk.
    ///
    /// - A symbolic link on the way, or in its place, is refused: it could lead out of the worktree. The check and
    ///   the use are two moments, which is enough for a worktree that nobody else writes to.
    pub(crate) fn within(&self, workdir: &Path) -> Result<PathBuf, String> {
        let mut path = workdir.to_owned();
        for part in self.0.split('/') {
            path.push(part);
            if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
                return Err(format!(
                    "`{}` is or passes a symbolic link, which a recording does not follow",
                    self.0
                ));
            }
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_worktree_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../x",
            "a/..",
            ".",
            "./a",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "a\0b",
            ".git/config",
            "sub/.GIT/hooks/x",
            "a\nb",
        ] {
            assert!(Place::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
        assert!(Place::try_from("a".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn paths_in_the_worktree_are_taken() {
        for good in ["a", "a/b.c", ".gitignore", "..a/b..", "dir with space/ü"] {
            let place = Place::try_from(good.to_owned()).unwrap();
            assert_eq!(place.within(Path::new("w")).unwrap(), Path::new("w").join(good));
        }
    }
}
