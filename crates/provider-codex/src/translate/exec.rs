//! The events of `codex exec --json`.

use lime_core::runs::AgentEvent;

use super::{Translator, TurnEnd};
use crate::failure;
use crate::wire::app::TurnError;
use crate::wire::exec::Event;

impl Translator {
    /// Reads one event.
    ///
    /// - An `error` is not the end: `Reconnecting…` is one.
    /// - Its usage is the thread's since its beginning, so that of a resumed thread holds the turns before.
    pub(super) fn exec(&mut self, event: Event) -> Vec<AgentEvent> {
        match event {
            Event::ThreadStarted { thread_id } => self.session(thread_id, None),
            Event::TurnStarted => {
                self.turn_began = true;
                Vec::new()
            }
            Event::TurnCompleted { usage } => {
                self.end = Some(TurnEnd::Completed);
                let mut events = self.close_calls();
                let thread = self.session_id.clone().unwrap_or_default();
                events.extend(self.count(thread, usage));
                events
            }
            Event::TurnFailed { error } => self.fail(failure::of_text(&error.message)),
            Event::ItemStarted { item } | Event::ItemUpdated { item } => self.item_began(&item),
            Event::ItemCompleted { item } => self.item_ended(&item),
            Event::Error(said) => {
                vec![failure::passing(&TurnError { message: said.message, ..TurnError::default() })]
            }
        }
    }
}
