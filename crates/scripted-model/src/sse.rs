//! Server-sent events, as both APIs stream them.

use bytes::Bytes;
use serde_json::Value;

/// One event of a streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) bytes: Bytes,
}

/// An event's part in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Something that opens or closes a part.
    Frame,
    /// A piece of text, reasoning or tool input.
    Delta,
    /// What ends the answer.
    End,
}

impl Frame {
    /// Encodes an event; its name is the payload's `type`.
    pub(crate) fn new(kind: FrameKind, data: &Value) -> Self {
        let name = data["type"].as_str().unwrap_or("message");
        Self { kind, bytes: Bytes::from(format!("event: {name}\ndata: {data}\n\n")) }
    }
}

/// Cuts a text into deltas of `chars` characters; an empty text has none.
pub(crate) fn deltas(text: &str, chars: usize) -> Vec<&str> {
    let mut rest = text;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let cut = rest.char_indices().nth(chars.max(1)).map_or(rest.len(), |(index, _)| index);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece);
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_two_lines_and_a_blank_one() {
        let frame = Frame::new(FrameKind::Delta, &json!({ "type": "ping", "text": "a\nb" }));
        assert_eq!(&frame.bytes[..], b"event: ping\ndata: {\"text\":\"a\\nb\",\"type\":\"ping\"}\n\n");
    }

    #[test]
    fn deltas_are_cut_between_characters() {
        assert_eq!(deltas("åäöab", 2), ["åä", "öa", "b"]);
        assert_eq!(deltas("", 2), Vec::<&str>::new());
    }
}
