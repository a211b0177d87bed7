//! What goes wrong, and when.

use std::time::{Duration, Instant};

use lime_scripted_model::{Fault, Script, ScriptedModel, Turn};
use reqwest::Client;
use serde_json::Value;

use crate::client::{ask, events, joined, messages, post, responses};

#[tokio::test]
async fn http_faults_have_status_headers_and_the_api_s_body() {
    let once = Turn::new().say("At last.").fault_first(1, Fault::rate_limited(Duration::from_secs(7)));
    let model = ScriptedModel::start(Script::new().turn(once)).unwrap();
    let refused = post(&messages(&model), &ask(true)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "7");
    assert!(refused.headers().contains_key("request-id"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(post(&messages(&model), &ask(true)).await.status(), 200, "the fault was for the first only");

    for (fault, status, message) in [
        (Fault::unauthorized(), 401, "invalid x-api-key"),
        (Fault::overloaded(), 529, "overloaded"),
        (Fault::http(400), 400, "scripted bad request"),
        (Fault::Quota, 400, "credit balance is too low"),
        (Fault::ContextFull, 400, "prompt is too long"),
    ] {
        let model = ScriptedModel::start(Script::failing(fault)).unwrap();
        let refused = post(&messages(&model), &ask(true)).await;
        assert_eq!(refused.status(), status);
        assert!(refused.text().await.unwrap().contains(message));
    }
}

#[tokio::test]
async fn openai_fails_within_its_stream() {
    for (fault, kind, code) in [
        (Fault::Quota, "response.failed", "/response/error/code=insufficient_quota"),
        (Fault::ContextFull, "response.failed", "/response/error/code=context_length_exceeded"),
        (Fault::Refusal, "response.incomplete", "/response/incomplete_details/reason=content_filter"),
        (Fault::MaxTokens, "response.incomplete", "/response/incomplete_details/reason=max_output_tokens"),
    ] {
        let model = ScriptedModel::start(Script::failing(fault.clone())).unwrap();
        let (events, whole) = events(post(&responses(&model), &ask(true)).await).await;
        let last = events.last().unwrap();
        let (pointer, expected) = code.split_once('=').unwrap();
        assert_eq!((last["type"].as_str(), whole), (Some(kind), true));
        assert_eq!(last.pointer(pointer).unwrap(), expected);
    }
    let model = ScriptedModel::start(Script::failing(Fault::Quota)).unwrap();
    assert_eq!(post(&responses(&model), &ask(false)).await.status(), 429);
}

#[tokio::test]
async fn streams_break_where_the_script_says() {
    let broken = |fault| Script::new().turn(Turn::new().say("onetwo").paced(3, Duration::ZERO).fault(fault));
    for url in [messages, responses] {
        let text = |events: &[Value]| {
            joined(events, "content_block_delta", &["delta", "text"])
                + &joined(events, "response.output_text.delta", &["delta"])
        };
        let model = ScriptedModel::start(broken(Fault::Cut { after_deltas: 1 })).unwrap();
        let (cut, whole) = events(post(&url(&model), &ask(true)).await).await;
        assert_eq!((text(&cut).as_str(), whole), ("one", false));
        let unstreamed = post(&url(&model), &ask(false)).await;
        assert!(unstreamed.bytes().await.is_err());

        let fault = Fault::ErrorEvent { message: "scripted".into(), after_deltas: 9 };
        let model = ScriptedModel::start(broken(fault)).unwrap();
        let (failed, whole) = events(post(&url(&model), &ask(true)).await).await;
        assert_eq!((text(&failed).as_str(), whole), ("onetwo", true));
        let last = failed.last().unwrap();
        assert!(last["type"] == "error" || last["type"] == "response.failed");
        assert_eq!(post(&url(&model), &ask(false)).await.status(), 500);
    }
}

#[tokio::test]
async fn a_hang_lasts_until_the_server_goes() {
    let turn = Turn::new().say("onetwo").paced(3, Duration::ZERO).fault(Fault::Hang { after_deltas: 1 });
    let model = ScriptedModel::start(Script::new().turn(turn)).unwrap();
    let response = post(&messages(&model), &ask(true)).await;
    let mut hanging = tokio::spawn(events(response));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut hanging).await.is_err());
    let url = messages(&model);
    drop(model);
    let (events, whole) = hanging.await.unwrap();
    assert_eq!((joined(&events, "content_block_delta", &["delta", "text"]).as_str(), whole), ("one", false));
    assert!(Client::new().post(url).send().await.is_err(), "the port is free again");
}

#[tokio::test]
async fn delays_are_kept() {
    let turn = Turn::new().say("abc").after(Duration::from_millis(100)).paced(1, Duration::from_millis(50));
    let model = ScriptedModel::start(Script::new().turn(turn)).unwrap();
    let began = Instant::now();
    let response = post(&messages(&model), &ask(true)).await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    events(response).await;
    assert!(began.elapsed() >= Duration::from_millis(250));
}
