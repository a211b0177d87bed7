//! What is said to Claude Code: one JSON value a line on its stdin.

use serde_json::{Value, json};

/// The id of our request to begin; each session sends it once.
const INITIALIZE: &str = "lime-initialize";
/// The id of our request to stop; each session sends it at most once.
const INTERRUPT: &str = "lime-interrupt";

/// Begins the session, with what is appended to the CLI's own system prompt.
///
/// - The wire has no limit on the text, where an argument of a process ends at 128 KiB.
pub(crate) fn initialize(instructions: &str) -> Value {
    let mut request = json!({ "subtype": "initialize" });
    if !instructions.is_empty() {
        request["appendSystemPrompt"] = instructions.into();
    }
    json!({ "type": "control_request", "request_id": INITIALIZE, "request": request })
}

/// Gives the task. It has no uuid: a message with one that was seen before is dropped in silence.
pub(crate) fn prompt(text: &str) -> Value {
    json!({
        "type": "user",
        "message": { "role": "user", "content": [{ "type": "text", "text": text }] },
        "parent_tool_use_id": null,
    })
}

/// Stops the turn and the tool that runs in it.
pub(crate) fn interrupt() -> Value {
    json!({ "type": "control_request", "request_id": INTERRUPT, "request": { "subtype": "interrupt" } })
}

/// Allows a call with the input that it has.
pub(crate) fn allow(request_id: &str, input: &Value) -> Value {
    answer(request_id, &json!({ "behavior": "allow", "updatedInput": input }))
}

/// Denies a call; the agent reads the message and goes on.
pub(crate) fn deny(request_id: &str, message: &str) -> Value {
    answer(request_id, &json!({ "behavior": "deny", "message": message }))
}

/// Answers a request that this side knows nothing of, so that the CLI does not wait for ever.
pub(crate) fn unsupported(request_id: &str) -> Value {
    json!({
        "type": "control_response",
        "response": { "subtype": "error", "request_id": request_id, "error": "not supported by this client" },
    })
}

fn answer(request_id: &str, response: &Value) -> Value {
    json!({
        "type": "control_response",
        "response": { "subtype": "success", "request_id": request_id, "response": response },
    })
}
