//! What is answered, whole and streamed, and which turn.

use lime_scripted_model::{Api, Ending, Fault, RequestKind, Script, ScriptedModel, Turn, Usage};
use serde_json::{Value, json};

use crate::client::{ask, ask_codex, events, joined, messages, post, responses};

fn rich() -> Script {
    let usage = Usage {
        input_tokens: 10,
        cache_read_tokens: 20,
        cache_write_tokens: 30,
        output_tokens: 40,
        reasoning_tokens: 5,
    };
    let turn = Turn::new()
        .think("Let me see whether this is long enough for two.")
        .say("A text of more than one delta, with åäö.")
        .run_command("echo hello from the script")
        .usage(usage);
    Script::new().turn(turn)
}

#[tokio::test]
async fn anthropic_answers_whole() {
    let model = ScriptedModel::start(rich()).unwrap();
    let body: Value = post(&messages(&model), &ask(false)).await.json().await.unwrap();
    assert_eq!(body["content"][0]["type"], "thinking");
    assert_eq!(body["content"][1]["text"], "A text of more than one delta, with åäö.");
    assert_eq!(body["content"][2]["name"], "Bash");
    assert_eq!(body["content"][2]["input"]["command"], "echo hello from the script");
    assert_eq!(body["stop_reason"], "tool_use");
    assert_eq!(body["usage"]["cache_creation_input_tokens"], 30);
    assert_eq!(body["usage"]["output_tokens"], 40);
}

#[tokio::test]
async fn anthropic_streams_the_same() {
    let model = ScriptedModel::start(rich()).unwrap();
    let response = post(&messages(&model), &ask(true)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (events, whole) = events(response).await;
    assert!(whole);
    assert_eq!(events[0]["type"], "message_start");
    assert_eq!(events.last().unwrap()["type"], "message_stop");
    let delta = "content_block_delta";
    assert_eq!(joined(&events, delta, &["delta", "text"]), "A text of more than one delta, with åäö.");
    let input: Value = serde_json::from_str(&joined(&events, delta, &["delta", "partial_json"])).unwrap();
    assert_eq!(input["command"], "echo hello from the script");
    let end = &events[events.len() - 2];
    assert_eq!(
        (&end["delta"]["stop_reason"], &end["usage"]["output_tokens"]),
        (&json!("tool_use"), &json!(40))
    );
}

#[tokio::test]
async fn openai_answers_whole() {
    let model = ScriptedModel::start(rich()).unwrap();
    let body: Value = post(&responses(&model), &ask_codex(false)).await.json().await.unwrap();
    assert_eq!(body["status"], "completed");
    let kinds: Vec<_> = body["output"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    let arguments: Value = serde_json::from_str(body["output"][2]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["cmd"], "echo hello from the script");
    assert_eq!(body["usage"]["input_tokens"], 60);
    assert_eq!(body["usage"]["input_tokens_details"]["cached_tokens"], 20);
    assert_eq!(body["usage"]["output_tokens_details"]["reasoning_tokens"], 5);
    assert_eq!(body["usage"]["total_tokens"], 100);
}

#[tokio::test]
async fn openai_streams_the_same() {
    let model = ScriptedModel::start(rich()).unwrap();
    let (events, whole) = events(post(&responses(&model), &ask_codex(true)).await).await;
    assert!(whole);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
    }
    assert_eq!(events[0]["type"], "response.created");
    let text = joined(&events, "response.output_text.delta", &["delta"]);
    assert_eq!(text, "A text of more than one delta, with åäö.");
    let arguments = joined(&events, "response.function_call_arguments.delta", &["delta"]);
    assert!(arguments.contains("echo hello from the script"));
    let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
    let done: Vec<_> = done.map(|event| event["item"].clone()).collect();
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"], Value::Array(done));
}

#[tokio::test]
async fn the_conversation_tells_the_turn_and_the_script_ends() {
    let script = Script::edit_file("a.txt", "x\n", "Done.").then(Ending::Say("Over.".into()));
    let model = ScriptedModel::start(script).unwrap();
    let mut body = ask(false);
    let mut heard = Vec::new();
    for _ in 0..4 {
        let answer: Value = post(&messages(&model), &body).await.json().await.unwrap();
        let again: Value = post(&messages(&model), &body).await.json().await.unwrap();
        assert_eq!(answer["content"][0]["text"], again["content"][0]["text"], "a retry hears the same");
        heard.push(answer["content"][0]["text"].as_str().unwrap_or("call").to_owned());
        let history = body["messages"].as_array_mut().unwrap();
        history.push(json!({ "role": "assistant", "content": answer["content"] }));
        history.push(json!({ "role": "user", "content": "and then?" }));
    }
    assert_eq!(heard, ["call", "Done.", "Over.", "Over."]);
    let turns: Vec<_> = model.requests().iter().step_by(2).map(|request| request.kind).collect();
    assert_eq!(turns, [0, 1, 2, 3].map(RequestKind::Turn));
}

#[tokio::test]
async fn a_step_that_no_tool_can_do_is_a_plain_error() {
    let model = ScriptedModel::start(Script::edit_file("a", "b\n", "c")).unwrap();
    let body = json!({ "model": "m", "tools": [{ "name": "Ponder" }], "messages": [] });
    let refused = post(&messages(&model), &body).await;
    assert_eq!(refused.status(), 400);
    let text = refused.text().await.unwrap();
    assert!(text.contains("write a file") && text.contains("Ponder"), "{text}");
}

#[tokio::test]
async fn named_calls_fill_the_directory_and_skip_the_other_api() {
    let turn = Turn::new()
        .call_tool_on(Api::Anthropic, "Glob", json!({ "path": "${CWD}/src" }))
        .call_tool_on(Api::Openai, "view_image", json!({ "path": "${CWD}/a.png" }));
    let script = Script { working_dir: Some("/w".into()), ..Script::new().turn(turn) };
    let model = ScriptedModel::start(script).unwrap();
    let body: Value = post(&messages(&model), &ask(false)).await.json().await.unwrap();
    assert_eq!(body["content"].as_array().unwrap().len(), 1);
    assert_eq!(body["content"][0]["input"]["path"], "/w/src");
    let body: Value = post(&responses(&model), &ask(false)).await.json().await.unwrap();
    assert_eq!(body["output"][0]["arguments"], r#"{"path":"/w/a.png"}"#);
}

#[test]
fn a_script_survives_json() {
    let script = rich().turn(Turn::new().fault_first(2, Fault::overloaded())).then(Ending::RepeatLast);
    let json = serde_json::to_string(&script).unwrap();
    assert_eq!(Script::from_json(&json).unwrap(), script);
}

#[tokio::test]
async fn side_requests_use_up_nothing() {
    let script = Script { side_text: "A title".into(), ..Script::text("The answer") };
    let model = ScriptedModel::start(script).unwrap();
    let mut warm_up = ask(false);
    warm_up["max_tokens"] = json!(1);
    let side: Value = post(&messages(&model), &warm_up).await.json().await.unwrap();
    assert_eq!((&side["content"][0]["text"], &side["usage"]["input_tokens"]), (&json!("A title"), &json!(0)));
    let answer: Value = post(&messages(&model), &ask(false)).await.json().await.unwrap();
    assert_eq!(answer["content"][0]["text"], "The answer");
    let kinds: Vec<_> = model.requests().into_iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [RequestKind::Side, RequestKind::Turn(0)]);
}
