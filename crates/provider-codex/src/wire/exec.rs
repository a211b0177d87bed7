//! The events of `codex exec --json`.

use serde::Deserialize;
use serde_json::Value as Json;

use super::app::Tokens;

/// An event; a type that nobody knows is `None` of [`Event::from_json`].
#[derive(Debug, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Event {
    #[serde(rename = "thread.started")]
    ThreadStarted { thread_id: String },
    #[serde(rename = "turn.started")]
    TurnStarted,
    #[serde(rename = "turn.completed")]
    TurnCompleted {
        #[serde(default)]
        usage: Tokens,
    },
    #[serde(rename = "turn.failed")]
    TurnFailed { error: Said },
    #[serde(rename = "item.started")]
    ItemStarted { item: Json },
    #[serde(rename = "item.updated")]
    ItemUpdated { item: Json },
    #[serde(rename = "item.completed")]
    ItemCompleted { item: Json },
    /// Not the end of anything: only `turn.failed` and `turn.completed` are.
    #[serde(rename = "error")]
    Error(Said),
}

impl Event {
    pub(crate) fn from_json(value: &Json) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}

/// An error's text.
#[derive(Debug, Deserialize)]
pub(crate) struct Said {
    pub(crate) message: String,
}
