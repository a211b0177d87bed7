//! What a turn is made of. The app-server names things in camelCase, `exec --json` in snake_case; they are read
//! as one.

use serde::Deserialize;
use serde_json::Value as Json;

/// Where an item's tool call stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Status {
    #[serde(alias = "in_progress")]
    InProgress,
    Completed,
    Failed,
    Declined,
    /// Not said, or in a word that nobody knows.
    #[default]
    #[serde(other)]
    Unsaid,
}

/// An item with the facts that all kinds share.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Item {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) status: Status,
    /// Unix milliseconds; the app-server's only.
    #[serde(default)]
    pub(crate) started_at_ms: Option<u64>,
    /// Unix milliseconds; the app-server's only.
    #[serde(default)]
    pub(crate) completed_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) duration_ms: Option<u64>,
    #[serde(flatten)]
    pub(crate) kind: Kind,
}

impl Item {
    /// Reads an item; `None` if its type is not known, or it lacks what its type must have.
    pub(crate) fn from_json(value: &Json) -> Option<Self> {
        Self::deserialize(value).ok()
    }
}

/// The kinds of item.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Kind {
    #[serde(alias = "agent_message")]
    AgentMessage {
        text: String,
    },
    Reasoning {
        /// `exec` only.
        #[serde(default)]
        text: Option<String>,
        #[serde(default)]
        summary: Vec<String>,
        #[serde(default)]
        content: Vec<String>,
    },
    /// A plan in prose.
    Plan {
        text: String,
    },
    #[serde(alias = "todo_list")]
    TodoList {
        items: Vec<Todo>,
    },
    #[serde(alias = "command_execution")]
    CommandExecution {
        command: String,
        #[serde(default)]
        cwd: Option<String>,
        #[serde(default, alias = "aggregated_output")]
        aggregated_output: Option<String>,
        #[serde(default, alias = "exit_code")]
        exit_code: Option<i64>,
    },
    #[serde(alias = "file_change")]
    FileChange {
        #[serde(default)]
        changes: Vec<Change>,
    },
    #[serde(alias = "mcp_tool_call")]
    McpToolCall {
        server: String,
        tool: String,
        #[serde(default)]
        arguments: Json,
        #[serde(default)]
        result: Json,
        #[serde(default)]
        error: Json,
    },
    DynamicToolCall {
        tool: String,
        #[serde(default)]
        arguments: Json,
        #[serde(default)]
        content_items: Json,
    },
    #[serde(alias = "web_search")]
    WebSearch {
        #[serde(default)]
        query: String,
        #[serde(default)]
        action: Json,
    },
    ImageView {
        path: String,
    },
    /// `exec`'s word for a warning.
    Error {
        message: String,
    },
    ContextCompaction {},
    /// What this side said itself.
    UserMessage {},
    HookPrompt {},
}

/// A line of a to-do list.
#[derive(Debug, Deserialize)]
pub(crate) struct Todo {
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) completed: bool,
}

/// A change of one file: `kind` is a word in `exec`, an object with a `type` in the app-server.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) kind: Json,
    #[serde(default)]
    pub(crate) diff: Option<String>,
}

impl Change {
    /// `add`, `update` or `delete`.
    pub(crate) fn verb(&self) -> &str {
        self.kind.as_str().or_else(|| self.kind["type"].as_str()).unwrap_or("change")
    }

    /// Where the file is moved to, if it is.
    pub(crate) fn moved_to(&self) -> Option<&str> {
        self.kind["move_path"].as_str()
    }
}
