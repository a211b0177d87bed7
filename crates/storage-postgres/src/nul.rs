//! What an agent or a program said may hold NUL, which PostgreSQL cannot store: it becomes U+FFFD, as in events.

use serde_json::Value as Json;

pub(crate) fn text(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{FFFD}") } else { text }
}

pub(crate) fn json(value: Json) -> Json {
    match value {
        Json::String(said) => Json::String(text(said)),
        Json::Array(items) => Json::Array(items.into_iter().map(json).collect()),
        Json::Object(fields) => {
            Json::Object(fields.into_iter().map(|(key, value)| (text(key), json(value))).collect())
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value,
    }
}
