//! What to run, where, and with which environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::{ExposeSecret, SecretString};

use crate::process::SpawnError;
use crate::resolve::resolve_in;

/// The name of the one variable that the kernel itself adds to a run's environment.
///
/// Its value is unique to the run and no secret. It lets leftovers be found whose supervisor was killed.
pub const RUN_MARK: &str = "LIME_RUN_MARK";

/// The program of an agent CLI with its arguments, working directory and environment.
///
/// - The child's environment is exactly what is named here, plus [`RUN_MARK`]; nothing is inherited.
/// - `Debug` shows the program, the directory, the number of arguments and the names of variables: never an
///   argument and never a value.
///
/// ```
/// use lime_provider_cli::{CliCommand, SecretString};
///
/// let command = CliCommand::new("claude")
///     .args(["-p", "--output-format=stream-json"])
///     .current_dir("checkout")
///     .pass_env(["PATH", "LANG"])
///     .env("HOME", "a/home/of/its/own")
///     .secret_env("ANTHROPIC_API_KEY", SecretString::from("sk-dummy"));
/// assert!(!format!("{command:?}").contains("sk-dummy"));
/// ```
#[derive(Clone)]
pub struct CliCommand {
    program: PathBuf,
    args: Vec<OsString>,
    directory: Option<PathBuf>,
    environment: BTreeMap<OsString, Value>,
}

#[derive(Clone)]
enum Value {
    Plain(OsString),
    Secret(SecretString),
}

impl CliCommand {
    /// Starts a command from a path, or from a bare name that is looked up on the worker's `PATH` at spawn.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), directory: None, environment: BTreeMap::new() }
    }

    /// Adds one argument.
    ///
    /// - Arguments can be read by every user of the host: a secret belongs in [`secret_env`](Self::secret_env).
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the directory the agent works in; without it, the worker's own.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Copies the named variables from the worker's environment as it is now.
    ///
    /// - A variable the worker does not have is left out.
    #[must_use]
    pub fn pass_env(mut self, names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        for name in names {
            if let Some(value) = std::env::var_os(name.as_ref()) {
                self.environment.insert(name.as_ref().to_owned(), Value::Plain(value));
            }
        }
        self
    }

    /// Sets one variable; a later setting of the same name wins.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), Value::Plain(value.into()));
        self
    }

    /// Sets one variable to a secret, which is wiped from the worker's memory when the command is dropped.
    ///
    /// - The child gets it in the clear, and so does every tool that the child lets have it.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<OsString>, value: SecretString) -> Self {
        self.environment.insert(name.into(), Value::Secret(value));
        self
    }

    /// The program as it was given.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Checks everything that can be checked beforehand, and makes the command of the standard library.
    pub(crate) fn build(&self, mark: &str) -> Result<Command, SpawnError> {
        let search = std::env::var_os("PATH");
        let program = resolve_in(search.as_deref(), self.program.as_os_str(), None, false)?;
        let mut command = Command::new(program);
        command.args(&self.args).env_clear();
        if let Some(directory) = &self.directory {
            if !directory.is_dir() {
                return Err(SpawnError::WorkingDirectory { directory: directory.clone() });
            }
            command.current_dir(directory);
        }
        for (name, value) in &self.environment {
            let bytes = name.as_bytes();
            if bytes.is_empty() || bytes.iter().any(|byte| matches!(byte, b'=' | 0)) {
                return Err(SpawnError::EnvironmentName { name: name.to_string_lossy().into_owned() });
            }
            match value {
                Value::Plain(value) => command.env(name, value),
                Value::Secret(value) => command.env(name, value.expose_secret()),
            };
        }
        command.env(RUN_MARK, mark);
        Ok(command)
    }
}

impl fmt::Debug for CliCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CliCommand")
            .field("program", &self.program)
            .field("args", &format_args!("{} hidden", self.args.len()))
            .field("directory", &self.directory)
            .field("environment", &self.environment.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value_and_no_argument() {
        let command = CliCommand::new("sh")
            .arg("--token=tok-123")
            .env("PLAIN", "plain-123")
            .secret_env("KEY", SecretString::from("key-123"));
        let shown = format!("{command:?}");
        assert!(!shown.contains("123"), "{shown}");
        assert!(shown.contains("PLAIN") && shown.contains("KEY"), "{shown}");
    }

    #[test]
    fn impossible_commands_are_refused_before_anything_starts() {
        let missing = CliCommand::new("no-such-agent-cli").build("m").unwrap_err();
        assert!(matches!(missing, SpawnError::Program(_)), "{missing}");
        let directory = CliCommand::new("sh").current_dir("no/such/directory").build("m").unwrap_err();
        assert!(matches!(directory, SpawnError::WorkingDirectory { .. }));
        let name = CliCommand::new("sh").env("A=B", "c").build("m").unwrap_err();
        assert!(matches!(name, SpawnError::EnvironmentName { .. }));
    }
}
