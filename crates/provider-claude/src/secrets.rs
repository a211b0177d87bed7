use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, Outcome};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// A value shorter than this is taken for a word, not a secret: hiding `true` would ruin every text.
const MIN_SECRET: usize = 8;
const HIDDEN: &str = "[secret]";

/// The secrets that the agent was given, to be hidden in what it says: its tools can read its environment.
///
/// - Each is sought as it is, and as JSON writes it, since tools read and print JSON.
/// - A secret that the model spells out piece by piece is not found in the pieces; it is in the whole message.
#[derive(Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(crate) fn add(&mut self, secret: &SecretString) {
        let secret = secret.expose_secret();
        if secret.len() < MIN_SECRET {
            return;
        }
        let quoted = Value::from(secret).to_string();
        let in_json = &quoted[1..quoted.len() - 1];
        if in_json != secret {
            self.0.push(in_json.to_owned().into());
        }
        self.0.push(secret.to_owned().into());
        // The longest first: another one may be a part of it.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
    }

    /// The event without the secrets.
    pub(crate) fn hide_in(&self, mut event: AgentEvent) -> AgentEvent {
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
            AgentEvent::Unknown(raw) => self.hide_in_json(raw),
            AgentEvent::Session { .. } | AgentEvent::Usage(_) => {}
        }
        event
    }

    /// The report without the secrets.
    pub(crate) fn hide_in_report(&self, mut report: SessionReport) -> SessionReport {
        match &mut report.outcome {
            Outcome::Succeeded { summary } => self.hide_some(summary),
            Outcome::Failed(failure) => self.hide(&mut failure.message),
            Outcome::Cancelled | Outcome::Limited(_) => {}
        }
        self.hide_some(&mut report.diagnostics);
        report
    }

    fn hide(&self, text: &mut String) {
        for secret in &self.0 {
            let secret = secret.expose_secret();
            if text.contains(secret) {
                *text = text.replace(secret, HIDDEN);
            }
        }
    }

    fn hide_some(&self, text: &mut Option<String>) {
        text.iter_mut().for_each(|text| self.hide(text));
    }

    fn hide_in_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide_in_json(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.hide_in_json(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_hidden_as_they_are_and_as_json_writes_them() {
        let mut secrets = Secrets::default();
        secrets.add(&SecretString::from("pass\"word\n1"));
        secrets.add(&SecretString::from("true"));
        let hidden = secrets.hide_in(AgentEvent::Unknown(json!({
            "deep": [{ "text": "it is pass\"word\n1, true" }],
            "json": "{\"a\":\"pass\\\"word\\n1\"}",
        })));
        let expected =
            json!({ "deep": [{ "text": "it is [secret], true" }], "json": "{\"a\":\"[secret]\"}" });
        assert_eq!(hidden, AgentEvent::Unknown(expected));
    }
}
