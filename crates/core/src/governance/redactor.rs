use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value as Json;

use crate::ports::SessionReport;
use crate::runs::{AgentEvent, Outcome};

/// Hides known secrets in what an agent says, since its tools can read what it was given.
///
/// - Each is sought as it is, as JSON writes it, URL-encoded, in hexadecimal digits, and in base64, wherever it lies in
///   what was encoded; `[secret]` stands in its place.
/// - A value of less than [`MIN_BYTES`](Redactor::MIN_BYTES) is taken for a word: hiding `true` would ruin every text.
/// - A secret that is cut in pieces is not found in the pieces; [`SessionRedactor`] puts them together.
#[derive(Debug, Clone, Default)]
pub struct Redactor(Vec<SecretString>);

/// Hides secrets in the events of one session, those too that come in two pieces of a text or more.
///
/// - What may be the beginning of a secret is held back until more has come, or another kind of event. `Debug` never
///   shows it.
pub struct SessionRedactor {
    redactor: Redactor,
    held: Zeroizing<String>,
}

impl Redactor {
    /// The shortest value that is hidden: 8 bytes.
    pub const MIN_BYTES: usize = 8;
    const HIDDEN: &str = "[secret]";

    /// Hides these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let mut spellings: Vec<String> = secrets
            .into_iter()
            .map(|secret| secret.expose_secret())
            .filter(|secret| secret.len() >= Self::MIN_BYTES)
            .flat_map(spellings)
            .filter(|spelling| spelling.len() >= Self::MIN_BYTES)
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
            Json::Object(fields) => {
                fields.values_mut().for_each(|field| self.hide_in_json(field));
                if fields.keys().any(|name| matches!(self.text(name), Cow::Owned(_))) {
                    let clean = std::mem::take(fields).into_iter();
                    *fields = clean.map(|(name, field)| (self.text(&name).into_owned(), field)).collect();
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
}

impl fmt::Debug for SessionRedactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRedactor").field("redactor", &self.redactor).finish_non_exhaustive()
    }
}

impl SessionRedactor {
    /// Hides what the redactor hides.
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Zeroizing::default() }
    }

    /// What does not come in pieces is hidden by this.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The event without the secrets, after what was held back; none, if it is held back itself.
    pub fn events(&mut self, event: AgentEvent) -> impl Iterator<Item = AgentEvent> + use<> {
        let (piece, event) = match event {
            AgentEvent::Delta { text } => (self.piece(&text), None),
            event => (self.rest(), Some(self.redactor.event(event))),
        };
        let piece = (!piece.is_empty()).then_some(AgentEvent::Delta { text: piece });
        piece.into_iter().chain(event)
    }

    fn piece(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let end = self.redactor.settled(&self.held);
        let rest = Zeroizing::new(self.held.split_off(end));
        let settled = std::mem::replace(&mut self.held, rest);
        self.redactor.text(&settled).into_owned()
    }

    fn rest(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        self.redactor.text(&held).into_owned()
    }
}

impl Redactor {
    /// Up to where a text can be told, whatever comes after it: behind it a secret may begin.
    fn settled(&self, text: &str) -> usize {
        let spellings = || self.0.iter().map(|secret| secret.expose_secret());
        let longest = spellings().map(str::len).max().unwrap_or_default();
        let begins = |at: usize| {
            let rest = &text[at..];
            spellings().any(|spelling| spelling.len() > rest.len() && spelling.starts_with(rest))
        };
        let from = text.ceil_char_boundary(text.len().saturating_sub(longest));
        let tail = text[from..].char_indices().map(|(at, _)| from + at);
        let mut end = tail.into_iter().find(|at| begins(*at)).unwrap_or(text.len());
        // Nor is one cut that is there as a whole.
        while let Some(start) = spellings()
            .flat_map(|spelling| text.match_indices(spelling).map(|(at, found)| at..at + found.len()))
            .find(|found| found.start < end && end < found.end)
        {
            end = start.start;
        }
        end
    }
}

/// How a secret may be written.
fn spellings(secret: &str) -> Vec<String> {
    let quoted = Json::from(secret).to_string();
    let mut spellings = vec![secret.to_owned(), quoted[1..quoted.len() - 1].to_owned()];
    let hex = |digit: fn(u8) -> String| secret.bytes().map(digit).collect::<String>();
    spellings.extend([hex(|byte| format!("{byte:02x}")), hex(|byte| format!("{byte:02X}"))]);
    // As RFC 3986 says, as JavaScript does it, and as forms do.
    for kept in ["-._~", "-._~!'()*", "-._* "] {
        let url = |escape: fn(u8) -> String| {
            let one = |byte: u8| match char::from(byte) {
                ' ' if kept.contains(' ') => "+".to_owned(),
                char if char.is_ascii_alphanumeric() || kept.contains(char) => char.to_string(),
                _ => escape(byte),
            };
            secret.bytes().map(one).collect::<String>()
        };
        spellings.extend([url(|byte| format!("%{byte:02X}")), url(|byte| format!("%{byte:02x}"))]);
    }
    for alphabet in [&STANDARD, &URL_SAFE] {
        spellings.extend((0..3).map(|before| in_base64(secret, before, alphabet)));
    }
    spellings
}

