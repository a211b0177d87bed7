//! What went wrong, from what git said.

use std::path::Path;

use lime_core::{Error, ErrorKind};
use secrecy::{ExposeSecret, SecretString};

use crate::call::Output;

/// How many of the last lines of stderr an error carries.
const LINES: usize = 6;

/// What git says, what it means, and what to do; the first that fits counts.
///
/// - Git runs in the C locale, so the words are stable; the server's own words behind `remote:` are not, and only
///   those of the large hosts are known.
const KNOWN: &[(&str, ErrorKind, &str)] = &[
    (
        "dubious ownership",
        ErrorKind::PermissionDenied,
        "the repository belongs to another user of this machine; run the worker as its owner, or make the worker's \
         user the owner",
    ),
    ("does not appear to be a git repository", ErrorKind::NotFound, "there is no git repository there"),
    ("not a git repository", ErrorKind::NotFound, "there is no git repository there"),
    (
        "epository not found",
        ErrorKind::NotFound,
        "there is no such repository, or the credentials do not reach it",
    ),
    ("' not found", ErrorKind::NotFound, "there is no such repository, or the credentials do not reach it"),
    (
        "repository not exported",
        ErrorKind::NotFound,
        "there is no such repository, or the credentials do not reach it",
    ),
    ("Authentication failed", ErrorKind::Unauthenticated, "the credentials were refused; renew them"),
    (
        "could not read Username",
        ErrorKind::Unauthenticated,
        "the repository asks for credentials; connect it with some",
    ),
    (
        "could not read Password",
        ErrorKind::Unauthenticated,
        "the repository asks for credentials; connect it with some",
    ),
    (
        "Permission denied (publickey",
        ErrorKind::Unauthenticated,
        "the ssh key was refused; add it to the host, or load it",
    ),
    (
        "Host key verification failed",
        ErrorKind::Unauthenticated,
        "the ssh host is not known; add its key to known_hosts",
    ),
    ("returned error: 403", ErrorKind::PermissionDenied, "the credentials do not allow this"),
    ("protected branch", ErrorKind::PermissionDenied, "the branch is protected; choose another branch"),
    ("hook declined", ErrorKind::PermissionDenied, "the repository's own hook refused the push"),
    ("No space left on device", ErrorKind::LimitExceeded, "the disk is full; make room"),
    ("Disk quota exceeded", ErrorKind::LimitExceeded, "the disk's quota is used up; make room"),
    ("invalid path", ErrorKind::Invalid, "the repository has a file whose name git does not take"),
    ("Could not resolve host", ErrorKind::Unavailable, "the host of the repository is not known"),
    ("unable to access", ErrorKind::Unavailable, "the repository does not answer"),
    ("Could not read from remote repository", ErrorKind::Unavailable, "the repository does not answer"),
    ("unable to connect", ErrorKind::Unavailable, "the repository does not answer"),
    ("early EOF", ErrorKind::Unavailable, "the repository broke off"),
    ("hung up unexpectedly", ErrorKind::Unavailable, "the repository broke off"),
    ("ermission denied", ErrorKind::PermissionDenied, "the worker's user may not read or write there"),
];

/// The error of a call that ended with another code than it should.
pub(crate) fn failed(operation: &'static str, output: &Output) -> Error {
    let known = KNOWN.iter().find(|(words, ..)| output.stderr.contains(words));
    let (kind, message) =
        known.map_or((ErrorKind::Unexpected, "git failed"), |&(_, kind, message)| (kind, message));
    let error = Error::new(kind, operation, message);
    let error = match output.code {
        Some(code) => error.with("exit", code),
        None => error.with("exit", "by a signal"),
    };
    error.with("git", last_lines(&output.stderr))
}

/// The last lines that are not hints, in one.
pub(crate) fn last_lines(stderr: &str) -> String {
    let lines: Vec<_> =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:")).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" | ")
}

/// The error of a file operation.
pub(crate) fn io(operation: &'static str, message: &str, path: &Path, error: std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::Missing,
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::LimitExceeded,
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, operation, message).with("path", path.display()).because(error)
}

/// The text without the token, and without what stands before the `@` of a URL.
pub(crate) fn redacted(text: &str, token: Option<&SecretString>) -> String {
    let text = match token.map(ExposeSecret::expose_secret) {
        Some(token) if !token.is_empty() => text.replace(token, "***"),
        _ => text.to_owned(),
    };
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        let (authority, after) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                clean.push_str("***@");
                clean.push_str(host);
            }
            None => clean.push_str(authority),
        }
        rest = after;
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left_in_what_git_said() {
        let said = "fatal: unable to access 'https://bob:p@ss@host:8443/a.git/': no s3cret https://plain/x ssh://u@h";
        assert_eq!(
            redacted(said, Some(&"s3cret".into())),
            "fatal: unable to access 'https://***@host:8443/a.git/': no *** https://plain/x ssh://***@h"
        );
    }

    #[test]
    fn an_error_says_what_git_said_without_its_hints() {
        let output = Output {
            code: Some(128),
            stdout: Vec::new(),
            cut: false,
            stderr: "hint: try\nfatal: '/x' does not appear to be a git repository\nfatal: Could not read\n"
                .into(),
        };
        let error = failed("git.fetch", &output);
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("repository | fatal: Could not read"), "{error}");
    }
}
