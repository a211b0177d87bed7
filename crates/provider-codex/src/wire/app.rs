//! The app-server's wire: JSON-RPC without the `jsonrpc` field, one message a line.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

/// A message from the app-server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    /// Something happened.
    Notification { method: String, params: Json },
    /// It wants an answer, by this id.
    Request { id: Json, method: String, params: Json },
    /// It answers one of ours.
    Response { id: Json, answer: Result<Json, RpcError> },
}

impl Incoming {
    /// Reads a message; gives the value back if it is none.
    pub(crate) fn from_json(mut value: Json) -> Result<Self, Json> {
        let Some(fields) = value.as_object_mut() else {
            return Err(value);
        };
        let id = fields.get("id").filter(|id| !id.is_null()).cloned();
        let method = fields.get("method").and_then(Json::as_str).map(str::to_owned);
        match (method, id) {
            (Some(method), id) => {
                let params = fields.remove("params").unwrap_or_default();
                Ok(match id {
                    Some(id) => Self::Request { id, method, params },
                    None => Self::Notification { method, params },
                })
            }
            (None, Some(id)) => {
                if let Some(error) = fields.get("error").filter(|error| !error.is_null()) {
                    let error = RpcError::deserialize(error)
                        .unwrap_or_else(|_| RpcError { code: 0, message: error.to_string() });
                    return Ok(Self::Response { id, answer: Err(error) });
                }
                match fields.remove("result") {
                    Some(result) => Ok(Self::Response { id, answer: Ok(result) }),
                    None => Err(value),
                }
            }
            (None, None) => Err(value),
        }
    }

    /// The message as it came, for what nobody knows.
    pub(crate) fn into_json(self) -> Json {
        match self {
            Self::Notification { method, params } => json!({ "method": method, "params": params }),
            Self::Request { id, method, params } => json!({ "id": id, "method": method, "params": params }),
            Self::Response { id, answer: Ok(result) } => json!({ "id": id, "result": result }),
            Self::Response { id, answer: Err(error) } => json!({ "id": id, "error": error }),
        }
    }
}

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RpcError {
    #[serde(default)]
    pub(crate) code: i64,
    #[serde(default)]
    pub(crate) message: String,
}

/// The JSON-RPC code for a method that this side does not have.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;

/// A message to the app-server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Outgoing {
    Request { id: u64, method: &'static str, params: Json },
    Notification { method: &'static str },
    Answer { id: Json, result: Json },
    Refusal { id: Json, error: RpcError },
}

/// The result of `thread/start` and `thread/resume`, and the parameters of `thread/started`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ThreadOpened {
    pub(crate) thread: Thread,
    #[serde(default)]
    pub(crate) model: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Thread {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) model: Option<String>,
}

/// The parameters of `turn/started` and `turn/completed`, and the result of `turn/start`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TurnChanged {
    #[serde(default)]
    pub(crate) thread_id: Option<String>,
    pub(crate) turn: Turn,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Turn {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) status: TurnStatus,
    #[serde(default)]
    pub(crate) error: Option<TurnError>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum TurnStatus {
    Completed,
    Interrupted,
    Failed,
    InProgress,
    #[default]
    #[serde(other)]
    Unknown,
}

/// What went wrong with a turn.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TurnError {
    #[serde(default)]
    pub(crate) message: String,
    /// A word, or an object of one word and its facts; the schema leaves it open.
    #[serde(default)]
    pub(crate) codex_error_info: Json,
    #[serde(default)]
    pub(crate) additional_details: Option<String>,
}

/// The parameters of `error`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorHappened {
    pub(crate) error: TurnError,
    #[serde(default)]
    pub(crate) will_retry: bool,
}

/// The parameters of `item/started` and `item/completed`; the item stays JSON until its type is known.
#[derive(Debug, Deserialize)]
pub(crate) struct ItemChanged {
    pub(crate) item: Json,
}

/// The parameters of `item/agentMessage/delta`.
#[derive(Debug, Deserialize)]
pub(crate) struct Delta {
    pub(crate) delta: String,
}

/// The parameters of `turn/diff/updated`.
#[derive(Debug, Deserialize)]
pub(crate) struct DiffUpdated {
    pub(crate) diff: String,
}

/// The parameters of `turn/plan/updated`.
#[derive(Debug, Deserialize)]
pub(crate) struct PlanUpdated {
    #[serde(default)]
    pub(crate) plan: Vec<PlanStep>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct PlanStep {
    pub(crate) step: String,
    #[serde(default)]
    pub(crate) status: String,
}

/// The parameters of `thread/tokenUsage/updated`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UsageUpdated {
    pub(crate) thread_id: String,
    pub(crate) token_usage: TokenUsage,
}

#[derive(Debug, Deserialize)]
pub(crate) struct TokenUsage {
    pub(crate) total: Tokens,
}

/// Tokens of a thread; `input` holds those from the cache, `output` those of the reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Tokens {
    #[serde(alias = "input_tokens")]
    pub(crate) input_tokens: u64,
    #[serde(alias = "cached_input_tokens")]
    pub(crate) cached_input_tokens: u64,
    #[serde(alias = "cache_write_input_tokens")]
    pub(crate) cache_write_input_tokens: u64,
    #[serde(alias = "output_tokens")]
    pub(crate) output_tokens: u64,
}

/// The parameters of `account/rateLimits/updated`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RateLimitsUpdated {
    pub(crate) rate_limits: RateLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RateLimits {
    pub(crate) primary: Option<Window>,
    pub(crate) secondary: Option<Window>,
    pub(crate) spend_control_reached: Option<bool>,
    pub(crate) rate_limit_reached_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Window {
    pub(crate) used_percent: i64,
    /// Unix seconds.
    pub(crate) resets_at: Option<i64>,
}

/// The parameters of `warning`, `guardianWarning`, `configWarning` and `deprecationNotice`.
#[derive(Debug, Deserialize)]
pub(crate) struct Notice {
    #[serde(alias = "summary")]
    pub(crate) message: String,
}

/// The parameters of `model/rerouted`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModelRerouted {
    pub(crate) from_model: String,
    pub(crate) to_model: String,
}
