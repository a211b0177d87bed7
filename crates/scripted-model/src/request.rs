//! What a request says, whichever API it came by.

use serde_json::Value;

use crate::step::Api;

/// A request for an answer, as far as a script needs to know it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModelRequest {
    pub(crate) api: Api,
    pub(crate) model: String,
    pub(crate) streaming: bool,
    /// Whether this is a request beside the conversation: a title, a warm-up, a summary.
    pub(crate) side: bool,
    /// The turn of the script that comes next in this conversation.
    pub(crate) next_turn: usize,
    pub(crate) working_dir: Option<String>,
    pub(crate) tools: Vec<OfferedTool>,
    /// Calls of ours that the agent refused because it had not read the files yet.
    pub(crate) unread: Vec<UnreadFile>,
}

/// A tool that the agent offers to the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OfferedTool {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    /// Whether it takes free text in place of JSON.
    pub(crate) freeform: bool,
}

/// A refused `Write` or `Edit`, to be repeated once the file has been read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UnreadFile {
    pub(crate) turn: usize,
    pub(crate) path: String,
    pub(crate) tool: String,
    pub(crate) input: Value,
}

impl ModelRequest {
    /// Finds an offered tool by name.
    pub(crate) fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Makes a path absolute where the working directory is known.
    pub(crate) fn absolute(&self, path: &str) -> String {
        let path = self.fill(path);
        match &self.working_dir {
            Some(dir) if !path.starts_with('/') => {
                format!("{}/{}", dir.trim_end_matches('/'), path.trim_start_matches("./"))
            }
            _ => path,
        }
    }

    /// Puts the working directory in the place of `${CWD}`; `.` where it is not known.
    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("${CWD}", self.working_dir.as_deref().unwrap_or("."))
    }

    /// Does so in every string of a JSON value.
    pub(crate) fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => items.iter().map(|item| self.fill_value(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, field)| (name.clone(), self.fill_value(field)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// The texts of a message's content, which is a string or a list of blocks.
pub(crate) fn texts(content: &Value) -> Vec<&str> {
    match content {
        Value::String(text) => vec![text],
        Value::Array(blocks) => blocks.iter().filter_map(|block| block["text"].as_str()).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// The elements of a JSON array; none for anything else.
pub(crate) fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
