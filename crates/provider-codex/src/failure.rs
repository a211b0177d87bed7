//! Why a turn failed, in words that say what to do.

use lime_core::runs::{AgentEvent, Failure, FailureKind};
use serde_json::Value as Json;

use crate::wire::app::TurnError;

/// The most bytes of Codex's own words in a failure's message.
const MAX_QUOTE_BYTES: usize = 300;

/// Reads a turn's error: by its type where Codex gives one, by its text otherwise.
pub(crate) fn of_turn(error: &TurnError) -> Failure {
    failure(kind_of(&error.codex_error_info, &error.message), &error.message)
}

/// The event of an error after which Codex tries again.
///
/// - Its text is `Reconnecting... 1/5`, with what happened in the details (app-server) or in brackets (`exec`).
pub(crate) fn passing(error: &TurnError) -> AgentEvent {
    let said = error.additional_details.as_deref().unwrap_or_else(|| {
        let message = error.message.as_str();
        match message.split_once(" (") {
            Some((first, rest)) if first.starts_with("Reconnecting") => {
                rest.strip_suffix(')').unwrap_or(rest)
            }
            _ => message,
        }
    });
    AgentEvent::Error {
        message: format!("Codex met a fault and goes on: {}", quote(said)),
        kind: Some(kind_of(&error.codex_error_info, said)),
        stack: None,
    }
}

fn kind_of(info: &Json, said: &str) -> FailureKind {
    kind_of_text_first(said)
        .or_else(|| kind_of_info(info))
        .or_else(|| kind_of_text(said))
        .unwrap_or(FailureKind::Internal)
}

/// Reads an error of which there is only a text.
pub(crate) fn of_text(text: &str) -> Failure {
    failure(kind_of(&Json::Null, text), text)
}

/// A failure of this kind with Codex's own words in it.
pub(crate) fn failure(kind: FailureKind, said: &str) -> Failure {
    let said = quote(said);
    let quoted = if said.is_empty() { String::new() } else { format!(": {said}") };
    let (what, advice) = match kind {
        FailureKind::MissingBinary => (
            "Codex is not installed",
            "Install it (`npm install -g @openai/codex`), or name its program in LIME_CODEX_BIN.",
        ),
        FailureKind::MissingCredentials => {
            ("Codex has no key", "Set OPENAI_API_KEY, or give the provider a folder with a stored login.")
        }
        FailureKind::BadCredentials => (
            "The model's provider refused the key or login",
            "Check OPENAI_API_KEY and OPENAI_BASE_URL, or log in again.",
        ),
        FailureKind::PermissionDenied => {
            ("The account may not do this", "Ask for access, or choose another model.")
        }
        FailureKind::QuotaExceeded => {
            ("The account's quota is used up", "Add credit or wait until the plan renews, then run it again.")
        }
        FailureKind::RateLimited => {
            ("The model's provider takes no more calls for now", "Run it again later.")
        }
        FailureKind::Overloaded => {
            ("The model's provider has a fault or too much to do", "Run it again later.")
        }
        FailureKind::Network => (
            "The model's provider could not be reached, or the connection broke",
            "Check the network and OPENAI_BASE_URL, then run it again.",
        ),
        FailureKind::InvalidRequest => {
            ("The request was refused as wrong", "Check the model's name and the settings of this run.")
        }
        FailureKind::ContextFull => {
            ("The conversation no longer fits the model", "Start a new run with a smaller task.")
        }
        FailureKind::OutputLimit => {
            ("The model's answer was longer than allowed", "Ask for less in one step.")
        }
        FailureKind::Refused => ("The model declined to answer", "Change what is asked for."),
        FailureKind::SessionGone => ("The session to go on with is not there", "Start a new run without it."),
        FailureKind::Crashed => {
            ("Codex ended without a result", "Look at the worker's log, then run it again.")
        }
        FailureKind::Protocol => (
            "Codex said what this version does not understand",
            "Use a Codex that this version was tested with.",
        ),
        FailureKind::Workspace => {
            ("Codex could not work in its folder", "Check that the folder is there and may be written.")
        }
        FailureKind::WorkerLost | FailureKind::Internal => {
            ("Codex failed", "Look at the worker's log, then run it again.")
        }
    };
    let stop = if quoted.ends_with(['.', '!', '?']) { "" } else { "." };
    Failure::new(kind, format!("{what}{quoted}{stop} {advice}"))
}

