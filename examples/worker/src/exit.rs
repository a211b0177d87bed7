//! How the process ends: every exit status, in one place.

use std::fmt;
use std::process::ExitCode;

use assembly_lime::Error;

/// The end of the process. clap itself ends it with 2 for arguments that it does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: it was told to stop, and has stopped.
    Stopped,
    /// 1: it could not begin, or ended badly; to be started again.
    Failed,
    /// 2: it is configured wrongly; to be looked at.
    Misconfigured,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Stopped => 0,
            Exit::Failed => 1,
            Exit::Misconfigured => 2,
        })
    }
}

/// Why there is no worker, in a line or two that say what to do.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) exit: Exit,
    message: String,
}

impl Refusal {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: why.into() }
    }

    /// The value of this variable cannot be used; never with a value that is a secret.
    pub(crate) fn variable(name: &str, why: impl fmt::Display) -> Self {
        Self { exit: Exit::Misconfigured, message: format!("{name}: {why}") }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::failed(error.report())
    }
}
