//! How the tests ask, and read what they are told.

use lime_scripted_model::ScriptedModel;
use reqwest::{Client, Response};
use serde_json::{Value, json};

pub(crate) async fn post(url: &str, body: &Value) -> Response {
    let request = Client::new().post(url).header("x-api-key", "hush").header("authorization", "Bearer hush");
    request.json(body).send().await.unwrap()
}

pub(crate) fn messages(model: &ScriptedModel) -> String {
    format!("{}/v1/messages?beta=true", model.anthropic_base_url())
}

pub(crate) fn responses(model: &ScriptedModel) -> String {
    format!("{}/responses", model.openai_base_url())
}

/// A request for either API, offering Claude's tools.
pub(crate) fn ask(stream: bool) -> Value {
    json!({ "model": "m", "stream": stream, "max_tokens": 100, "messages": [{ "role": "user", "content": "go" }],
            "input": "go", "tools": [{ "name": "Write" }, { "name": "Bash" }] })
}

/// A request for OpenAI's API, offering a tool of Codex's.
pub(crate) fn ask_codex(stream: bool) -> Value {
    let tools = json!([{ "name": "exec_command", "type": "function" }]);
    json!({ "model": "m", "stream": stream, "input": "go", "tools": tools })
}

/// The payloads of a stream's events, and whether it ended as HTTP wants it to.
pub(crate) async fn events(mut response: Response) -> (Vec<Value>, bool) {
    let mut bytes = Vec::new();
    let whole = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let text = String::from_utf8(bytes).unwrap();
    let payloads = text.lines().filter_map(|line| line.strip_prefix("data: "));
    (payloads.map(|data| serde_json::from_str(data).unwrap()).collect(), whole)
}

pub(crate) fn joined(events: &[Value], kind: &str, field: &[&str]) -> String {
    let of_kind = events.iter().filter(|event| event["type"] == kind);
    of_kind
        .map(|event| field.iter().fold(event, |at, name| &at[*name]).as_str().unwrap_or_default())
        .collect()
}
