//! Items: messages, thoughts, plans and tool calls.

use lime_core::runs::{AgentEvent, MessageRole, ToolStatus};
use serde_json::{Value as Json, json};

use super::{OpenCall, Translator};
use crate::gate::Call;
use crate::wire::item::{Item, Kind, Status};

/// The tool that runs commands, as events name it.
pub(crate) const SHELL: &str = "shell";
/// The tool that changes files, as events name it.
pub(crate) const PATCH: &str = "apply_patch";
const SEARCH: &str = "web_search";
const IMAGE: &str = "view_image";

/// The most tool calls that can be open at once; an agent that claims more is not followed further.
const MAX_OPEN_CALLS: usize = 10_000;

/// A tool call as an item tells it.
struct Told {
    tool: String,
    input: Json,
    output: Option<String>,
}

impl Translator {
    pub(super) fn item_began(&mut self, raw: &Json) -> Vec<AgentEvent> {
        let Some(item) = Item::from_json(raw) else {
            return vec![AgentEvent::Unknown(raw.clone())];
        };
        if let Kind::TodoList { items } = &item.kind {
            return self.todo_list(items);
        }
        let Some(call) = Told::of(&item.kind) else {
            return Vec::new();
        };
        self.acting = true;
        if self.open.len() < MAX_OPEN_CALLS {
            self.open.insert(
                item.id.clone(),
                OpenCall { tool: call.tool.clone(), started_at_ms: item.started_at_ms },
            );
        }
        vec![AgentEvent::Tool {
            call_id: item.id,
            name: call.tool,
            status: ToolStatus::Started,
            input: Some(call.input),
            output: None,
            duration_ms: None,
        }]
    }

    pub(super) fn item_ended(&mut self, raw: &Json) -> Vec<AgentEvent> {
        let Some(item) = Item::from_json(raw) else {
            return vec![AgentEvent::Unknown(raw.clone())];
        };
        match item.kind {
            Kind::AgentMessage { text } => {
                if text.is_empty() {
                    return Vec::new();
                }
                self.last_words = Some(text.clone());
                vec![AgentEvent::Message { role: MessageRole::Assistant, text }]
            }
            Kind::Reasoning { text, summary, content } => {
                let parts = if summary.is_empty() { content } else { summary };
                let text = text.unwrap_or_else(|| parts.join("\n\n"));
                if text.is_empty() { Vec::new() } else { vec![AgentEvent::Reasoning { text }] }
            }
            Kind::Plan { text } => vec![AgentEvent::Log { text }],
            Kind::TodoList { items } => self.todo_list(&items),
            Kind::Error { message } => vec![AgentEvent::Log { text: message }],
            Kind::ContextCompaction {} => {
                vec![AgentEvent::Log { text: "Codex summed up the conversation to make room.".into() }]
            }
            Kind::UserMessage {} | Kind::HookPrompt {} => Vec::new(),
            Kind::CommandExecution { .. }
            | Kind::FileChange { .. }
            | Kind::McpToolCall { .. }
            | Kind::DynamicToolCall { .. }
            | Kind::WebSearch { .. }
            | Kind::ImageView { .. } => self.call_ended(item),
        }
    }

    fn call_ended(&mut self, item: Item) -> Vec<AgentEvent> {
        let Some(call) = Told::of(&item.kind) else {
            return Vec::new();
        };
        self.acting = true;
        let open = self.open.remove(&item.id);
        let status = match item.status {
            Status::Failed => ToolStatus::Failed,
            Status::Declined => {
                self.deny(item.id.clone(), &call.tool);
                ToolStatus::Denied
            }
            Status::Completed | Status::InProgress | Status::Unsaid => ToolStatus::Completed,
        };
        let started_at_ms = item.started_at_ms.or_else(|| open.as_ref().and_then(|open| open.started_at_ms));
        let took = started_at_ms
            .zip(item.completed_at_ms)
            .map(|(started, completed)| completed.saturating_sub(started));
        vec![AgentEvent::Tool {
            call_id: item.id,
            name: call.tool,
            status,
            input: open.is_none().then_some(call.input),
            output: call.output,
            duration_ms: took.or(item.duration_ms),
        }]
    }

