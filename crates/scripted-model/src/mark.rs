//! Where a conversation stands in its script, told by the ids the server gave out.
//!
//! Agents send a tool call's id back with its result, and Codex sends those of messages too. So the server
//! writes the turn into every id it makes, and the conversation itself says which turn comes next: no state
//! is kept, conversations may run side by side, be resumed, retried or forked, and side requests eat nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// A turn's mark, as found in an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) turn: usize,
    spoilt: bool,
}

impl Mark {
    /// Reads a mark from an id; `None` for an id that this server did not make.
    pub(crate) fn read(id: &str) -> Option<Self> {
        let (_, rest) = id.split_once("_lime")?;
        let (kind, rest) = rest.split_once('_')?;
        let spoilt = match kind {
            "" => false,
            "x" => true,
            _ => return None,
        };
        let turn = rest.split('_').next()?.parse().ok()?;
        Some(Self { turn, spoilt })
    }
}

/// The next turn, given what each answer in the conversation is marked with, oldest first.
///
/// - A marked answer puts the conversation after its turn, or at its turn if a fault spoilt it.
/// - An unmarked answer (a text on Anthropic's wire carries no id) counts as one turn.
pub(crate) fn next_turn(answers: impl IntoIterator<Item = Option<Mark>>) -> usize {
    answers.into_iter().fold(0, |turn: usize, answer| match answer {
        Some(mark) if mark.spoilt => mark.turn,
        Some(mark) => mark.turn.saturating_add(1),
        None => turn.saturating_add(1),
    })
}

/// Makes ids that carry the turn they belong to, each once in a server's life.
#[derive(Debug)]
pub(crate) struct Ids<'a> {
    pub(crate) serial: &'a AtomicU64,
    pub(crate) turn: usize,
    pub(crate) spoilt: bool,
}

impl Ids<'_> {
    /// Makes an id such as `toolu_lime_3_17`.
    pub(crate) fn make(&self, prefix: &str) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let kind = if self.spoilt { "x" } else { "" };
        format!("{prefix}_lime{kind}_{}_{serial}", self.turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_turn() {
        let serial = AtomicU64::new(7);
        let good = Ids { serial: &serial, turn: 3, spoilt: false }.make("toolu");
        assert_eq!(good, "toolu_lime_3_7");
        assert_eq!(Mark::read(&good), Some(Mark { turn: 3, spoilt: false }));
        let spoilt = Ids { serial: &serial, turn: 3, spoilt: true }.make("call");
        assert_eq!(Mark::read(&spoilt), Some(Mark { turn: 3, spoilt: true }));
        assert_eq!(Mark::read("toolu_0123"), None);
        assert_eq!(Mark::read("a_lime_"), None);
    }

    #[test]
    fn the_next_turn_follows_the_marks() {
        let good = |turn| Some(Mark { turn, spoilt: false });
        assert_eq!(next_turn([]), 0);
        assert_eq!(next_turn([good(0), good(1)]), 2);
        assert_eq!(next_turn([good(0), None, None]), 3);
        assert_eq!(next_turn([None, good(6)]), 7, "a compacted history still knows");
        assert_eq!(next_turn([good(0), Some(Mark { turn: 1, spoilt: true })]), 1);
    }
}
