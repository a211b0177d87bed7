use chrono::{DateTime, Utc};
use lime_core::runs::{Failure, FailureKind};

/// The most characters of the other side's words in a message of ours.
const MAX_QUOTE: usize = 300;

/// What is said where there is no key at all.
pub(crate) const NO_KEY: &str =
    "Claude has neither a key nor a login. Set ANTHROPIC_API_KEY, or log in with `claude auth login`.";

/// What is known about something that went wrong, wherever the CLI said it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trouble {
    /// The HTTP status, where there was an answer.
    pub(crate) status: Option<u16>,
    /// The CLI's word for it, such as `rate_limit`.
    pub(crate) word: Option<String>,
    /// The CLI's sentence.
    pub(crate) text: String,
    /// The model's reason to stop.
    pub(crate) stop_reason: Option<String>,
    /// It was said while the CLI was about to try again.
    pub(crate) retrying: bool,
    /// When the plan's limit is lifted.
    pub(crate) resets_at: Option<DateTime<Utc>>,
    /// The key came from `ANTHROPIC_API_KEY`, not from a login.
    pub(crate) own_key: bool,
}

/// Sentences that tell more than the status does, without regard to case; the first that fits decides.
///
/// - An empty account comes as status 400, a full context as 400, no key at all without a status.
const SENTENCES: &[(&str, FailureKind)] = &[
    ("no conversation found with session id", FailureKind::SessionGone),
    ("not logged in", FailureKind::MissingCredentials),
    ("credit balance is too low", FailureKind::QuotaExceeded),
    ("you've hit your", FailureKind::QuotaExceeded),
    ("usage limit reached", FailureKind::QuotaExceeded),
    ("usage credits required", FailureKind::QuotaExceeded),
    ("prompt is too long", FailureKind::ContextFull),
    ("context window limit", FailureKind::ContextFull),
    ("exceed context limit", FailureKind::ContextFull),
    ("output token maximum", FailureKind::OutputLimit),
    ("violate our usage policy", FailureKind::Refused),
];

/// Sentences that decide where there is no status; they tell more than the word, which calls a broken connection
/// a `server_error`.
const WITHOUT_STATUS: &[(&str, FailureKind)] = &[
    ("overloaded", FailureKind::Overloaded),
    ("at capacity", FailureKind::Overloaded),
    ("unable to connect", FailureKind::Network),
    ("connection", FailureKind::Network),
    ("econn", FailureKind::Network),
    ("stream ended", FailureKind::Network),
    ("timed out", FailureKind::Network),
    ("socket", FailureKind::Network),
    ("network", FailureKind::Network),
];

impl Trouble {
    /// The kind; `None` where nothing is known that would tell.
    pub(crate) fn kind(&self) -> Option<FailureKind> {
        let text = self.text.to_lowercase();
        let said = |sentences: &[(&str, FailureKind)]| {
            sentences.iter().find(|(sentence, _)| text.contains(sentence)).map(|(_, kind)| *kind)
        };
        said(SENTENCES)
            .or_else(|| (self.stop_reason.as_deref() == Some("refusal")).then_some(FailureKind::Refused))
            .or_else(|| self.word.as_deref().and_then(of_telling_word))
            .or_else(|| self.status.and_then(of_status))
            .or_else(|| said(WITHOUT_STATUS))
            .or_else(|| self.word.as_deref().and_then(of_word))
            // A retry without a status is one without an answer.
            .or_else(|| (self.retrying && self.status.is_none()).then_some(FailureKind::Network))
    }

    /// The failure that this is, with what happened and what to do; a crash if nobody knows better.
    pub(crate) fn failure(&self) -> Failure {
        let kind = self.kind().unwrap_or(FailureKind::Crashed);
        Failure {
            kind,
            message: self.message(kind),
            retry_at: match kind {
                FailureKind::QuotaExceeded | FailureKind::RateLimited => self.resets_at,
                _ => None,
            },
        }
    }

