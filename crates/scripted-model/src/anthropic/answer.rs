//! Writes an answer of `POST /v1/messages`, whole or as events.

use serde_json::{Value, json};

use crate::fault::error_type;
use crate::mark::Ids;
use crate::play::{Answer, ApiError, End};
use crate::sse::{Frame, FrameKind, deltas};
use crate::toolbox::{Block, Input};
use crate::turn::Usage;

/// What a thinking block is signed with; agents send it back unread.
const SIGNATURE: &str = "c2NyaXB0ZWQ=";

/// Writes a whole answer.
pub(crate) fn answer(answer: &Answer, ids: &Ids<'_>) -> Value {
    let mut message = message(answer, ids);
    message["content"] = blocks(answer).iter().map(|block| whole(block, ids)).collect();
    message["stop_reason"] = json!(stop_reason(answer));
    message["usage"] = usage(answer.usage, answer.usage.output_tokens);
    message
}

/// Writes an answer as events.
pub(crate) fn stream(answer: &Answer, ids: &Ids<'_>) -> Vec<Frame> {
    let mut frames = vec![frame(&json!({ "type": "message_start", "message": message(answer, ids) }))];
    for (index, block) in blocks(answer).iter().enumerate() {
        let (start, pieces) = opened(block, answer.delta_chars, ids);
        frames.push(frame(&json!({ "type": "content_block_start", "index": index, "content_block": start })));
        frames.extend(pieces.into_iter().map(|delta| {
            let data = json!({ "type": "content_block_delta", "index": index, "delta": delta });
            Frame::new(FrameKind::Delta, &data)
        }));
        frames.push(frame(&json!({ "type": "content_block_stop", "index": index })));
    }
    let ends = [
        json!({ "type": "message_delta",
                "delta": { "stop_reason": stop_reason(answer), "stop_sequence": null },
                "usage": usage(answer.usage, answer.usage.output_tokens) }),
        json!({ "type": "message_stop" }),
    ];
    frames.extend(ends.iter().map(|data| Frame::new(FrameKind::End, data)));
    frames
}

/// Writes an error's body.
pub(crate) fn error_body(error: ApiError<'_>) -> Value {
    json!({ "type": "error", "error": { "type": error_type(error.status), "message": error.message } })
}

/// Writes an error as an event.
pub(crate) fn stream_error(error: ApiError<'_>) -> Frame {
    Frame::new(FrameKind::End, &error_body(error))
}

fn frame(data: &Value) -> Frame {
    Frame::new(FrameKind::Frame, data)
}

/// An answer has at least one block.
fn blocks(answer: &Answer) -> Vec<Block> {
    if answer.blocks.is_empty() { vec![Block::Text(String::new())] } else { answer.blocks.clone() }
}

/// A message as it stands when it begins.
fn message(answer: &Answer, ids: &Ids<'_>) -> Value {
    json!({
        "id": ids.make("msg"), "type": "message", "role": "assistant", "model": answer.model, "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": usage(answer.usage, 1),
    })
}

fn usage(usage: Usage, output_tokens: u64) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": output_tokens,
    })
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.end {
        End::MaxTokens => "max_tokens",
        End::Refusal => "refusal",
        End::Complete if answer.blocks.iter().any(|block| matches!(block, Block::Call(_))) => "tool_use",
        End::Complete => "end_turn",
    }
}

fn whole(block: &Block, ids: &Ids<'_>) -> Value {
    match block {
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::Thinking(text) => json!({ "type": "thinking", "thinking": text, "signature": SIGNATURE }),
        Block::Call(call) => {
            let input = match &call.input {
                Input::Json(input) => input.clone(),
                Input::Freeform(text) => json!(text),
            };
            json!({ "type": "tool_use", "id": ids.make("toolu"), "name": call.name, "input": input })
        }
    }
}

/// A block as it begins, and the deltas that fill it.
fn opened(block: &Block, chars: usize, ids: &Ids<'_>) -> (Value, Vec<Value>) {
    let mut start = whole(block, ids);
    let filled = match block {
        Block::Text(text) => {
            start["text"] = json!("");
            deltas(text, chars).into_iter().map(|d| json!({ "type": "text_delta", "text": d })).collect()
        }
        Block::Thinking(text) => {
            start["thinking"] = json!("");
            start["signature"] = json!("");
            let mut filled: Vec<_> = deltas(text, chars)
                .into_iter()
                .map(|d| json!({ "type": "thinking_delta", "thinking": d }))
                .collect();
            filled.push(json!({ "type": "signature_delta", "signature": SIGNATURE }));
            filled
        }
        Block::Call(_) => {
            let input = start["input"].take().to_string();
            start["input"] = json!({});
            deltas(&input, chars)
                .into_iter()
                .map(|d| json!({ "type": "input_json_delta", "partial_json": d }))
                .collect()
        }
    };
    (start, filled)
}
