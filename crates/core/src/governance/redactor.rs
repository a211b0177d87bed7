use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;

use crate::ports::SessionReport;
use crate::runs::{AgentEvent, Outcome};

/// Hides known secrets in what an agent says, since its tools can read what it was given.
///
/// - Each is sought as it is, and as JSON writes it; `[secret]` stands in its place.
/// - A value of less than [`MIN_BYTES`](Redactor::MIN_BYTES) is taken for a word: hiding `true` would ruin every text.
/// - A secret that is cut in pieces is not found in the pieces; it is in the whole message.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Vec<SecretString>);

impl Redactor {
    /// The shortest value that is hidden: 8 bytes.
    pub const MIN_BYTES: usize = 8;
    const HIDDEN: &str = "[secret]";

    /// Hides these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut spellings: Vec<String> = secrets
            .into_iter()
            .map(|secret| secret.expose_secret().to_owned())
            .filter(|secret| secret.len() >= Self::MIN_BYTES)
            .flat_map(|secret| {
                let quoted = Json::from(secret.as_str()).to_string();
                let in_json = quoted[1..quoted.len() - 1].to_owned();
                [secret, in_json]
            })
            .collect();
        // The longest first: a shorter one may be a part of it.
        spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        spellings.dedup();
        Self(spellings.into_iter().map(SecretString::from).collect())
    }

    /// The text without the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.0.iter().fold(Cow::Borrowed(text), |text, secret| {
            let secret = secret.expose_secret();
            if text.contains(secret) { Cow::Owned(text.replace(secret, Self::HIDDEN)) } else { text }
        })
    }

    /// The event without the secrets.
    #[must_use]
    pub fn event(&self, mut event: AgentEvent) -> AgentEvent {
        match &mut event {
            AgentEvent::Message { text, .. }
            | AgentEvent::Delta { text }
            | AgentEvent::Reasoning { text }
            | AgentEvent::Log { text } => self.hide(text),
            AgentEvent::Tool { input, output, .. } => {
                input.iter_mut().for_each(|input| self.hide_in_json(input));
                self.hide_some(output);
            }
            AgentEvent::Error { message, stack, .. } => {
                self.hide(message);
                self.hide_some(stack);
            }
            AgentEvent::Status { detail, .. } => self.hide_some(detail),
            AgentEvent::Diff { unified_diff, summary } => {
                self.hide(unified_diff);
                self.hide_some(summary);
            }
            AgentEvent::Artifact { name, url, .. } => {
                self.hide(name);
                self.hide_some(url);
            }
            AgentEvent::Approval { summary, payload, .. } => {
                self.hide(summary);
                payload.iter_mut().for_each(|payload| self.hide_in_json(payload));
            }
            AgentEvent::Unknown(raw) => self.hide_in_json(raw),
            AgentEvent::Session { .. } | AgentEvent::Usage(_) => {}
        }
        event
    }

    /// The report without the secrets.
    #[must_use]
    pub fn report(&self, mut report: SessionReport) -> SessionReport {
        match &mut report.outcome {
            Outcome::Succeeded { summary } => self.hide_some(summary),
            Outcome::Failed(failure) => self.hide(&mut failure.message),
            Outcome::Cancelled | Outcome::Limited(_) => {}
        }
        self.hide_some(&mut report.diagnostics);
        report
    }

    fn hide(&self, text: &mut String) {
        if let Cow::Owned(hidden) = self.text(text) {
            *text = hidden;
        }
    }

    fn hide_some(&self, text: &mut Option<String>) {
        text.iter_mut().for_each(|text| self.hide(text));
    }

    fn hide_in_json(&self, value: &mut Json) {
        match value {
            Json::String(text) => self.hide(text),
            Json::Array(items) => items.iter_mut().for_each(|item| self.hide_in_json(item)),
            Json::Object(fields) => fields.values_mut().for_each(|field| self.hide_in_json(field)),
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_as_they_are_and_as_json_writes_them() {
        let redactor = Redactor::new(&[SecretString::from("pass\"word\n1"), SecretString::from("true")]);
        let hidden = redactor.event(AgentEvent::Unknown(json!({
            "deep": [{ "text": "it is pass\"word\n1, true" }],
            "json": "{\"a\":\"pass\\\"word\\n1\"}",
        })));
        let expected =
            json!({ "deep": [{ "text": "it is [secret], true" }], "json": "{\"a\":\"[secret]\"}" });
        assert_eq!(hidden, AgentEvent::Unknown(expected));
        assert!(!format!("{redactor:?}").contains("word"));
    }

    #[test]
    fn a_secret_within_another_does_not_uncover_it() {
        let redactor = Redactor::new(&[SecretString::from("abcdefgh"), SecretString::from("abcdefgh-rest")]);
        assert_eq!(redactor.text("key abcdefgh-rest, abcdefgh"), "key [secret], [secret]");
    }
}