    fn message(&self, kind: FailureKind) -> String {
        let status = self.status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
        let quote = quote(&self.text);
        match kind {
            FailureKind::MissingCredentials => {
                NO_KEY.to_owned()
            }
            FailureKind::BadCredentials if self.own_key => {
                format!("Claude refused the key in ANTHROPIC_API_KEY{status}. Check the key, or unset it to use a login.")
            }
            FailureKind::BadCredentials => {
                format!("Claude refused the login{status}. Log in again with `claude auth login`, or set ANTHROPIC_API_KEY.")
            }
            FailureKind::PermissionDenied => {
                format!("The account may not do this{status}{quote}. Ask its owner, or use another key or model.")
            }
            FailureKind::QuotaExceeded => {
                format!("The account's credit or plan is used up{quote}. Add credit, or wait until the limit is lifted.")
            }
            FailureKind::RateLimited => {
                format!("Claude is asked too often{status}{quote}. Try again later, or let fewer runs work at once.")
            }
            FailureKind::Overloaded => {
                format!("Claude's API has too much to do, or a fault of its own{status}. Try again later.")
            }
            FailureKind::Network => {
                format!("Claude's API could not be reached, or the connection broke{quote}. Check the network, the proxy and ANTHROPIC_BASE_URL.")
            }
            FailureKind::InvalidRequest => {
                format!("Claude's API refused the request{status}{quote}. Check the model's name and the task.")
            }
            FailureKind::ContextFull => {
                "The conversation no longer fits the model. Split the task, or take a model with a larger context."
                    .to_owned()
            }
            FailureKind::OutputLimit => {
                "Claude's answer grew longer than allowed. Ask for smaller steps, or raise CLAUDE_CODE_MAX_OUTPUT_TOKENS."
                    .to_owned()
            }
            FailureKind::Refused => {
                "Claude declined to do this, under Anthropic's usage policy. Say the task in other words, or take another model."
                    .to_owned()
            }
            FailureKind::SessionGone => {
                "The session to go on with is gone, or belongs to another folder. Start a new one.".to_owned()
            }
            FailureKind::MissingBinary
            | FailureKind::Crashed
            | FailureKind::Protocol
            | FailureKind::Workspace
            | FailureKind::WorkerLost
            | FailureKind::Internal => {
                format!("Claude Code ended on an error that is not known{status}{quote}. Look at the run's log, then try again.")
            }
        }
    }
}

/// Words that tell more than the status beside them.
fn of_telling_word(word: &str) -> Option<FailureKind> {
    match word {
        "billing_error" => Some(FailureKind::QuotaExceeded),
        "max_output_tokens" => Some(FailureKind::OutputLimit),
        "oauth_org_not_allowed" => Some(FailureKind::PermissionDenied),
        _ => None,
    }
}

fn of_status(status: u16) -> Option<FailureKind> {
    match status {
        401 => Some(FailureKind::BadCredentials),
        402 => Some(FailureKind::QuotaExceeded),
        403 => Some(FailureKind::PermissionDenied),
        408 => Some(FailureKind::Network),
        413 => Some(FailureKind::ContextFull),
        429 => Some(FailureKind::RateLimited),
        400..=499 => Some(FailureKind::InvalidRequest),
        500..=599 => Some(FailureKind::Overloaded),
        _ => None,
    }
}

fn of_word(word: &str) -> Option<FailureKind> {
    match word {
        "authentication_failed" => Some(FailureKind::BadCredentials),
        "invalid_request" | "model_not_found" => Some(FailureKind::InvalidRequest),
        "rate_limit" => Some(FailureKind::RateLimited),
        "overloaded" | "server_error" => Some(FailureKind::Overloaded),
        _ => None,
    }
}

/// `: ` and the other side's words, in one line and not too long; nothing if there are none.
pub(crate) fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("API Error: ").unwrap_or(&line);
    let line = line.trim_end_matches('.');
    if line.is_empty() {
        return String::new();
    }
    match line.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!(": {}…", &line[..end]),
        None => format!(": {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: Option<u16>, word: &str, text: &str) -> Option<FailureKind> {
        Trouble { status, word: Some(word.to_owned()), text: text.to_owned(), ..Trouble::default() }.kind()
    }

    #[test]
    fn the_sentence_tells_more_than_the_status() {
        assert_eq!(
            kind(Some(400), "unknown", "API Error: 400 no such thing"),
            Some(FailureKind::InvalidRequest)
        );
        assert_eq!(
            kind(Some(400), "billing_error", "Credit balance is too low"),
            Some(FailureKind::QuotaExceeded)
        );
        assert_eq!(kind(Some(400), "invalid_request", "Prompt is too long"), Some(FailureKind::ContextFull));
        assert_eq!(
            kind(Some(429), "rate_limit", "You've hit your session limit · resets 3pm"),
            Some(FailureKind::QuotaExceeded)
        );
        assert_eq!(
            kind(None, "authentication_failed", "Not logged in · Please run /login"),
            Some(FailureKind::MissingCredentials)
        );
        assert_eq!(
            kind(None, "authentication_failed", "OAuth token revoked · Please run /login"),
            Some(FailureKind::BadCredentials)
        );
    }

    #[test]
    fn what_has_no_status_is_told_by_its_words() {
        assert_eq!(
            kind(None, "unknown", "API Error: Stream ended without receiving any events"),
            Some(FailureKind::Network)
        );
        assert_eq!(kind(None, "unknown", "API Error: Overloaded"), Some(FailureKind::Overloaded));
        assert_eq!(kind(None, "unknown", "something new"), None);
        assert_eq!(
            kind(
                None,
                "max_output_tokens",
                "API Error: Claude's response exceeded the 32000 output token maximum."
            ),
            Some(FailureKind::OutputLimit)
        );
    }

    #[test]
    fn foreign_words_stay_short_and_in_one_line() {
        assert_eq!(quote("API Error: 400 bad\n  thing."), ": 400 bad thing");
        assert_eq!(quote(" "), "");
        assert!(quote(&"é".repeat(5_000)).chars().count() < 310);
    }
}
