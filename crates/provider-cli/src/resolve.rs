//! Finding the program of an agent CLI on this machine.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Why a program was not found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No directory of the search path has an executable file of that name.
    #[error("`{name}` is not in any directory of PATH; install it{}", hint(.override_env.as_deref()))]
    NotOnPath {
        /// The name that was looked for.
        name: String,
        /// The environment variable that can name the program instead, if there is one.
        override_env: Option<String>,
    },
    /// A path was given, and there is no file.
    #[error("{} does not exist{}", .path.display(), origin(.override_env.as_deref()))]
    Missing {
        /// The path that was given or found.
        path: PathBuf,
        /// The environment variable the path came from, if it came from one.
        override_env: Option<String>,
    },
    /// There is a file (or something else), but it cannot be executed.
    #[error("{} is not an executable file{}", .path.display(), origin(.override_env.as_deref()))]
    NotExecutable {
        /// The path that was given or found.
        path: PathBuf,
        /// The environment variable the path came from, if it came from one.
        override_env: Option<String>,
    },
}

fn hint(override_env: Option<&str>) -> String {
    override_env.map(|name| format!(", or name its path in {name}")).unwrap_or_default()
}

fn origin(override_env: Option<&str>) -> String {
    override_env.map(|name| format!(" (named by {name})")).unwrap_or_default()
}

/// Finds an agent CLI: the variable `override_env` if it is set, else `name` on the worker's `PATH`.
///
/// - An override that is set and not empty decides alone: if it is wrong, that is an error, and `PATH` is
///   not asked. It may be a path, or another name to look for on `PATH`.
/// - A `name` with a slash in it is taken as a path.
/// - The answer is absolute, except for a relative override or `PATH` entry on a worker whose current
///   directory is gone. Symbolic links are kept, because a launcher may look at how it was called.
///
/// # Errors
///
/// [`ResolveError`] says what was looked for, where, and whether it was missing or not executable.
pub fn resolve_binary(override_env: &str, name: &str) -> Result<PathBuf, ResolveError> {
    let search = std::env::var_os("PATH");
    let over = std::env::var_os(override_env).filter(|value| !value.is_empty());
    match &over {
        Some(value) => resolve_in(search.as_deref(), value, Some(override_env), true),
        None => resolve_in(search.as_deref(), OsStr::new(name), Some(override_env), false),
    }
}

/// Looks `wanted` up in `search`; `named` says that the variable `env` is where `wanted` came from.
pub(crate) fn resolve_in(
    search: Option<&OsStr>,
    wanted: &OsStr,
    env: Option<&str>,
    named: bool,
) -> Result<PathBuf, ResolveError> {
    let from = || env.filter(|_| named).map(str::to_owned);
    let path = Path::new(wanted);
    if path.components().count() > 1 || path.is_absolute() {
        let path = absolute(path);
        return match executable(&path) {
            Some(true) => Ok(path),
            Some(false) => Err(ResolveError::NotExecutable { path, override_env: from() }),
            None => Err(ResolveError::Missing { path, override_env: from() }),
        };
    }
    let mut refused = None;
    for directory in search.iter().flat_map(std::env::split_paths) {
        let candidate = absolute(&directory.join(path));
        match executable(&candidate) {
            Some(true) => return Ok(candidate),
            Some(false) if !candidate.is_dir() => refused = refused.or(Some(candidate)),
            Some(false) | None => {}
        }
    }
    Err(match refused {
        Some(path) => ResolveError::NotExecutable { path, override_env: from() },
        None => ResolveError::NotOnPath {
            name: wanted.to_string_lossy().into_owned(),
            override_env: env.map(str::to_owned),
        },
    })
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Whether this worker may execute the file; `None` if there is nothing at the path.
fn executable(path: &Path) -> Option<bool> {
    let found = std::fs::metadata(path).ok()?;
    let may = rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    Some(found.is_file() && may)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn place(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_executable_on_the_path_wins() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        place(one.path(), "agent", 0o644);
        let good = place(two.path(), "agent", 0o755);
        let search = std::env::join_paths([one.path(), two.path()]).unwrap();
        assert_eq!(resolve_in(Some(&search), OsStr::new("agent"), None, false), Ok(good));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let plain = place(folder.path(), "agent", 0o644);
        let search = folder.path().as_os_str();

        let missing = resolve_in(Some(search), OsStr::new("absent"), Some("LIME_X_BIN"), false).unwrap_err();
        assert!(missing.to_string().contains("LIME_X_BIN"), "{missing}");
        let refused = resolve_in(Some(search), OsStr::new("agent"), Some("LIME_X_BIN"), false).unwrap_err();
        assert_eq!(refused, ResolveError::NotExecutable { path: plain.clone(), override_env: None });
        let named = resolve_in(None, plain.as_os_str(), Some("LIME_X_BIN"), true).unwrap_err();
        assert!(named.to_string().contains("named by LIME_X_BIN"), "{named}");
        let gone = folder.path().join("gone");
        let gone = resolve_in(None, gone.as_os_str(), Some("LIME_X_BIN"), true).unwrap_err();
        assert!(matches!(gone, ResolveError::Missing { .. }));
        assert!(matches!(
            resolve_in(None, OsStr::new("sh"), None, false),
            Err(ResolveError::NotOnPath { .. })
        ));
    }

    #[test]
    fn a_directory_is_not_a_program() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("agent")).unwrap();
        let found = resolve_in(Some(folder.path().as_os_str()), OsStr::new("agent"), None, false);
        assert!(matches!(found, Err(ResolveError::NotOnPath { .. })));
    }
}
