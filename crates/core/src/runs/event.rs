//! What an agent does, as it is recorded and shown: the lead document's section 6, and ours.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Id;
use crate::governance::{ActionScope, Approval, ApprovalStatus, subjects};
use crate::runs::{AgentRun, FailureKind, RunStatus, Usage};
use crate::words::words;

/// The position of an event in its run: 1, 2, 3, without a gap.
pub type Seq = i64;

/// One thing that happened in a run.
///
/// - On the wire it is camelCase with a `type`; `message`, `log`, `diff`, `artifact` and `error` are the lead
///   document's (000 §6), `tool` is named by its table (000 §5.13), the others are ours.
/// - What nobody knows becomes [`Unknown`](AgentEvent::Unknown), and is kept as it came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AgentEvent {
    /// The run changed its state. The last event of every run is one of these with a final state.
    Status {
        /// The new state.
        status: RunStatus,
        /// In words, for a person.
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A whole message.
    Message {
        /// Who speaks.
        role: MessageRole,
        /// What is said.
        text: String,
    },
    /// A piece of a message that is still being written; not recorded, since the whole message follows.
    Delta {
        /// The piece.
        text: String,
    },
    /// What the agent thinks before it acts, as far as its provider shows it.
    Reasoning {
        /// The thoughts, or a summary of them.
        text: String,
    },
    /// A tool call began or ended.
    Tool {
        /// The provider's id of the call.
        call_id: String,
        /// The tool.
        name: String,
        /// How far it is.
        status: ToolStatus,
        /// What it was called with; when it begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        input: Option<Json>,
        /// What it gave back; when it ends.
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<String>,
        /// How long it took, in milliseconds; when it ends.
        #[serde(skip_serializing_if = "Option::is_none")]
        duration_ms: Option<u64>,
    },
    /// A person is asked for leave, or has answered.
    Approval {
        /// The question, once it is stored.
        #[serde(skip_serializing_if = "Option::is_none")]
        approval_id: Option<Id<Approval>>,
        /// What it is about: `tool`, `repo.push` and so on.
        scope: ActionScope,
        /// The action in the scope: the tool, or the branch.
        action: String,
        /// The provider's id of the call, for a tool.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<String>,
        /// How far it is.
        status: ApprovalStatus,
        /// In a sentence: what is asked, or what was answered.
        summary: String,
        /// The exact parameters; when it is asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Json>,
    },
    /// A line for the technically minded.
    Log {
        /// The line.
        text: String,
    },
    /// What has changed in the repository so far, or in the end.
    Diff {
        /// As `git diff` prints it.
        unified_diff: String,
        /// In a sentence.
        #[serde(skip_serializing_if = "Option::is_none")]
        summary: Option<String>,
    },
    /// Something that the run made.
    Artifact {
        /// Its name.
        name: String,
        /// Where it is.
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Its media type.
        #[serde(skip_serializing_if = "Option::is_none")]
        mime: Option<String>,
    },
    /// Something went wrong; the run may go on.
    Error {
        /// For a person.
        message: String,
        /// The kind, where it is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        kind: Option<FailureKind>,
        /// The chain of causes. It stays on the server side: [`AgentEvent::for_client`] takes it off.
        #[serde(skip_serializing_if = "Option::is_none")]
        stack: Option<String>,
    },
    /// The agent's session began, or was taken up.
    Session {
        /// The provider's id of the session, to resume it by.
        session_id: String,
        /// The model.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// What the session has used so far.
    Usage(Usage),
    /// A message of the agent's wire that this version does not know, as it came.
    #[serde(untagged)]
    Unknown(Json),
}

words! {
    /// Who speaks in a message.
    pub enum MessageRole: "role" {
        /// The factory.
        System = "system",
        /// The agent.
        Assistant = "assistant",
        /// A tool.
        Tool = "tool",
        /// A person (ours).
        User = "user",
    }
}

words! {
    /// How far a tool call is.
    pub enum ToolStatus: "status" {
        /// Began.
        Started = "started",
        /// Ended well.
        Completed = "completed",
        /// Ended badly.
        Failed = "failed",
        /// Was not allowed.
        Denied = "denied",
    }
}

impl AgentEvent {
    /// The most bytes of text in one event: 256 KiB; [`bounded`](AgentEvent::bounded) cuts to it.
    pub const MAX_TEXT_BYTES: usize = 256 << 10;

    /// The event of a change of state, with words for a person where there are any.
    pub fn status(status: RunStatus, detail: Option<&str>) -> Self {
        Self::Status { status, detail: detail.map(Into::into) }
    }

    /// A message of the factory itself.
    pub fn system(text: impl Into<String>) -> Self {
        Self::Message { role: MessageRole::System, text: text.into() }
    }

    /// An agent asks for leave to call a tool, as its session tells it: before anybody has stored the question.
    pub fn asks(call_id: impl Into<String>, tool: impl Into<String>, input: Json) -> Self {
        const SHOWN: usize = 200;
        let tool = tool.into();
        let mut summary = format!("The agent asks to call {tool}");
        if let Some(subject) = subjects(&input).next() {
            let line = subject.trim().lines().next().unwrap_or_default();
            let shown: String = line.chars().take(SHOWN).collect();
            let more = if shown.len() < subject.trim().len() { "…" } else { "" };
            summary.push_str(&format!(": {shown}{more}"));
        }
        Self::Approval {
            approval_id: None,
            scope: ActionScope::tool(),
            action: tool,
            call_id: Some(call_id.into()),
            status: ApprovalStatus::Pending,
            summary,
            payload: Some(input),
        }
    }

    /// The word in the database's `type` column, which is the `type` on the wire.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Message { .. } => "message",
            Self::Delta { .. } => "delta",
            Self::Reasoning { .. } => "reasoning",
            Self::Tool { .. } => "tool",
            Self::Approval { .. } => "approval",
            Self::Log { .. } => "log",
            Self::Diff { .. } => "diff",
            Self::Artifact { .. } => "artifact",
            Self::Error { .. } => "error",
            Self::Session { .. } => "session",
            Self::Usage(_) => "usage",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether it is shown live and not recorded.
    pub const fn is_ephemeral(&self) -> bool {
        matches!(self, Self::Delta { .. })
    }

    /// Whether nothing comes after it.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.is_final())
    }

    /// How many bytes of text it has, roughly: what it takes to keep it in memory.
    pub fn text_bytes(&self) -> usize {
        let some = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        64 + match self {
            Self::Message { text, .. }
            | Self::Delta { text }
            | Self::Reasoning { text }
            | Self::Log { text } => text.len(),
            Self::Status { detail, .. } => some(detail),
            Self::Tool { input, output, .. } => input.as_ref().map_or(0, json_bytes) + some(output),
            Self::Approval { summary, payload, .. } => summary.len() + payload.as_ref().map_or(0, json_bytes),
            Self::Diff { unified_diff, summary } => unified_diff.len() + some(summary),
            Self::Artifact { name, url, .. } => name.len() + some(url),
            Self::Error { message, stack, .. } => message.len() + some(stack),
            Self::Session { .. } | Self::Usage(_) => 0,
            Self::Unknown(raw) => json_bytes(raw),
        }
    }

    /// The event without what must stay on the server side.
    #[must_use]
    pub fn for_client(mut self) -> Self {
        if let Self::Error { stack, .. } = &mut self {
            *stack = None;
        }
        self
    }

    /// The event with every text cut to [`MAX_TEXT_BYTES`](AgentEvent::MAX_TEXT_BYTES) and free of NUL.
    ///
    /// - What was cut ends with `… [cut: N bytes more]`. NUL, which PostgreSQL cannot store, becomes U+FFFD.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::Message { text, .. }
            | Self::Delta { text }
            | Self::Reasoning { text }
            | Self::Log { text } => {
                bound(text);
            }
            Self::Status { detail, .. } => bound_some(detail),
            Self::Tool { call_id, name, input, output, .. } => {
                bound(call_id);
                bound(name);
                bound_some(output);
                if let Some(input) = input {
                    bound_json(input);
                }
            }
            Self::Approval { action, call_id, summary, payload, .. } => {
                bound(action);
                bound_some(call_id);
                bound(summary);
                if let Some(payload) = payload {
                    bound_json(payload);
                }
            }
            Self::Diff { unified_diff, summary } => {
                bound(unified_diff);
                bound_some(summary);
            }
            Self::Artifact { name, url, mime } => {
                bound(name);
                bound_some(url);
                bound_some(mime);
            }
            Self::Error { message, stack, .. } => {
                bound(message);
                bound_some(stack);
            }
            Self::Session { session_id, model } => {
                bound(session_id);
                bound_some(model);
            }
            Self::Usage(_) => {}
            Self::Unknown(raw) => bound_json(raw),
        }
        self
    }
}

