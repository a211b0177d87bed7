//! The git program of this machine.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use lime_core::{Error, ErrorKind, Result};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::call::Call;

/// The oldest git that has what is used here: `worktree list -z` and the check of a directory's owner.
const OLDEST: (u32, u32) = (2, 36);

/// The longest wait for `git --version`.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// Finds the git program once, and runs it.
#[derive(Debug, Default)]
pub(crate) struct Git {
    program: OnceCell<Program>,
}

/// The program, by a full path so that no folder that an agent can write is ever searched for it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) file: PathBuf,
    pub(crate) search_path: OsString,
}

impl Git {
    /// A call of git, known as `operation` in errors and traces.
    pub(crate) fn call(&self, operation: &'static str) -> Call<'_> {
        Call::new(self, operation)
    }

    /// Another program in git's place.
    #[cfg(test)]
    pub(crate) fn faked(file: PathBuf) -> Self {
        let search_path = env::var_os("PATH").unwrap_or_default();
        Self { program: OnceCell::new_with(Some(Program { file, search_path })) }
    }

    pub(crate) async fn program(&self) -> Result<&Program> {
        self.program.get_or_try_init(Program::find).await
    }
}

impl Program {
    async fn find() -> Result<Self> {
        let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .filter(|folder| folder.is_absolute())
            .collect();
        let file = folders.iter().map(|folder| folder.join("git")).find(|file| file.is_file());
        let file = file.ok_or_else(|| {
            Error::new(
                ErrorKind::Missing,
                "git.version",
                "git is not installed, or not in PATH; install git 2.36 or newer",
            )
        })?;
        let search_path = env::join_paths(&folders).map_err(|error| {
            Error::new(ErrorKind::Missing, "git.version", "PATH cannot be used").because(error)
        })?;
        let program = Self { file, search_path };
        program.check().await?;
        Ok(program)
    }

    async fn check(&self) -> Result<()> {
        let missing = |message: String| {
            Error::new(ErrorKind::Missing, "git.version", message).with("program", self.file.display())
        };
        let mut command = Command::new(&self.file);
        command.arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(VERSION_LIMIT, command.output())
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout, "git.version", "git does not say its version"))?
            .map_err(|error| missing("git cannot be started".into()).because(error))?;
        let text = String::from_utf8_lossy(&output.stdout);
        match version(&text) {
            Some(found) if found >= OLDEST => Ok(()),
            Some(_) => {
                Err(missing(format!("git is too old, install 2.36 or newer; this is {}", text.trim())))
            }
            None => Err(missing("the program called git is not git".into())),
        }
    }
}

/// The first two numbers of what `git --version` prints.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("git version ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Variables of this process that git sees when it talks to another machine.
const NETWORK: &[&str] = &[
    "SSH_AUTH_SOCK",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// The environment of every git process: `PATH`, and what follows.
///
/// - `HOME` is a file, so that nothing below it can exist.
/// - Git hands these on to what it starts, to the other side of a fetch from a path included.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_DEFAULT_REF_FORMAT", "files"),
    ("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh"),
    ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
    ("GIT_PAGER", "cat"),
    ("GIT_EDITOR", "false"),
];

/// Settings that win over any file: nothing is run that git itself does not need, and nothing is guessed.
pub(crate) const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.quotePath=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "credential.helper=",
    "commit.gpgSign=false",
    "push.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "push.recurseSubmodules=no",
    "http.followRedirects=initial",
];

/// The environment, as pairs.
pub(crate) fn environment(program: &Program, network: bool) -> Vec<(&'static OsStr, OsString)> {
    let mut all = vec![(OsStr::new("PATH"), program.search_path.clone())];
    all.extend(ENVIRONMENT.iter().map(|&(name, value)| (OsStr::new(name), value.into())));
    if network {
        all.extend(NETWORK.iter().filter_map(|name| Some((OsStr::new(*name), env::var_os(name)?))));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_all_makers_are_read() {
        assert_eq!(version("git version 2.47.3\n"), Some((2, 47)));
        assert_eq!(version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(version("git version 2.45.1.windows.1"), Some((2, 45)));
        assert_eq!(version("hub version 2.14"), None);
    }
}
