//! A part of a turn, in terms that fit any agent or in those of one.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A part of a turn.
///
/// - `ReadFile`, `WriteFile`, `ReplaceLines` and `RunCommand` are neutral: the server maps them to a tool that
///   the request offers, and answers status 400 with a plain message when none can do it.
/// - Paths may be relative to the agent's working directory, or absolute. `${CWD}` in a path, or in a string
///   of a tool's input, stands for that directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Text for the reader.
    Say(String),
    /// Reasoning, sent whether or not the request asked for it.
    Think(String),
    /// Reads a file: Claude's `Read`, elsewhere `cat` in a shell.
    ReadFile(String),
    /// Writes a whole file, replacing it if it exists.
    ///
    /// - Claude: `Write`. It refuses to replace a file it has not read; the server then answers that refusal
    ///   with a `Read` and the same `Write`, which uses up no turn and claims no tokens.
    /// - Codex: `apply_patch` as offered (custom tool, function, or inside code mode's `exec`), or as a shell
    ///   heredoc, which Codex recognises.
    /// - Contents that a patch cannot say (empty, no newline at the end, carriage returns) go through the shell.
    /// - A shell command holds up to about 100 kB.
    WriteFile {
        /// The file.
        path: String,
        /// The whole of its new contents.
        contents: String,
    },
    /// Replaces the one occurrence of the whole lines `old` by the whole lines `new`.
    ///
    /// - Claude: `Edit`, after a `Read` if it asks for one. Codex: an update patch.
    ReplaceLines {
        /// The file.
        path: String,
        /// One or more whole lines, without the last newline.
        old: String,
        /// What stands in their place, without the last newline.
        new: String,
    },
    /// Runs a shell command in the working directory.
    RunCommand(String),
    /// Calls a tool by the name the agent gives it, offered or not.
    CallTool {
        /// The tool's name, such as `Bash` or `exec_command`.
        name: String,
        /// Its input. A string goes to a free-form ("custom") tool as it is.
        input: Value,
        /// Skips the step on the other API.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Api>,
    },
}

/// The two model APIs that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Anthropic's Messages API, as Claude Code uses it.
    Anthropic,
    /// OpenAI's Responses API, as Codex uses it.
    Openai,
}
