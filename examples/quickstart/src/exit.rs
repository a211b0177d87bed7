//! How the command ends: every exit status, in one place.

use std::error::Error as _;
use std::fmt;
use std::process::ExitCode;

use assembly_lime::Error;

/// The end of the command. clap itself ends it with 2 for arguments that it does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: the run succeeded.
    Done,
    /// 1: the run failed or was cancelled.
    NotDone,
    /// 2: the run could not start.
    Refused,
    /// 130: interrupted before there was a run, or twice; as a shell says it of SIGINT.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::NotDone => 1,
            Exit::Refused => 2,
            Exit::Interrupted => 130,
        })
    }
}

/// Why a run could not start, in a line or two that say what to do.
#[derive(Debug)]
pub(crate) struct Refusal(String);

impl Refusal {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let because = error.source().map(|source| format!("\n  because: {source}")).unwrap_or_default();
        Self(format!("{error}{because}"))
    }
}
