//! What Codex says and takes: the app-server's messages and the events of `codex exec --json`.
//!
//! - A line is read to a plain JSON value first and to a type after that: a repeated key (`web_search` items
//!   carry two `id`s) is then no error, the last one counts.
//! - Every field that Codex may leave out has a default, and fields that nobody asked for are passed over, so a
//!   newer Codex is understood as far as it says what we know.

pub(crate) mod app;
pub(crate) mod exec;
pub(crate) mod item;

use serde_json::Value as Json;

/// One line from Codex, told apart by its shape.
#[derive(Debug)]
pub(crate) enum Line {
    /// From `codex app-server`.
    App(app::Incoming),
    /// From `codex exec --json`.
    Exec(exec::Event),
    /// JSON of neither kind.
    Neither(Json),
    /// Not JSON.
    Text,
}

impl Line {
    /// Reads a line; nothing is an error.
    pub(crate) fn read(raw: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Json>(raw) else {
            return Self::Text;
        };
        match app::Incoming::from_json(value) {
            Ok(message) => Self::App(message),
            Err(value) => match exec::Event::from_json(&value) {
                Some(event) => Self::Exec(event),
                None => Self::Neither(value),
            },
        }
    }
}
