//! Reads a `POST /v1/responses`.

use serde_json::Value;

use crate::mark::{Mark, next_turn};
use crate::request::{ModelRequest, OfferedTool, elements, texts};
use crate::step::Api;

/// Reads a request.
///
/// - It stands beside the conversation if Codex says so (`request_kind` in its turn metadata is not `turn`).
pub(crate) fn read(body: &Value) -> ModelRequest {
    let input = elements(&body["input"]);
    let mut tools = Vec::new();
    offered(&body["tools"], None, &mut tools);
    // Newer models are offered their tools by an item of the input.
    for item in input.iter().filter(|item| item["type"] == "additional_tools") {
        offered(&item["tools"], None, &mut tools);
    }
    ModelRequest {
        api: Api::Openai,
        model: body["model"].as_str().unwrap_or("scripted").to_owned(),
        streaming: body["stream"].as_bool().unwrap_or(false),
        side: request_kind(body).is_some_and(|kind| kind != "turn"),
        next_turn: next_turn(answers(input)),
        working_dir: working_dir(input),
        tools,
        unread: Vec::new(),
    }
}

fn offered(tools: &Value, namespace: Option<&str>, into: &mut Vec<OfferedTool>) {
    for tool in elements(tools) {
        let Some(name) = tool["name"].as_str() else {
            continue;
        };
        if tool["type"] == "namespace" {
            offered(&tool["tools"], Some(name), into);
        } else {
            into.push(OfferedTool {
                name: name.to_owned(),
                namespace: namespace.map(str::to_owned),
                freeform: tool["type"] == "custom",
            });
        }
    }
}

/// What Codex says the request is for; the metadata is JSON within a string.
fn request_kind(body: &Value) -> Option<String> {
    let metadata = body["client_metadata"]["x-codex-turn-metadata"].as_str()?;
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    Some(metadata["request_kind"].as_str()?.to_owned())
}

/// The last `<cwd>` in the input, since a later turn may have moved.
fn working_dir(input: &[Value]) -> Option<String> {
    input.iter().rev().flat_map(|item| texts(&item["content"])).find_map(|text| {
        let (_, rest) = text.split_once("<cwd>")?;
        let (dir, _) = rest.split_once("</cwd>")?;
        Some(dir.trim().to_owned())
    })
}

/// The marks of the answers so far; items of the model with nothing between them are one answer.
///
/// - Results of parallel calls may stand between the calls: those have the same mark, and count once.
fn answers(input: &[Value]) -> Vec<Option<Mark>> {
    input
        .chunk_by(|one, next| by_model(one) == by_model(next))
        .filter(|run| by_model(&run[0]))
        .map(|run| {
            run.iter()
                .flat_map(|item| [&item["id"], &item["call_id"]])
                .filter_map(|id| id.as_str().and_then(Mark::read))
                .next_back()
        })
        .collect()
}

fn by_model(item: &Value) -> bool {
    let kind = item["type"].as_str().unwrap_or("message");
    kind == "reasoning" || kind.ends_with("_call") || item["role"] == "assistant"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_conversation_tells_its_turn_directory_and_tools() {
        let body = json!({
            "model": "m", "stream": true,
            "tools": [{ "type": "function", "name": "exec_command" }],
            "input": [
                { "type": "additional_tools", "role": "developer", "tools": [
                    { "type": "namespace", "name": "functions", "tools": [{ "type": "custom", "name": "exec" }] }] },
                { "type": "message", "role": "user", "content": [
                    { "type": "input_text", "text": "<environment_context>\n  <cwd>/w</cwd>" }] },
                { "type": "message", "role": "assistant", "id": "msg_lime_0_1", "content": [] },
                { "type": "function_call", "call_id": "call_lime_0_2" },
                { "type": "function_call_output", "call_id": "call_lime_0_2" },
                { "type": "custom_tool_call", "call_id": "call_lime_0_3" },
                { "type": "custom_tool_call_output", "call_id": "call_lime_0_3" }
            ]
        });
        let request = read(&body);
        assert_eq!(request.next_turn, 1);
        assert_eq!(request.working_dir.as_deref(), Some("/w"));
        let exec = request.tool("exec").unwrap();
        assert!(exec.freeform && exec.namespace.as_deref() == Some("functions"));
        assert!(request.tool("exec_command").is_some());
    }

    #[test]
    fn side_requests_are_told_apart() {
        let of_kind = |kind: &str| {
            let metadata = json!({ "request_kind": kind }).to_string();
            read(&json!({ "client_metadata": { "x-codex-turn-metadata": metadata } }))
        };
        assert!(!of_kind("turn").side);
        assert!(of_kind("compaction").side);
        assert!(!read(&json!({})).side);
    }
}
