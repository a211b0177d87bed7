//! Writes an answer of `POST /v1/responses`, whole or as events.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fault::error_type;
use crate::mark::Ids;
use crate::play::{Answer, ApiError, End};
use crate::sse::{Frame, FrameKind, deltas};
use crate::toolbox::{Block, Call, Input};
use crate::turn::Usage;

/// Writes a whole answer.
pub(crate) fn answer(answer: &Answer, ids: &Ids<'_>) -> Value {
    let output = answer.blocks.iter().map(|block| item(block, ids)).collect();
    ended(answer, response(&answer.model, ids), output)
}

/// Writes an answer as events.
pub(crate) fn stream(answer: &Answer, ids: &Ids<'_>) -> Vec<Frame> {
    let response = response(&answer.model, ids);
    let mut events = Events::default();
    events.push(FrameKind::Frame, json!({ "type": "response.created", "response": response }));
    events.push(FrameKind::Frame, json!({ "type": "response.in_progress", "response": response }));
    let mut output = Vec::new();
    for (index, block) in answer.blocks.iter().enumerate() {
        let item = item(block, ids);
        events.item(index, block, &item, answer.delta_chars);
        output.push(item);
    }
    let kind = if answer.end == End::Complete { "response.completed" } else { "response.incomplete" };
    events.push(FrameKind::End, json!({ "type": kind, "response": ended(answer, response, output) }));
    events.0
}

/// Writes an error's body.
pub(crate) fn error_body(error: ApiError<'_>) -> Value {
    let kind = error.code.unwrap_or_else(|| error_type(error.status));
    json!({ "error": { "message": error.message, "type": kind, "param": null, "code": error.code } })
}

/// Writes an error as the event of a failed response.
pub(crate) fn stream_error(error: ApiError<'_>, ids: &Ids<'_>) -> Frame {
    let mut response = response("scripted", ids);
    response["status"] = json!("failed");
    let code = error.code.unwrap_or_else(|| error_type(error.status));
    response["error"] = json!({ "code": code, "message": error.message });
    Frame::new(FrameKind::End, &json!({ "type": "response.failed", "response": response }))
}

/// A response as it stands when it begins.
fn response(model: &str, ids: &Ids<'_>) -> Value {
    let created_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({
        "id": ids.make("resp"), "object": "response", "created_at": created_at, "status": "in_progress",
        "model": model, "output": [], "error": null, "incomplete_details": null, "usage": null,
    })
}

fn ended(answer: &Answer, mut response: Value, output: Vec<Value>) -> Value {
    let reason = match answer.end {
        End::Complete => None,
        End::MaxTokens => Some("max_output_tokens"),
        End::Refusal => Some("content_filter"),
    };
    response["status"] = json!(if reason.is_some() { "incomplete" } else { "completed" });
    response["incomplete_details"] = reason.map_or(Value::Null, |reason| json!({ "reason": reason }));
    response["output"] = Value::Array(output);
    response["usage"] = usage(answer.usage);
    response
}

fn usage(usage: Usage) -> Value {
    let input =
        usage.input_tokens.saturating_add(usage.cache_read_tokens).saturating_add(usage.cache_write_tokens);
    json!({
        "input_tokens": input,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
        "total_tokens": input.saturating_add(usage.output_tokens),
    })
}

/// An item as it stands when it is done.
fn item(block: &Block, ids: &Ids<'_>) -> Value {
    match block {
        Block::Text(text) => json!({
            "type": "message", "id": ids.make("msg"), "role": "assistant", "status": "completed",
            "content": [{ "type": "output_text", "text": text, "annotations": [] }],
        }),
        Block::Thinking(text) => json!({
            "type": "reasoning", "id": ids.make("rs"), "status": "completed", "encrypted_content": null,
            "summary": [{ "type": "summary_text", "text": text }],
        }),
        Block::Call(call) => called(call, ids),
    }
}

fn called(call: &Call, ids: &Ids<'_>) -> Value {
    let call_id = ids.make("call");
    let mut item = match &call.input {
        Input::Freeform(text) => json!({
            "type": "custom_tool_call", "id": ids.make("ctc"), "call_id": call_id, "name": call.name,
            "input": text, "status": "completed",
        }),
        Input::Json(input) => json!({
            "type": "function_call", "id": ids.make("fc"), "call_id": call_id, "name": call.name,
            "arguments": input.to_string(), "status": "completed",
        }),
    };
    if let Some(namespace) = &call.namespace {
        item["namespace"] = json!(namespace);
    }
    item
}

/// Events of one stream, numbered as they are added.
#[derive(Default)]
struct Events(Vec<Frame>);

impl Events {
    fn push(&mut self, kind: FrameKind, mut data: Value) {
        data["sequence_number"] = json!(self.0.len());
        self.0.push(Frame::new(kind, &data));
    }

    /// Adds the events of one item: begun, filled, done.
    fn item(&mut self, index: usize, block: &Block, item: &Value, chars: usize) {
        let (field, parts, stream) = match block {
            Block::Text(_) => ("content", "response.content_part", "response.output_text"),
            Block::Thinking(_) => {
                ("summary", "response.reasoning_summary_part", "response.reasoning_summary_text")
            }
            Block::Call(Call { input: Input::Freeform(_), .. }) => {
                ("input", "", "response.custom_tool_call_input")
            }
            Block::Call(Call { input: Input::Json(_), .. }) => {
                ("arguments", "", "response.function_call_arguments")
            }
        };
        let mut begun = item.clone();
        begun["status"] = json!("in_progress");
        begun[field] = if item[field].is_array() { json!([]) } else { json!("") };
        let at = |kind: String, name: &str, value: Value| {
            let mut data = json!({ "type": kind, "item_id": item["id"], "output_index": index });
            match block {
                Block::Text(_) => data["content_index"] = json!(0),
                Block::Thinking(_) => data["summary_index"] = json!(0),
                Block::Call(_) => {}
            }
            data[name] = value;
            data
        };
        let added = json!({ "type": "response.output_item.added", "output_index": index, "item": begun });
        self.push(FrameKind::Frame, added);
        match block {
            Block::Text(text) | Block::Thinking(text) => {
                let whole = item[field][0].clone();
                let mut empty = whole.clone();
                empty["text"] = json!("");
                self.push(FrameKind::Frame, at(format!("{parts}.added"), "part", empty));
                for delta in deltas(text, chars) {
                    self.push(FrameKind::Delta, at(format!("{stream}.delta"), "delta", json!(delta)));
                }
                self.push(FrameKind::Frame, at(format!("{stream}.done"), "text", json!(text)));
                self.push(FrameKind::Frame, at(format!("{parts}.done"), "part", whole));
            }
            Block::Call(_) => {
                for delta in deltas(item[field].as_str().unwrap_or_default(), chars) {
                    self.push(FrameKind::Delta, at(format!("{stream}.delta"), "delta", json!(delta)));
                }
                self.push(FrameKind::Frame, at(format!("{stream}.done"), field, item[field].clone()));
            }
        }
        let done = json!({ "type": "response.output_item.done", "output_index": index, "item": item });
        self.push(FrameKind::Frame, done);
    }
}
