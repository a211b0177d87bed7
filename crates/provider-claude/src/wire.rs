//! What Claude Code prints and takes on its stream-json wire: one JSON value a line.
//!
//! - Read without trust: a field that is absent or of another shape than expected reads as nothing, a line of a
//!   type that is not known here reads as [`Line::Unknown`]. Nothing on this wire is an error.
//! - Lines go through [`Value`] first, which takes the last one of duplicate keys where a struct would refuse.

use std::collections::BTreeMap;
use std::ops::Deref;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// A field that may be absent, or of another shape than expected; both read as `None`.
#[derive(Debug)]
pub(crate) struct Soft<T>(Option<T>);

impl<T> Default for Soft<T> {
    fn default() -> Self {
        Self(None)
    }
}
impl<T> Deref for Soft<T> {
    type Target = Option<T>;

    fn deref(&self) -> &Option<T> {
        &self.0
    }
}
impl<'de, T: DeserializeOwned> Deserialize<'de> for Soft<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(Self(T::deserialize(value).ok()))
    }
}

/// A line that the CLI printed.
#[derive(Debug)]
pub(crate) enum Line {
    System(System),
    Assistant(Assistant),
    User(User),
    Stream(Stream),
    Result(Box<RunResult>),
    Ask(Ask),
    RateLimit(RateLimit),
    /// Of a known type that tells nothing to a run.
    Quiet,
    /// Of a type that is not known here.
    Unknown,
}

/// Types of line that only matter to the CLI's own interfaces.
const QUIET: &[&str] = &[
    "auth_status",
    "command_lifecycle",
    "control_cancel_request",
    "control_response",
    "files_persisted",
    "keep_alive",
    "prompt_suggestion",
    "session_state_changed",
    "tool_progress",
    "tool_use_summary",
];