fn bound_some(text: &mut Option<String>) {
    if let Some(text) = text {
        bound(text);
    }
}

fn bound(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{FFFD}");
    }
    let length = text.len();
    if length <= AgentEvent::MAX_TEXT_BYTES {
        return;
    }
    let keep = text.floor_char_boundary(AgentEvent::MAX_TEXT_BYTES - 64);
    text.truncate(keep);
    text.push_str(&format!("… [cut: {} bytes more]", length - keep));
}

fn json_bytes(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len() + 8,
        Json::Array(items) => items.iter().map(json_bytes).sum::<usize>() + 8,
        Json::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + json_bytes(value)).sum::<usize>() + 8
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
    }
}

/// Cuts the texts in a JSON value; one that is too long as a whole becomes a cut text of itself.
fn bound_json(value: &mut Json) {
    fn walk(value: &mut Json) {
        match value {
            Json::String(text) => bound(text),
            Json::Array(items) => items.iter_mut().for_each(walk),
            Json::Object(fields) => {
                if fields.keys().any(|key| key.contains('\0')) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(key, value)| (key.replace('\0', "\u{FFFD}"), value))
                        .collect();
                }
                fields.values_mut().for_each(walk);
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {}
        }
    }
    walk(value);
    let text = value.to_string();
    if text.len() > AgentEvent::MAX_TEXT_BYTES {
        let mut text = text;
        bound(&mut text);
        *value = serde_json::json!({ "cut": text });
    }
}

