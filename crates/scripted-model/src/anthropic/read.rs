//! Reads a `POST /v1/messages`.

use serde_json::Value;

use crate::mark::{Mark, next_turn};
use crate::request::{ModelRequest, OfferedTool, UnreadFile, elements, texts};
use crate::step::Api;

/// How the CLI words a `Write` or `Edit` of a file it has not read.
const UNREAD: &str = "has not been read yet";

/// Reads a request.
///
/// - It stands beside the conversation if it asks for one token (a warm-up), or if Claude Code sends it
///   without tools and without naming its working directory (a title, a summary).
pub(crate) fn read(body: &Value, user_agent: &str) -> ModelRequest {
    let messages = elements(&body["messages"]);
    let tools = offered(&body["tools"]);
    let working_dir = working_dir(body);
    let warm_up = body["max_tokens"].as_u64() == Some(1);
    let bare = tools.is_empty() && working_dir.is_none();
    ModelRequest {
        api: Api::Anthropic,
        model: body["model"].as_str().unwrap_or("scripted").to_owned(),
        streaming: body["stream"].as_bool().unwrap_or(false),
        side: warm_up || (bare && user_agent.starts_with("claude-cli/")),
        next_turn: next_turn(answers(messages)),
        working_dir,
        tools,
        unread: unread(messages),
    }
}

/// Guesses a request's tokens at four bytes each.
pub(crate) fn count_tokens(body_bytes: usize) -> Value {
    serde_json::json!({ "input_tokens": body_bytes.div_ceil(4) })
}

fn offered(tools: &Value) -> Vec<OfferedTool> {
    elements(tools)
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .map(|name| OfferedTool { name: name.to_owned(), namespace: None, freeform: false })
        .collect()
}

/// Finds the line that names the working directory, in the system prompt or in a message.
fn working_dir(body: &Value) -> Option<String> {
    let messages = elements(&body["messages"]).iter().map(|message| &message["content"]);
    std::iter::once(&body["system"]).chain(messages).flat_map(texts).find_map(|text| {
        text.lines().find_map(|line| {
            let line = line.trim_start_matches([' ', '-']);
            let dir = line
                .strip_prefix("Primary working directory: ")
                .or_else(|| line.strip_prefix("Working directory: "))?;
            dir.starts_with('/').then(|| dir.trim_end().to_owned())
        })
    })
}

/// The marks of the answers so far; assistant messages with nothing between them are one answer.
fn answers(messages: &[Value]) -> Vec<Option<Mark>> {
    messages
        .chunk_by(|one, next| one["role"] == next["role"])
        .filter(|run| run[0]["role"] == "assistant")
        .map(|run| {
            let blocks = run.iter().flat_map(|message| elements(&message["content"]));
            blocks.filter_map(|block| block["id"].as_str()).filter_map(Mark::read).next_back()
        })
        .collect()
}

/// Finds the calls of ours that the last results refuse because a file was not read.
fn unread(messages: &[Value]) -> Vec<UnreadFile> {
    let mut runs = messages.chunk_by(|one, next| one["role"] == next["role"]).rev();
    let (Some(results), Some(calls)) = (runs.next(), runs.next()) else {
        return Vec::new();
    };
    let calls: Vec<_> = calls.iter().flat_map(|message| elements(&message["content"])).collect();
    let refused =
        |result: &&Value| result["is_error"] == true && result["content"].to_string().contains(UNREAD);
    let results = results.iter().flat_map(|message| elements(&message["content"])).filter(refused);
    results.filter_map(|result| unread_file(result["tool_use_id"].as_str()?, &calls)).collect()
}

/// Finds what a refused call wanted; `None` if its file was read beside it, for it would be refused for ever.
fn unread_file(id: &str, calls: &[&Value]) -> Option<UnreadFile> {
    let turn = Mark::read(id)?.turn;
    let call = calls.iter().find(|block| block["id"] == id)?;
    let path = call["input"]["file_path"].as_str()?;
    if calls.iter().any(|block| block["name"] == "Read" && block["input"]["file_path"] == path) {
        return None;
    }
    Some(UnreadFile {
        turn,
        path: path.to_owned(),
        tool: call["name"].as_str()?.to_owned(),
        input: call["input"].clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversation_tells_its_turn_and_directory() {
        let body = json!({
            "model": "m", "max_tokens": 100, "stream": true,
            "system": [{ "type": "text", "text": "x\n# Environment\n - Primary working directory: /a b/c\n - y" }],
            "tools": [{ "name": "Write" }],
            "messages": [
                { "role": "user", "content": "go" },
                { "role": "assistant", "content": [{ "type": "tool_use", "id": "toolu_lime_0_0", "name": "Write", "input": {} }] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "toolu_lime_0_0", "content": "ok" }] },
                { "role": "assistant", "content": [{ "type": "text", "text": "done" }] },
                { "role": "user", "content": "more" }
            ]
        });
        let request = read(&body, "claude-cli/2.1.197");
        assert_eq!(request.next_turn, 2);
        assert_eq!(request.working_dir.as_deref(), Some("/a b/c"));
        assert_eq!(request.absolute("./d.txt"), "/a b/c/d.txt");
        assert!(!request.side && request.streaming && request.unread.is_empty());
    }

    #[test]
    fn side_requests_are_told_apart() {
        let title = json!({ "model": "claude-haiku-4-5", "max_tokens": 512, "messages": [] });
        assert!(read(&title, "claude-cli/2.1.197").side);
        assert!(!read(&title, "my-agent/1").side, "another client may well offer no tools");
        assert!(read(&json!({ "max_tokens": 1, "tools": [{ "name": "Bash" }] }), "x").side);
    }

    #[test]
    fn a_refused_write_is_found_once() {
        let call = json!({ "type": "tool_use", "id": "toolu_lime_4_9", "name": "Write",
                           "input": { "file_path": "/r/a", "content": "x" } });
        let refusal = json!({ "role": "user", "content": [{ "type": "tool_result", "is_error": true,
            "tool_use_id": "toolu_lime_4_9", "content": "<tool_use_error>File has not been read yet.</tool_use_error>" }] });
        let body = json!({ "messages": [{ "role": "assistant", "content": [call] }, refusal] });
        let unread = read(&body, "").unread.remove(0);
        assert_eq!((unread.turn, unread.path.as_str(), unread.tool.as_str()), (4, "/r/a", "Write"));

        let reading = json!({ "type": "tool_use", "id": "toolu_lime_4_8", "name": "Read", "input": { "file_path": "/r/a" } });
        let body = json!({ "messages": [{ "role": "assistant", "content": [reading, call] }, refusal] });
        assert_eq!(read(&body, "").unread, []);
    }
}