impl Line {
    pub(crate) fn read(value: &Value) -> Self {
        fn typed<'v, T: Deserialize<'v>>(value: &'v Value, make: impl FnOnce(T) -> Line) -> Line {
            T::deserialize(value).map_or(Line::Unknown, make)
        }
        match value.get("type").and_then(Value::as_str) {
            Some("system") => typed(value, Self::System),
            Some("assistant") => typed(value, Self::Assistant),
            Some("user") => typed(value, Self::User),
            Some("stream_event") => typed(value, Self::Stream),
            Some("result") => typed(value, |result| Self::Result(Box::new(result))),
            Some("control_request") => typed(value, Self::Ask),
            Some("rate_limit_event") => typed(value, Self::RateLimit),
            Some(quiet) if QUIET.contains(&quiet) => Self::Quiet,
            Some(_) | None => Self::Unknown,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct System {
    pub(crate) subtype: Soft<String>,
    pub(crate) session_id: Soft<String>,
    pub(crate) model: Soft<String>,
    #[serde(rename = "apiKeySource")]
    pub(crate) api_key_source: Soft<String>,
    pub(crate) attempt: Soft<u32>,
    pub(crate) max_retries: Soft<u32>,
    pub(crate) retry_delay_ms: Soft<f64>,
    pub(crate) error_status: Soft<u16>,
    pub(crate) error: Soft<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Assistant {
    pub(crate) message: Soft<Message>,
    /// The call that started the sub-agent who speaks; none if it is the agent itself.
    pub(crate) parent_tool_use_id: Soft<String>,
    /// What went wrong with the API, where the message is the CLI's own.
    pub(crate) error: Soft<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct User {
    pub(crate) message: Soft<Message>,
    pub(crate) parent_tool_use_id: Soft<String>,
    /// The CLI repeats what was said to it, once the agent has heard it.
    #[serde(rename = "isReplay")]
    pub(crate) is_replay: Soft<bool>,
    pub(crate) uuid: Soft<String>,
    #[serde(rename = "isSynthetic")]
    pub(crate) is_synthetic: Soft<bool>,
    /// How each call was decided on; since 2.1.3xx.
    pub(crate) tool_result_meta: Soft<Vec<ToolResultMeta>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ToolResultMeta {
    pub(crate) id: Soft<String>,
    pub(crate) permission_decision: Soft<PermissionDecision>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PermissionDecision {
    pub(crate) decision: Soft<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    pub(crate) id: Soft<String>,
    pub(crate) model: Soft<String>,
    pub(crate) content: Soft<Value>,
    pub(crate) usage: Soft<Tokens>,
    pub(crate) stop_reason: Soft<String>,
}

impl Message {
    /// The model's name in messages that the CLI wrote itself.
    const SYNTHETIC: &str = "<synthetic>";

    pub(crate) fn is_synthetic(&self) -> bool {
        self.model.as_deref() == Some(Self::SYNTHETIC)
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        match &*self.content {
            Some(Value::String(text)) => vec![Block::Text(text.clone())],
            Some(Value::Array(blocks)) => blocks.iter().map(Block::read).collect(),
            Some(other) => vec![Block::Unknown(other.clone())],
            None => Vec::new(),
        }
    }
}

/// A block of a message's content.
#[derive(Debug)]
pub(crate) enum Block {
    Text(String),
    Thinking(String),
    /// Reasoning that is not shown.
    Hidden,
    Call {
        id: String,
        name: String,
        input: Value,
    },
    Answer {
        id: String,
        text: String,
        is_error: bool,
    },
    Unknown(Value),
}

impl Block {
    /// Reads a block; tools that run on the server have types of their own, such as `server_tool_use`.
    fn read(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let known =
            match kind {
                "text" => text("text").map(Self::Text),
                "thinking" => text("thinking").map(Self::Thinking),
                "redacted_thinking" => Some(Self::Hidden),
                call if call.ends_with("tool_use") => text("id").zip(text("name")).map(|(id, name)| {
                    Self::Call { id, name, input: value.get("input").cloned().unwrap_or(Value::Null) }
                }),
                answer if answer.ends_with("tool_result") => text("tool_use_id").map(|id| Self::Answer {
                    id,
                    text: value.get("content").map(plain_text).unwrap_or_default(),
                    is_error: value.get("is_error").and_then(Value::as_bool).unwrap_or(false),
                }),
                _ => None,
            };
        known.unwrap_or_else(|| Self::Unknown(value.clone()))
    }
}

/// What a tool gave back, as text: a string, or blocks of which those that are not text are named.
fn plain_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Array(blocks) => {
            let texts: Vec<String> = blocks
                .iter()
                .map(|block| match block.get("text").and_then(Value::as_str) {
                    Some(text) => text.to_owned(),
                    None => match block.get("type").and_then(Value::as_str) {
                        Some(kind) => format!("[{kind}]"),
                        None => block.to_string(),
                    },
                })
                .collect();
            texts.join("\n")
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => content.to_string(),
    }
}

/// Tokens as the API counts them: its input leaves out what the cache read or wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tokens {
    pub(crate) input_tokens: Soft<u64>,
    pub(crate) cache_read_input_tokens: Soft<u64>,
    pub(crate) cache_creation_input_tokens: Soft<u64>,
    pub(crate) output_tokens: Soft<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Stream {
    pub(crate) event: Soft<StreamEvent>,
    pub(crate) parent_tool_use_id: Soft<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamEvent {
    #[serde(rename = "type")]
    pub(crate) kind: Soft<String>,
    pub(crate) message: Soft<Message>,
    pub(crate) delta: Soft<Delta>,
    pub(crate) usage: Soft<Tokens>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Delta {
    /// Only a `text_delta` has one.
    pub(crate) text: Soft<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RunResult {
    pub(crate) subtype: Soft<String>,
    pub(crate) is_error: Soft<bool>,
    pub(crate) api_error_status: Soft<u16>,
    pub(crate) num_turns: Soft<u32>,
    pub(crate) result: Soft<String>,
    pub(crate) session_id: Soft<String>,
    pub(crate) stop_reason: Soft<String>,
    pub(crate) terminal_reason: Soft<String>,
    pub(crate) total_cost_usd: Soft<Number>,
    /// The turn's.
    pub(crate) usage: Soft<Tokens>,
    /// Every model's, since the process began.
    #[serde(rename = "modelUsage")]
    pub(crate) model_usage: Soft<BTreeMap<String, ModelTokens>>,
    pub(crate) permission_denials: Soft<Vec<DeniedCall>>,
    pub(crate) errors: Soft<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ModelTokens {
    pub(crate) input_tokens: Soft<u64>,
    pub(crate) cache_read_input_tokens: Soft<u64>,
    pub(crate) cache_creation_input_tokens: Soft<u64>,
    pub(crate) output_tokens: Soft<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct DeniedCall {
    pub(crate) tool_use_id: Soft<String>,
    pub(crate) tool_name: Soft<String>,
}

/// Something that the CLI wants to be answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ask {
    pub(crate) request_id: Soft<String>,
    pub(crate) request: Soft<Question>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Question {
    pub(crate) subtype: Soft<String>,
    pub(crate) tool_name: Soft<String>,
    pub(crate) tool_use_id: Soft<String>,
    pub(crate) input: Soft<Value>,
    /// The path because of which it asks: outside of the work folder, or a sensitive one such as `.git`.
    pub(crate) blocked_path: Soft<String>,
    /// Why it asks: `safetyCheck`, `mode`, `rule` and others.
    pub(crate) decision_reason_type: Soft<String>,
    /// The hook that is called.
    pub(crate) callback_id: Soft<String>,
}

impl Question {
    pub(crate) const CAN_USE_TOOL: &str = "can_use_tool";
    /// The hook's input is in `input`: the tool's name, its own input, and more.
    pub(crate) const HOOK: &str = "hook_callback";

    /// The call that it is about.
    pub(crate) fn call(&self) -> Option<Call<'_>> {
        let id = self.tool_use_id.as_deref()?;
        let input = self.input.as_ref().unwrap_or(&Value::Null);
        match self.subtype.as_deref()? {
            Self::CAN_USE_TOOL => {
                Some(Call { id, tool: self.tool_name.as_deref().unwrap_or("unknown"), input })
            }
            Self::HOOK => Some(Call {
                id,
                tool: input.get("tool_name")?.as_str()?,
                input: input.get("tool_input").unwrap_or(&Value::Null),
            }),
            _ => None,
        }
    }
}

/// A call that the CLI asks about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'q> {
    pub(crate) id: &'q str,
    pub(crate) tool: &'q str,
    pub(crate) input: &'q Value,
}

/// What the account may still use of its plan.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RateLimit {
    pub(crate) rate_limit_info: Soft<RateLimitInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RateLimitInfo {
    /// `allowed`, `allowed_warning` or `rejected`.
    pub(crate) status: Soft<String>,
    /// Seconds since 1970.
    pub(crate) resets_at: Soft<i64>,
}
