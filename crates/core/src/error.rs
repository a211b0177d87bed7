//! The one error type of ports and engine.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::runs::Lease;

/// The result of a port or engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, in which operation, about what, and whether trying again can help.
///
/// - Decide on [`kind`](Error::kind) and [`is_retryable`](Error::is_retryable), never on the text.
/// - `Display` is one line: the message, the operation and its context. The source is not repeated in it;
///   [`report`](Error::report) walks the chain.
/// - It never carries a secret.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    retry: Retry,
    operation: &'static str,
    message: String,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

/// The kinds of error that a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such thing, or it belongs to another tenant.
    NotFound,
    /// A thing with the same unique value exists.
    AlreadyExists,
    /// Somebody else changed it first, or it is in use: read again, then decide.
    Conflict,
    /// The input breaks a rule; the message names the field and the rule.
    Invalid,
    /// The lease is lost, so the write changed nothing.
    StaleLease,
    /// The actor may not do this.
    PermissionDenied,
    /// Credentials are missing or were refused.
    Unauthenticated,
    /// A program, file or service that is needed is not there.
    Missing,
    /// This adapter does not do that.
    Unsupported,
    /// A limit was passed: rate, quota, size or count.
    LimitExceeded,
    /// The part behind the port does not answer.
    Unavailable,
    /// It took longer than allowed.
    Timeout,
    /// The other side broke the protocol, or stored data cannot be read.
    Corrupt,
    /// A fault that no caller can act on.
    Unexpected,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::StaleLease => "stale lease",
            Self::PermissionDenied => "permission denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Missing => "missing",
            Self::Unsupported => "unsupported",
            Self::LimitExceeded => "limit exceeded",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Corrupt => "corrupt",
            Self::Unexpected => "unexpected",
        })
    }
}

/// Whether the same call can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It will fail the same way.
    Never,
    /// It may succeed, not before this delay where one is known.
    After(Option<Duration>),
}

impl Error {
    /// An error of this kind; [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`] are retryable, others not.
    pub fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::Unavailable | ErrorKind::Timeout => Retry::After(None),
            _ => Retry::Never,
        };
        Self(Box::new(Inner {
            kind,
            retry,
            operation,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }))
    }

    /// [`ErrorKind::NotFound`] about the thing with this name and id.
    pub fn not_found(operation: &'static str, what: &'static str, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, operation, format!("there is no {what} {id}"))
    }

    /// [`ErrorKind::StaleLease`] of this lease.
    pub fn stale_lease(operation: &'static str, lease: &Lease) -> Self {
        let message = "the lease is lost or the run has ended, so nothing was changed";
        Self::new(ErrorKind::StaleLease, operation, message)
            .with("run", lease.run)
            .with("attempt", lease.attempt)
    }

    /// [`ErrorKind::Invalid`], with a message that names the field and the rule.
    pub fn invalid(operation: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, operation, message)
    }

    /// The same error with a name and a value that say what it was about; never a secret.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((name, value.to_string()));
        self
    }

    /// The same error with the error behind it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with another word on trying again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// What a caller decides on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.retry, Retry::After(_))
    }

    /// How long to wait before trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.retry {
            Retry::After(delay) => delay,
            Retry::Never => None,
        }
    }

    /// The operation that failed, such as `git.worktree_add`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The message alone, for a person.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The whole chain in one text, for a server-side log: this error, then each source on a line of its own.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            text.push_str("\n  because: ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}: {}", self.0.message, self.0.operation, self.0.kind)?;
        for (name, value) in &self.0.context {
            write!(f, ", {name} {value}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_leaves_the_source_out() {
        let error = Error::new(ErrorKind::Unavailable, "store.get", "the database does not answer")
            .with("tenant", 7)
            .because(std::io::Error::other("connection refused"));
        assert_eq!(error.to_string(), "the database does not answer (store.get: unavailable, tenant 7)");
        assert!(error.is_retryable());
        assert!(error.report().ends_with("because: connection refused"));
    }
}
