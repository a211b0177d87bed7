//! What is refused, what waits, and what is kept.

use std::time::Duration;

use lime_scripted_model::{Fault, RequestKind, Script, ScriptError, ScriptedModel, StartError, Turn};
use reqwest::Client;
use serde_json::{Value, json};

use crate::client::{ask, messages, post, responses};

#[tokio::test]
async fn requests_are_recorded_without_secrets_and_within_limits() {
    let model = ScriptedModel::builder()
        .script("one", Script::text("1"))
        .script("two", Script::text("2"))
        .max_recorded(3)
        .max_body_bytes(1_000)
        .start()
        .unwrap();
    let two = model.endpoint("two").unwrap();
    let answer: Value =
        post(&format!("{}/v1/messages", two.anthropic_base_url), &ask(false)).await.json().await.unwrap();
    assert_eq!(answer["content"][0]["text"], "2");
    let request = model.requests().remove(0);
    assert_eq!((request.script.as_deref(), request.kind), (Some("two"), RequestKind::Turn(0)));
    assert_eq!(
        (request.header("x-api-key"), request.header("authorization")),
        (Some("[redacted]"), Some("[redacted]"))
    );
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/s/two/v1/messages"));
    assert_eq!(request.body["model"], "m");

    let too_large = json!({ "input": "x".repeat(2_000) });
    assert_eq!(post(&responses(&model), &too_large).await.status(), 413);
    assert_eq!(post(&format!("{}/v1/nothing", two.anthropic_base_url), &ask(false)).await.status(), 404);
    let tokens = format!("{}/v1/messages/count_tokens", two.anthropic_base_url);
    let count: Value = post(&tokens, &ask(false)).await.json().await.unwrap();
    assert!(count["input_tokens"].as_u64().unwrap() > 10);
    let probe = Client::new().head(&two.anthropic_base_url).send().await.unwrap();
    assert_eq!(probe.status(), 200);
    assert_eq!(model.request_count(), 5);
    let kinds: Vec<_> = model.requests().into_iter().map(|request| request.kind).collect();
    assert_eq!(kinds, [RequestKind::Other, RequestKind::CountTokens, RequestKind::Other]);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let script = Script::new().turn(Turn::new().say("x").fault_first(1, Fault::Hang { after_deltas: 0 }));
    let model = ScriptedModel::builder().script("main", script).max_connections(1).start().unwrap();
    let hanging = post(&messages(&model), &ask(true)).await;
    let url = messages(&model);
    let mut waiting = tokio::spawn(async move { post(&url, &ask(false)).await.status() });
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut waiting).await.is_err());
    drop(hanging);
    assert_eq!(waiting.await.unwrap(), 200);
}

#[test]
fn what_cannot_be_served_does_not_start() {
    let start = |name: &str, script| ScriptedModel::builder().script(name, script).start();
    assert!(matches!(ScriptedModel::builder().start(), Err(StartError::NoScript)));
    assert!(matches!(start("a/b", Script::new()), Err(StartError::BadName(_))));
    let twice = ScriptedModel::builder().script("a", Script::new()).script("a", Script::new()).start();
    assert!(matches!(twice, Err(StartError::DuplicateName(_))));
    let bad = start("a", Script::failing(Fault::http(200)));
    assert!(matches!(bad, Err(StartError::Script { source: ScriptError::BadFault { turn: 0, .. }, .. })));
    assert!(matches!(Script::from_json(r#"{ "turn": [] }"#), Err(ScriptError::Json(_))));
}
