//! Names of branches and commits, checked before git sees them.

use lime_core::{Error, Result};

/// The longest name of a branch, in bytes: what a file system takes as one path component, with room for a lock.
const MAX_BRANCH: usize = 240;

/// A name that git takes for a branch, by the rules of `git check-ref-format --branch`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Branch(String);

impl Branch {
    pub(crate) fn parse(operation: &'static str, name: &str) -> Result<Self> {
        if name.len() <= MAX_BRANCH && name != "HEAD" && !name.starts_with('-') && is_ref_name(name) {
            return Ok(Self(name.to_owned()));
        }
        Err(Error::invalid(
            operation,
            "this is not a name for a branch: use letters, digits, `-`, `_`, `.` and `/`, at most 240 bytes, with no \
             `..`, no `.lock` at an end, no `.` at a start, and no `-` first",
        )
        .with("branch", format!("{:?}", name.chars().take(100).collect::<String>())))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As `refs/heads/…`.
    pub(crate) fn full(&self) -> String {
        format!("refs/heads/{}", self.0)
    }

    /// Whether git cannot hold both, since one would be a folder of the other.
    pub(crate) fn clashes_with(&self, other: &str) -> bool {
        let below =
            |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        below(&self.0, other) || below(other, &self.0)
    }
}

/// Whether git takes this as the name of a ref below a folder of refs (`git check-ref-format`).
pub(crate) fn is_ref_name(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name != "@"
        && name.split('/').all(part)
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_ascii_control() || " ~^:?*[\\".contains(c))
}

/// Whether this is the full name of an object, in SHA-1 or SHA-256.
///
/// - All zeros is none: git takes it for "no object", so a push of it would delete the branch.
pub(crate) fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text) && text.bytes().any(|byte| byte != b'0')
}

/// Whether this can be the start of the name of an object, as long as git asks for at least.
pub(crate) fn is_short_object_id(text: &str) -> bool {
    (4..=64).contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_rules_are_those_of_git() {
        let names = [
            "main",
            "a/b/c",
            "feature/ÄÖ-1",
            "a",
            "-a",
            "a-",
            "HEAD",
            "head",
            "a.lock",
            "a.lock/b",
            ".a",
            "a/.b",
            "a.",
            "a./b",
            "a..b",
            "a@",
            "@{1}",
            "a@{b",
            "a b",
            "a~b",
            "a^b",
            "a:b",
            "a?b",
            "a*b",
            "a[b",
            "a\\b",
            "a]b",
            "/a",
            "a/",
            "a//b",
            "",
            "a\nb",
            "a\tb",
            "a\u{7f}b",
            "a'b",
            "a\"b",
            "a;b",
            "$(b)",
            "refs/heads/a",
            "a{b}",
            "a/-b",
            "lock",
            ".lock",
            "a/@",
            "a/HEAD",
            "\u{a0}",
        ];
        for name in names {
            let git = Command::new("git")
                .args(["check-ref-format", "--branch", name])
                .output()
                .unwrap()
                .status
                .success();
            assert_eq!(Branch::parse("test", name).is_ok(), git, "{name:?}");
        }
        assert!(Branch::parse("test", "@").is_err(), "git reads it as HEAD");
    }

    #[test]
    fn a_branch_clashes_with_one_that_would_be_its_folder() {
        let branch = Branch::parse("test", "feature/a").unwrap();
        assert!(branch.clashes_with("feature"));
        assert!(branch.clashes_with("feature/a/b"));
        assert!(!branch.clashes_with("feature/a"));
        assert!(!branch.clashes_with("feature/ab"));
        assert!(!branch.clashes_with("feat"));
    }
}