/// The characters of base64 that a secret alone decides, with so many bytes of something else before it.
fn in_base64(secret: &str, before: usize, alphabet: &base64::alphabet::Alphabet) -> String {
    let bytes = [&[0; 2][..before], secret.as_bytes()].concat();
    let text = GeneralPurpose::new(alphabet, NO_PAD).encode(&bytes);
    // The first ones hold bits of what is before, the last one those of what comes after.
    let (start, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    text[start..end].to_owned()
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
    fn secrets_are_hidden_however_they_are_encoded() {
        let secret = "p/ss+wörd= 1!";
        let redactor = Redactor::new(&[SecretString::from(secret)]);
        let standard = GeneralPurpose::new(&STANDARD, base64::engine::general_purpose::PAD);
        let url_safe = GeneralPurpose::new(&URL_SAFE, NO_PAD);
        for around in ["", "u", "us", "use", "user:"] {
            let text = format!("{around}{secret}{around}");
            for encoded in [standard.encode(&text), url_safe.encode(&text)] {
                let hidden = redactor.text(&encoded);
                assert!(hidden.contains(Redactor::HIDDEN), "{around}: {encoded}");
                // What is left of the secret are bits of its first and last bytes.
                assert!(hidden.len() <= Redactor::HIDDEN.len() + 2 * (around.len() * 4 / 3 + 4), "{hidden}");
            }
        }
        for encoded in
            ["p%2Fss%2Bw%C3%B6rd%3D%201%21", "p%2fss%2bw%c3%b6rd%3d%201!", "p%2Fss%2Bw%C3%B6rd%3D+1%21"]
        {
            assert_eq!(redactor.text(&format!("?a={encoded}&b")), "?a=[secret]&b");
        }
        assert_eq!(redactor.text("0x702f73732b77c3b672643d203121"), "0x[secret]");
    }

    /// What a session tells of a text that comes in these pieces.
    fn told(redactor: &Redactor, pieces: &[&str]) -> String {
        let mut session = SessionRedactor::new(redactor.clone());
        let end = AgentEvent::Log { text: String::new() };
        let deltas = pieces.iter().map(|piece| AgentEvent::Delta { text: (*piece).to_owned() });
        let events: Vec<_> = deltas.chain([end]).flat_map(|event| session.events(event)).collect();
        let text = |event: &AgentEvent| match event {
            AgentEvent::Delta { text } | AgentEvent::Log { text } => text.clone(),
            _ => panic!("{event:?}"),
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn a_secret_that_comes_in_pieces_is_hidden() {
        let secrets = ["abcdefgh", "abcdefgh-rest", "fgh-rest", "xaxaxaxb"].map(SecretString::from);
        let redactor = Redactor::new(&secrets);
        let text = "key abcdefgh-rest, abcdefgh, abcdefgh-re and xaxaxaxaxaxb, äabcdefgö abcd";
        let expected = "key [secret], [secret], [secret]-re and xaxa[secret], äabcdefgö abcd";
        assert_eq!(redactor.text(text), expected);
        let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        for first in &cuts {
            for second in cuts.iter().filter(|second| *second >= first) {
                let pieces = [&text[..*first], &text[*first..*second], &text[*second..]];
                assert_eq!(told(&redactor, &pieces), expected, "{pieces:?}");
            }
        }
        let each: Vec<&str> = text.split("").collect();
        assert_eq!(told(&redactor, &each), expected);
    }

    #[test]
    fn what_is_held_back_is_never_shown() {
        let mut session = SessionRedactor::new(Redactor::new(&[SecretString::from("abcdefgh")]));
        assert_eq!(session.events(AgentEvent::Delta { text: "abcdefg".into() }).count(), 0);
        assert!(!format!("{session:?}").contains("abc"));
        let names = AgentEvent::Unknown(json!({ "of abcdefgh": { "kept": 1 }, "other": "abcdefgh" }));
        let hidden = AgentEvent::Unknown(json!({ "of [secret]": { "kept": 1 }, "other": "[secret]" }));
        assert_eq!(session.redactor().event(names), hidden);
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_held_back() {
        let mut session = SessionRedactor::new(Redactor::new(&[SecretString::from("abcdefgh")]));
        let mut next =
            |text: &str| -> Vec<_> { session.events(AgentEvent::Delta { text: text.into() }).collect() };
        assert_eq!(next("hello"), [AgentEvent::Delta { text: "hello".into() }]);
        assert_eq!(next(" abc"), [AgentEvent::Delta { text: " ".into() }]);
        assert_eq!(next(""), []);
        assert_eq!(next("x"), [AgentEvent::Delta { text: "abcx".into() }]);
    }

    #[test]
    fn a_secret_within_another_does_not_uncover_it() {
        let redactor = Redactor::new(&[SecretString::from("abcdefgh"), SecretString::from("abcdefgh-rest")]);
        assert_eq!(redactor.text("key abcdefgh-rest, abcdefgh"), "key [secret], [secret]");
    }
}