/// A recorded event: where it stands in its run, and when it was recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunEvent {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// The position, from 1.
    pub seq: Seq,
    /// When, on the database's clock.
    pub ts: DateTime<Utc>,
    /// What.
    #[serde(flatten)]
    pub event: AgentEvent,
}

impl RunEvent {
    /// The event without what must stay on the server side.
    #[must_use]
    pub fn for_client(self) -> Self {
        Self { event: self.event.for_client(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wire_is_the_lead_documents() {
        let event = AgentEvent::Diff { unified_diff: "x".into(), summary: None };
        assert_eq!(serde_json::to_value(&event).unwrap(), json!({ "type": "diff", "unifiedDiff": "x" }));
        let event: AgentEvent =
            serde_json::from_value(json!({ "type": "message", "role": "assistant", "text": "hi" })).unwrap();
        assert_eq!(event, AgentEvent::Message { role: MessageRole::Assistant, text: "hi".into() });
    }

    #[test]
    fn what_nobody_knows_is_kept() {
        let raw = json!({ "type": "hologram", "depth": 3 });
        let event: AgentEvent = serde_json::from_value(raw.clone()).unwrap();
        assert_eq!(event, AgentEvent::Unknown(raw));
        let recorded = RunEvent { run_id: Id::new(5), seq: 2, ts: DateTime::UNIX_EPOCH, event };
        let wire = serde_json::to_value(&recorded).unwrap();
        assert_eq!(wire["runId"], "5");
        assert_eq!(wire["depth"], 3);
    }

    #[test]
    fn recorded_events_survive_the_wire() {
        let usage = Usage { turns: 2, cost: Some(crate::Micros(12)), ..Usage::default() };
        let recorded = RunEvent {
            run_id: Id::new(5),
            seq: 2,
            ts: DateTime::UNIX_EPOCH,
            event: AgentEvent::Usage(usage),
        };
        let text = serde_json::to_string(&recorded).unwrap();
        assert_eq!(serde_json::from_str::<RunEvent>(&text).unwrap(), recorded);
    }

    #[test]
    fn a_question_says_in_a_line_what_it_is_about() {
        let said = |input| match AgentEvent::asks("c", "Bash", input) {
            AgentEvent::Approval { summary, .. } => summary,
            other => panic!("{other:?}"),
        };
        assert_eq!(said(json!({ "command": "git push" })), "The agent asks to call Bash: git push");
        assert_eq!(said(json!({ "command": "cat <<X\nmore" })), "The agent asks to call Bash: cat <<X…");
        assert_eq!(said(json!({ "other": 1 })), "The agent asks to call Bash");
        assert!(said(json!({ "command": "é".repeat(1_000) })).chars().count() < 300);
    }

    #[test]
    fn long_texts_are_cut_and_marked() {
        let AgentEvent::Log { text } = (AgentEvent::Log { text: "é\0".repeat(200_000) }).bounded() else {
            panic!("another event came back");
        };
        assert!(text.len() <= AgentEvent::MAX_TEXT_BYTES);
        assert!(text.ends_with("bytes more]"));
        assert!(!text.contains('\0'));
    }

    #[test]
    fn stacks_stay_on_the_server_side() {
        let event = AgentEvent::Error { message: "no".into(), kind: None, stack: Some("at x".into()) };
        assert!(!serde_json::to_string(&event.for_client()).unwrap().contains("at x"));
    }
}