    /// A call was denied before it could begin, so that Codex tells nothing of it.
    pub(crate) fn call_denied(&mut self, call: Call, reason: String) -> [AgentEvent; 2] {
        self.acting = true;
        self.deny(call.id.clone(), &call.tool);
        let event = |call_id, name, status, input, output| AgentEvent::Tool {
            call_id,
            name,
            status,
            input,
            output,
            duration_ms: None,
        };
        [
            event(call.id.clone(), call.tool.clone(), ToolStatus::Started, Some(call.input), None),
            event(call.id, call.tool, ToolStatus::Denied, None, Some(reason)),
        ]
    }

    /// Ends the calls that the end of the turn cut off; Codex says nothing more about them.
    pub(crate) fn close_calls(&mut self) -> Vec<AgentEvent> {
        std::mem::take(&mut self.open)
            .into_iter()
            .map(|(call_id, open)| AgentEvent::Tool {
                call_id,
                name: open.tool,
                status: ToolStatus::Failed,
                input: None,
                output: Some("cut off by the end of the turn".into()),
                duration_ms: None,
            })
            .collect()
    }

    fn todo_list(&mut self, items: &[crate::wire::item::Todo]) -> Vec<AgentEvent> {
        let status = |done: bool| if done { "completed" } else { "pending" };
        self.plan(items.iter().map(|todo| (status(todo.completed), todo.text.as_str())))
    }

    /// A plan as a list with a box before each step; nothing if it is as it was.
    pub(super) fn plan<'a>(&mut self, steps: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<AgentEvent> {
        let lines: Vec<String> = steps
            .map(|(status, step)| {
                let mark = match status {
                    "completed" => 'x',
                    "inProgress" | "in_progress" => '>',
                    _ => ' ',
                };
                format!("[{mark}] {step}")
            })
            .collect();
        let text = lines.join("\n");
        if Self::changed(&mut self.plan, &text) { vec![AgentEvent::Log { text }] } else { Vec::new() }
    }
}

impl Told {
    /// The call that an item is; `None` if it is none.
    fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::CommandExecution { command, cwd, aggregated_output, exit_code } => {
                let mut input = json!({ "command": command });
                if let Some(cwd) = cwd {
                    input["cwd"] = json!(cwd);
                }
                let mut output = aggregated_output.clone();
                if let Some(code) = exit_code.filter(|code| *code != 0) {
                    let output = output.get_or_insert_default();
                    output.push_str(&format!("[exit code {code}]"));
                }
                Self { tool: SHELL.into(), input, output }
            }
            Kind::FileChange { changes } => {
                let changes: Vec<Json> = changes
                    .iter()
                    .map(|change| {
                        let mut entry = json!({ "path": change.path, "kind": change.verb() });
                        if let Some(to) = change.moved_to() {
                            entry["movedTo"] = json!(to);
                        }
                        if let Some(diff) = &change.diff {
                            entry["diff"] = json!(diff);
                        }
                        entry
                    })
                    .collect();
                Self { tool: PATCH.into(), input: json!({ "changes": changes }), output: None }
            }
            Kind::McpToolCall { server, tool, arguments, result, error } => Self {
                tool: format!("mcp__{server}__{tool}"),
                input: arguments.clone(),
                output: error["message"].as_str().map(str::to_owned).or_else(|| texts(&result["content"])),
            },
            Kind::DynamicToolCall { tool, arguments, content_items } => {
                Self { tool: tool.clone(), input: arguments.clone(), output: texts(content_items) }
            }
            Kind::WebSearch { query, action } => {
                let mut input = json!({ "query": query });
                if !action.is_null() {
                    input["action"] = action.clone();
                }
                Self { tool: SEARCH.into(), input, output: None }
            }
            Kind::ImageView { path } => {
                Self { tool: IMAGE.into(), input: json!({ "path": path }), output: None }
            }
            Kind::AgentMessage { .. }
            | Kind::Reasoning { .. }
            | Kind::Plan { .. }
            | Kind::TodoList { .. }
            | Kind::Error { .. }
            | Kind::ContextCompaction {}
            | Kind::UserMessage {}
            | Kind::HookPrompt {} => return None,
        })
    }
}

/// The texts in a list of contents, each on a line.
fn texts(contents: &Json) -> Option<String> {
    let texts: Vec<&str> =
        contents.as_array()?.iter().filter_map(|content| content["text"].as_str()).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}