/// The kind that Codex's own type of error means (`CodexErrorInfo` of its schema).
fn kind_of_info(info: &Json) -> Option<FailureKind> {
    if let Some(word) = info.as_str() {
        return Some(match word {
            "contextWindowExceeded" => FailureKind::ContextFull,
            "sessionBudgetExceeded" | "usageLimitExceeded" => FailureKind::QuotaExceeded,
            "rateLimitExceeded" => FailureKind::RateLimited,
            "flexUnavailable" | "serverOverloaded" | "policyCapacityUnavailable" | "internalServerError" => {
                FailureKind::Overloaded
            }
            "modelNotFound" | "badRequest" => FailureKind::InvalidRequest,
            "cyberPolicy" | "misalignmentPolicyViolation" => FailureKind::Refused,
            "tooManyDenials" | "inferenceHookDenied" => FailureKind::PermissionDenied,
            "unauthorized" => FailureKind::BadCredentials,
            "sandboxError" => FailureKind::Workspace,
            "threadRollbackFailed" => FailureKind::Internal,
            _ => return None,
        });
    }
    let (word, facts) = info.as_object()?.iter().next()?;
    match word.as_str() {
        "httpConnectionFailed"
        | "responseStreamConnectionFailed"
        | "responseStreamDisconnected"
        | "responseTooManyFailedAttempts" => {
            Some(facts["httpStatusCode"].as_u64().and_then(kind_of_status).unwrap_or(FailureKind::Network))
        }
        _ => None,
    }
}

fn kind_of_status(status: u64) -> Option<FailureKind> {
    match status {
        401 => Some(FailureKind::BadCredentials),
        402 => Some(FailureKind::QuotaExceeded),
        403 => Some(FailureKind::PermissionDenied),
        408 => Some(FailureKind::Network),
        429 => Some(FailureKind::RateLimited),
        400..=499 => Some(FailureKind::InvalidRequest),
        500..=599 => Some(FailureKind::Overloaded),
        _ => None,
    }
}

/// What a text says more exactly than Codex's type of error: it files these under `other` or a broken stream.
fn kind_of_text_first(text: &str) -> Option<FailureKind> {
    const SAYINGS: [(&str, FailureKind); 8] = [
        ("Missing environment variable", FailureKind::MissingCredentials),
        ("reason: content_filter", FailureKind::Refused),
        ("reason: max_output_tokens", FailureKind::OutputLimit),
        ("insufficient_quota", FailureKind::QuotaExceeded),
        ("no rollout found", FailureKind::SessionGone),
        ("invalid session id", FailureKind::SessionGone),
        ("invalid thread id", FailureKind::SessionGone),
        ("thread not found", FailureKind::SessionGone),
    ];
    say(&SAYINGS, text)
}

fn kind_of_text(text: &str) -> Option<FailureKind> {
    const SAYINGS: [(&str, FailureKind); 14] = [
        ("quota exceeded", FailureKind::QuotaExceeded),
        ("usage limit", FailureKind::QuotaExceeded),
        ("context window", FailureKind::ContextFull),
        ("high demand", FailureKind::Overloaded),
        ("at capacity", FailureKind::Overloaded),
        ("overloaded", FailureKind::Overloaded),
        ("rate limit", FailureKind::RateLimited),
        ("not logged in", FailureKind::MissingCredentials),
        ("invalid_request_error", FailureKind::InvalidRequest),
        ("unknown configuration", FailureKind::InvalidRequest),
        ("invalid type", FailureKind::InvalidRequest),
        ("error loading config", FailureKind::InvalidRequest),
        ("stream disconnected", FailureKind::Network),
        ("error sending request", FailureKind::Network),
    ];
    status_in(text).and_then(kind_of_status).or_else(|| say(&SAYINGS, text))
}

fn say(sayings: &[(&str, FailureKind)], text: &str) -> Option<FailureKind> {
    let text = text.to_lowercase();
    sayings.iter().find(|(saying, _)| text.contains(&saying.to_lowercase())).map(|(_, kind)| *kind)
}

