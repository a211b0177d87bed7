//! What a location that somebody gave is: a path, or a URL that git may be given.

use std::fmt;
use std::path::{Path, PathBuf};

use lime_core::{Error, Result};

/// The schemes that git is given; the environment of every call allows no other.
const SCHEMES: &[&str] = &["https", "http", "ssh", "git"];

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remote {
    /// On this machine; may be relative.
    Path(PathBuf),
    /// On another.
    Url(Url),
}

/// A URL, or what ssh takes as `host:path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    scheme: String,
    user: Option<String>,
    host: String,
    path: String,
}

impl Remote {
    /// Reads a location.
    ///
    /// - Refuses what git would take for an option or for a helper to be run (`ext::`), other schemes, control
    ///   characters, and passwords, which belong to the credentials.
    pub(crate) fn parse(operation: &'static str, location: &str) -> Result<Self> {
        let invalid =
            |rule: &str| Err(Error::invalid(operation, format!("this location cannot be used: {rule}")));
        if location.is_empty() || location.starts_with('-') {
            return invalid("it must be a path or a URL, not an option");
        }
        if location.chars().any(char::is_control) {
            return invalid("it has control characters");
        }
        if let Some((scheme, rest)) = location.split_once("://") {
            if scheme == "file" {
                return match rest.strip_prefix("localhost").unwrap_or(rest) {
                    path if path.starts_with('/') => Ok(Self::Path(decoded(path))),
                    _ => invalid("a file URL has three slashes, as in file:///srv/project"),
                };
            }
            if !SCHEMES.contains(&scheme) {
                return invalid("its scheme must be https, http, ssh, git or file");
            }
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (user, host) = match authority.rsplit_once('@') {
                Some((user, _)) if user.contains(':') => {
                    return invalid("it has a password; connect the repository with it");
                }
                Some((user, host)) => (Some(user.to_owned()), host),
                None => (None, authority),
            };
            return Self::url(operation, location, scheme, user, host, path);
        }
        let before_path = location.split('/').next().unwrap_or_default();
        if before_path.contains("::") {
            return invalid("helpers such as ext:: are not allowed");
        }
        match before_path.split_once(':') {
            Some((authority, _)) if !Path::new(location).exists() => {
                let path = &location[authority.len() + 1..];
                let (user, host) = match authority.rsplit_once('@') {
                    Some((user, host)) => (Some(user.to_owned()), host),
                    None => (None, authority),
                };
                Self::url(operation, location, "ssh", user, host, path)
            }
            _ => Ok(Self::Path(PathBuf::from(location))),
        }
    }

    fn url(
        operation: &'static str,
        text: &str,
        scheme: &str,
        user: Option<String>,
        host: &str,
        path: &str,
    ) -> Result<Self> {
        let dash = |part: &str| part.starts_with('-');
        if host.is_empty() || dash(host) || dash(path) || user.as_deref().is_some_and(dash) {
            return Err(Error::invalid(
                operation,
                "this location cannot be used: it has no host, or an option in it",
            ));
        }
        let path = path.trim_matches('/').trim_end_matches(".git");
        if path.is_empty() {
            return Err(Error::invalid(
                operation,
                "this location cannot be used: it names a host, but no repository",
            ));
        }
        Ok(Self::Url(Url {
            text: text.to_owned(),
            scheme: scheme.to_owned(),
            user,
            host: host.to_owned(),
            path: path.to_owned(),
        }))
    }

    /// What git takes as the remote.
    pub(crate) fn argument(&self) -> &std::ffi::OsStr {
        match self {
            Self::Path(path) => path.as_os_str(),
            Self::Url(url) => url.text.as_ref(),
        }
    }

    /// Scheme and host of a URL over http or https, for which a token is meant.
    pub(crate) fn http_origin(&self) -> Option<String> {
        match self {
            Self::Url(url) if url.scheme.starts_with("http") => {
                Some(format!("{}://{}", url.scheme, url.host))
            }
            Self::Url(_) | Self::Path(_) => None,
        }
    }

    /// Whether nobody on the way can read what is sent: https, or http to this machine.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Url(url) if url.scheme == "http" => {
                let host = match url.host.rsplit_once(':') {
                    Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
                    _ => &url.host,
                };
                matches!(host, "localhost" | "127.0.0.1" | "[::1]")
            }
            Self::Url(url) => url.scheme != "git",
            Self::Path(_) => true,
        }
    }

    /// Whether the URL names the user to log in as.
    pub(crate) fn has_user(&self) -> bool {
        matches!(self, Self::Url(Url { user: Some(_), .. }))
    }
}

impl Url {
    /// Host and path, which are the same over https and ssh.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// What stands before the name: the folders of the path, or the host.
    pub(crate) fn owner(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.host, |(owner, _)| owner)
    }

    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit_once('/').map_or(&self.path, |(_, name)| name)
    }

    /// The URL as it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&url.text),
        }
    }
}

/// The path of a file URL, with `%20` and its like read as git reads them.
fn decoded(path: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| str::from_utf8(digits).ok());
        match code.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(location: &str) -> Url {
        match Remote::parse("test", location).unwrap() {
            Remote::Url(url) => url,
            Remote::Path(path) => panic!("{path:?} is no URL"),
        }
    }

    #[test]
    fn a_repository_has_one_name_over_all_protocols() {
        for location in [
            "https://github.com/acme/shop.git",
            "https://github.com/acme/shop/",
            "ssh://git@github.com/acme/shop.git",
            "git@github.com:acme/shop.git",
        ] {
            let url = url(location);
            assert_eq!(url.full_name(), "github.com/acme/shop", "{location}");
            assert_eq!((url.owner(), url.name()), ("acme", "shop"));
        }
        assert_eq!(url("https://git.acme.dev/shop").owner(), "git.acme.dev");
    }

    #[test]
    fn paths_are_paths() {
        for (location, path) in [
            ("/srv/a b", "/srv/a b"),
            ("file:///srv/a%20b%", "/srv/a b%"),
            ("../x", "../x"),
            ("~/x", "~/x"),
            ("./a:b", "./a:b"),
        ] {
            assert_eq!(Remote::parse("test", location).unwrap(), Remote::Path(path.into()));
        }
    }

    #[test]
    fn what_would_run_something_or_hold_a_secret_is_refused() {
        for location in [
            "",
            "-u./payload",
            "ext::sh -c id",
            "fd::17",
            "ssh://-oProxyCommand=id/x",
            "-oProxyCommand=id:x",
            "git@-oProxyCommand=id:x",
            "https://bob:secret@github.com/acme/shop",
            "ftp://host/x",
            "file://host/x",
            "https://github.com/",
            "https:///x",
            "host:",
            "a\nb",
        ] {
            let error = Remote::parse("test", location).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_token_goes_over_https_or_stays_on_this_machine() {
        let private = |location| Remote::parse("test", location).unwrap().is_private();
        assert!(
            private("https://host/x") && private("http://127.0.0.1:80/x") && private("http://[::1]:80/x")
        );
        assert!(private("http://[::1]/x") && private("http://localhost/x"));
        assert!(!private("http://host/x") && !private("http://localhost.evil.dev/x"));
    }
}
