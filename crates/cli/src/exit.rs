//! How a command ends: every exit status, in one place.

use std::fmt;
use std::io;
use std::process::ExitCode;

use lime_core::{Error, ErrorKind, Invalid, ParseIdError};

/// The end of a command. clap itself ends it with 2 for arguments that it does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: not done, or something is not well.
    Failed,
    /// 2: asked for in a way that cannot be done.
    Usage,
    /// 3: what was named is not there.
    NotFound,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
        })
    }
}

/// Why a command did not do its work, in a line or two that say what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: why.into() }
    }

    pub(crate) fn usage(why: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: why.into() }
    }

    pub(crate) fn not_found(why: impl Into<String>) -> Self {
        Self { exit: Exit::NotFound, message: why.into() }
    }

    /// The end of a command whose reader has gone, such as `head`: there is nobody left to tell.
    fn unread() -> Self {
        Self { exit: Exit::Done, message: String::new() }
    }

    /// Whether there is something to say.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Invalid => Exit::Usage,
            _ => Exit::Failed,
        };
        let mut message = error.report();
        if let Some(advice) = advice(error.kind()) {
            message.push_str("\n  ");
            message.push_str(advice);
        }
        Self { exit, message }
    }
}

/// What an operator can do about an error of this kind, where its own message cannot know.
fn advice(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Unauthenticated => {
            Some("Check --database-url or DATABASE_URL, and that the server takes connections from here.")
        }
        ErrorKind::Missing => Some("`lime doctor` says what is missing; `lime migrate` makes the tables."),
        _ => None,
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::usage(invalid.to_string())
    }
}

impl From<ParseIdError> for Failure {
    fn from(error: ParseIdError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::unread(),
            _ => Self::failed(format!("the output cannot be written: {error}")),
        }
    }
}
