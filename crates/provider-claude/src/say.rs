//! What is said to Claude Code: one JSON value a line on its stdin.

use std::hash::{BuildHasher, RandomState};

use serde_json::{Value, json};

/// The id of our request to begin; each session sends it once.
const INITIALIZE: &str = "lime-initialize";
/// The id of our request to stop; each session sends it at most once.
const INTERRUPT: &str = "lime-interrupt";
/// The hook that the CLI calls before each call of a tool.
pub(crate) const BEFORE_CALL: &str = "lime-before-call";
/// The hook that the CLI calls before each prompt: a sign that it calls hooks at all.
pub(crate) const BEFORE_PROMPT: &str = "lime-before-prompt";
/// How long the CLI waits for a hook, in seconds: nearly as long as its timers can, 24 days. Then it gives the call up.
const HOOK_PATIENCE: u32 = 2_147_000;

/// Begins the session, with what is appended to the CLI's own system prompt.
///
/// - The wire has no limit on the text, where an argument of a process ends at 128 KiB.
/// - With `hooks`, the CLI asks before each call, those that it would approve by itself included.
pub(crate) fn initialize(instructions: &str, hooks: bool) -> Value {
    let mut request = json!({ "subtype": "initialize" });
    if !instructions.is_empty() {
        request["appendSystemPrompt"] = instructions.into();
    }
    if hooks {
        request["hooks"] = json!({
            "PreToolUse": [{ "matcher": "*", "hookCallbackIds": [BEFORE_CALL], "timeout": HOOK_PATIENCE }],
            "UserPromptSubmit": [{ "hookCallbackIds": [BEFORE_PROMPT] }],
        });
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

/// Says something more, with a uuid by which the CLI tells that the agent has heard it.
///
/// - New in every session, since a session that is resumed still knows those of before.
pub(crate) fn message(text: &str) -> Value {
    let draw = || RandomState::new().hash_one(std::process::id());
    let (high, low) = (draw(), draw());
    let uuid = format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    );
    let mut message = prompt(text);
    message["uuid"] = uuid.into();
    message
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

/// Lets a hook pass: the CLI judges the call as if it had not asked.
pub(crate) fn pass(request_id: &str) -> Value {
    answer(request_id, &json!({}))
}

/// Denies a call in the hook before it; the agent reads the reason and goes on.
pub(crate) fn block(request_id: &str, reason: &str) -> Value {
    let decision = json!({
        "hookEventName": "PreToolUse", "permissionDecision": "deny", "permissionDecisionReason": reason,
    });
    answer(request_id, &json!({ "hookSpecificOutput": decision }))
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
