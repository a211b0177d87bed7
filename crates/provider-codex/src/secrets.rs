use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// What is shorter is taken for a word: hiding `true` would ruin every line.
const MIN_BYTES: usize = 8;
const HIDDEN: &str = "[secret]";

/// The secrets that Codex was given, to be hidden in what it says.
///
/// - They are sought in the text as it stands, in JSON's spelling too. One that is cut in pieces is not found in
///   the pieces.
#[derive(Default)]
pub(crate) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(crate) fn of<'a>(secrets: impl Iterator<Item = &'a SecretString>) -> Self {
        let mut spellings: Vec<String> = secrets
            .map(|secret| secret.expose_secret().to_owned())
            .filter(|secret| secret.len() >= MIN_BYTES)
            .flat_map(|secret| {
                let spelt = json!(secret).to_string().trim_matches('"').to_owned();
                [secret, spelt]
            })
            .collect();
        // The longest first: a shorter one may be a part of it.
        spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        spellings.dedup();
        Self(spellings.into_iter().map(SecretString::from).collect())
    }

    /// The text without the secrets.
    pub(crate) fn hide<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.0.iter().fold(Cow::Borrowed(text), |text, secret| {
            let secret = secret.expose_secret();
            if text.contains(secret) { Cow::Owned(text.replace(secret, HIDDEN)) } else { text }
        })
    }
}
