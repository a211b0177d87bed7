//! What may go wrong with a turn.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Headers by name, for a fault's HTTP answer.
pub type Headers = BTreeMap<String, String>;

/// How a turn goes wrong.
///
/// - `after_deltas` counts the deltas that are streamed first; a shorter answer breaks where its end would be.
///   A request without streaming has no middle: there the fault comes at once.
/// - A turn that a fault hit counts as not given: a retry meets the same turn again. Only
///   [`Fault::MaxTokens`] is an answer like any other, and the next turn follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// An HTTP error in place of an answer.
    Http {
        /// The status, 400 to 599.
        status: u16,
        /// Headers to add, such as `retry-after`.
        #[serde(default)]
        headers: Headers,
        /// The whole JSON body; without it, the API's usual error body for the status, with `message`.
        #[serde(default)]
        body: Option<Value>,
        /// The message in the usual error body.
        #[serde(default)]
        message: Option<String>,
    },
    /// An error event in the middle of the stream, which then ends; without streaming, status 500.
    ErrorEvent {
        /// The error's message.
        message: String,
        /// How much is streamed first.
        #[serde(default)]
        after_deltas: usize,
    },
    /// The connection breaks in the middle of the answer.
    Cut {
        /// How much is streamed first.
        #[serde(default)]
        after_deltas: usize,
    },
    /// The answer stops coming, and the connection stays open until the client or the server goes.
    Hang {
        /// How much is streamed first.
        #[serde(default)]
        after_deltas: usize,
    },
    /// The answer is whole, but says that it was cut at the output limit.
    ///
    /// - Claude Code asks the model to go on, and so meets the next turn; Codex fails.
    MaxTokens,
    /// The answer is whole, but says that the model declined. Codex retries it.
    Refusal,
    /// The conversation is too long for the model.
    ContextFull,
    /// The account has no money left.
    Quota,
}

impl Fault {
    /// Makes an HTTP error of the usual shape.
    #[must_use]
    pub fn http(status: u16) -> Self {
        Self::Http { status, headers: Headers::new(), body: None, message: None }
    }

    /// Makes status 429 with `retry-after`, in whole seconds.
    #[must_use]
    pub fn rate_limited(retry_after: Duration) -> Self {
        let headers = Headers::from([("retry-after".to_owned(), retry_after.as_secs().to_string())]);
        Self::Http { status: 429, headers, body: None, message: None }
    }

    /// Makes status 401: the key is wrong.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::http(401)
    }

    /// Makes status 529: the model is overloaded.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::http(529)
    }

    /// Whether an answer with this fault counts as not given.
    pub(crate) fn spoils(&self) -> bool {
        *self != Self::MaxTokens
    }

    /// Why HTTP could not carry this fault, if so.
    pub(crate) fn invalid(&self) -> Option<String> {
        let Self::Http { status, headers, .. } = self else {
            return None;
        };
        if !(400..600).contains(status) || StatusCode::from_u16(*status).is_err() {
            return Some(format!("status {status} is not 400 to 599"));
        }
        headers.iter().find_map(|(name, value)| {
            let bad =
                HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err();
            bad.then(|| format!("`{name}` is no valid header"))
        })
    }
}

/// The type of error that both APIs give a status.
pub(crate) fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}

/// What both APIs say for a status, when the script does not.
pub(crate) fn error_message(status: u16) -> &'static str {
    match status {
        401 => "invalid x-api-key",
        403 => "permission denied",
        404 => "not found",
        413 => "request too large",
        429 => "rate limit exceeded",
        529 => "overloaded",
        500..=599 => "internal server error",
        _ => "scripted bad request",
    }
}