/// The HTTP status in `unexpected status 401 …` and `last status: 429 …`.
fn status_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("status")?;
    let digits: String =
        rest.trim_start_matches([':', ' ']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Codex's words as they may be shown: an API's JSON opened, no URL (it may hold credentials), no key, one line,
/// at most [`MAX_QUOTE_BYTES`].
pub(crate) fn quote(text: &str) -> String {
    let opened = serde_json::from_str::<Json>(text)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(str::to_owned));
    let text = opened.as_deref().unwrap_or(text);
    let text = text.split_once(", url: ").map_or(text, |(before, _)| before);
    let mut words: Vec<&str> = text.split_whitespace().collect();
    for word in &mut words {
        if looks_secret(word) {
            *word = "[redacted]";
        }
    }
    let mut text = words.join(" ");
    if text.len() > MAX_QUOTE_BYTES {
        text.truncate(text.floor_char_boundary(MAX_QUOTE_BYTES));
        text.push('…');
    }
    text
}

/// A key of OpenAI's, a JSON web token, or a URL.
fn looks_secret(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    word.starts_with("sk-") || (word.starts_with("eyJ") && word.len() > 20) || word.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn typed(message: &str, info: Json) -> Failure {
        of_turn(&TurnError { message: message.into(), codex_error_info: info, additional_details: None })
    }

    #[test]
    fn every_type_of_error_in_the_schema_has_a_kind() {
        for (info, kind) in [
            (json!("contextWindowExceeded"), FailureKind::ContextFull),
            (json!("sessionBudgetExceeded"), FailureKind::QuotaExceeded),
            (json!("usageLimitExceeded"), FailureKind::QuotaExceeded),
            (json!("rateLimitExceeded"), FailureKind::RateLimited),
            (json!("flexUnavailable"), FailureKind::Overloaded),
            (json!("serverOverloaded"), FailureKind::Overloaded),
            (json!("modelNotFound"), FailureKind::InvalidRequest),
            (json!("policyCapacityUnavailable"), FailureKind::Overloaded),
            (json!("cyberPolicy"), FailureKind::Refused),
            (json!("misalignmentPolicyViolation"), FailureKind::Refused),
            (json!("tooManyDenials"), FailureKind::PermissionDenied),
            (json!("internalServerError"), FailureKind::Overloaded),
            (json!("unauthorized"), FailureKind::BadCredentials),
            (json!("badRequest"), FailureKind::InvalidRequest),
            (json!("threadRollbackFailed"), FailureKind::Internal),
            (json!("sandboxError"), FailureKind::Workspace),
            (json!("other"), FailureKind::Internal),
            (json!("inferenceHookDenied"), FailureKind::PermissionDenied),
            (json!({ "httpConnectionFailed": { "httpStatusCode": 401 } }), FailureKind::BadCredentials),
            (
                json!({ "responseStreamConnectionFailed": { "httpStatusCode": 403 } }),
                FailureKind::PermissionDenied,
            ),
            (json!({ "responseStreamDisconnected": { "httpStatusCode": null } }), FailureKind::Network),
            (json!({ "responseTooManyFailedAttempts": { "httpStatusCode": 429 } }), FailureKind::RateLimited),
            (json!({ "httpConnectionFailed": { "httpStatusCode": 503 } }), FailureKind::Overloaded),
            (json!({ "activeTurnNotSteerable": { "turnKind": "review" } }), FailureKind::Internal),
            (json!({ "somethingNew": {} }), FailureKind::Internal),
            (Json::Null, FailureKind::Internal),
        ] {
            assert_eq!(typed("It went wrong.", info.clone()).kind, kind, "{info}");
        }
    }

    #[test]
    fn a_message_shows_no_key_and_no_url() {
        let failure = of_text(
            "unexpected status 401 Unauthorized: Incorrect API key provided: sk-abc123. See https://x.test/keys, url: http://user:pw@127.0.0.1:1/v1",
        );
        assert_eq!(failure.kind, FailureKind::BadCredentials);
        assert_eq!(
            failure.message,
            "The model's provider refused the key or login: unexpected status 401 Unauthorized: Incorrect API key \
             provided: [redacted] See [redacted]. Check OPENAI_API_KEY and OPENAI_BASE_URL, or log in again."
        );
    }

    #[test]
    fn an_apis_json_is_opened() {
        let failure = of_text(r#"{"error": {"message": "bad", "type": "invalid_request_error"}}"#);
        assert_eq!(failure.kind, FailureKind::InvalidRequest);
        assert!(failure.message.starts_with("The request was refused as wrong: bad. "));
    }
}
