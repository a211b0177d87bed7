use super::*;

fn task(resume: Option<&str>) -> Task {
    Task {
        prompt: "Do it.".into(),
        instructions: "Be brief.".into(),
        model: None,
        resume: resume.map(str::to_owned),
        workdir: "repo".into(),
        sandbox: "read-only",
        gated: false,
    }
}

fn turn(id: &str) -> Json {
    json!({ "threadId": "t", "turn": { "id": id, "status": "inProgress" } })
}

fn notice(method: &str, params: Json) -> Incoming {
    Incoming::Notification { method: method.into(), params }
}

/// A dialogue whose first turn, `u`, runs.
fn running() -> Dialogue {
    let (mut dialogue, _) = Dialogue::open(task(None));
    dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
    dialogue.hear(&answer(START_TURN, turn("u")));
    dialogue.hear(&notice("turn/started", turn("u")));
    dialogue
}

fn answer(id: u64, result: Json) -> Incoming {
    Incoming::Response { id: json!(id), answer: Ok(result) }
}

fn methods(said: &[Outgoing]) -> Vec<&str> {
    said.iter()
        .filter_map(|message| match message {
            Outgoing::Request { method, .. } | Outgoing::Notification { method } => Some(*method),
            Outgoing::Answer { .. } | Outgoing::Refusal { .. } => None,
        })
        .collect()
}

#[test]
fn a_new_thread_is_started_with_the_instructions() {
    let (mut dialogue, _) = Dialogue::open(task(None));
    let said = dialogue.hear(&answer(INITIALIZE, json!({})));
    assert_eq!(methods(&said), ["initialized", "thread/start"]);
    let Outgoing::Request { params, .. } = &said[1] else {
        panic!("{said:?}");
    };
    assert_eq!(params["developerInstructions"], "Be brief.");
    let said = dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
    assert_eq!(methods(&said), ["turn/start"]);
    assert_eq!(dialogue.interrupt(), None);
    dialogue.hear(&answer(START_TURN, json!({ "turn": { "id": "u", "status": "inProgress" } })));
    assert!(dialogue.is_under_way() && !dialogue.was_refused());
    assert_eq!(methods(&dialogue.interrupt().into_iter().collect::<Vec<_>>()), ["turn/interrupt"]);
    assert_eq!(dialogue.interrupt(), None);
}

#[test]
fn a_resumed_thread_is_told_the_instructions_anew() {
    let (mut dialogue, _) = Dialogue::open(task(Some("t")));
    let said = dialogue.hear(&answer(INITIALIZE, json!({})));
    assert_eq!(methods(&said), ["initialized", "thread/resume"]);
    let said = dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
    assert_eq!(methods(&said), ["thread/inject_items", "turn/start"]);
}

#[test]
fn a_sub_agents_turn_is_not_taken_for_ours() {
    let (mut dialogue, _) = Dialogue::open(task(None));
    dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
    dialogue.hear(&Incoming::Notification {
        method: "turn/started".into(),
        params: json!({ "threadId": "other", "turn": { "id": "x", "status": "inProgress" } }),
    });
    assert!(!dialogue.is_under_way());
}

#[test]
fn a_refused_call_is_noticed() {
    let (mut dialogue, _) = Dialogue::open(task(None));
    let refusal = RpcError { code: -32600, message: "no".into() };
    dialogue.hear(&Incoming::Response { id: json!(OPEN_THREAD), answer: Err(refusal) });
    assert!(dialogue.was_refused());
}

#[test]
fn a_message_to_the_turn_that_runs_is_answered_by_its_end() {
    let mut dialogue = running();
    let Some(Outgoing::Request { id, method, params }) = dialogue.send("More.") else { panic!() };
    assert_eq!((method, params["input"][0]["text"].as_str()), ("turn/start", Some("More.")));
    assert!(is_message(&json!(id)) && !is_message(&json!(START_TURN)));
    dialogue.hear(&notice("turn/completed", turn("u")));
    assert!(dialogue.is_unanswered(), "nobody has said which turn it is in");
    dialogue.hear(&answer(id, turn("u")));
    assert!(!dialogue.is_unanswered());
}

#[test]
fn a_message_after_the_turn_begins_another() {
    let mut dialogue = running();
    let Some(Outgoing::Request { id, .. }) = dialogue.send("More.") else { panic!() };
    dialogue.hear(&notice("turn/completed", turn("u")));
    dialogue.hear(&answer(id, turn("v")));
    assert!(dialogue.is_unanswered());
    dialogue.hear(&notice("turn/completed", turn("v")));
    assert!(!dialogue.is_unanswered());
}

#[test]
fn a_message_that_is_not_taken_is_not_waited_for() {
    let mut dialogue = running();
    let Some(Outgoing::Request { id, .. }) = dialogue.send("More.") else { panic!() };
    dialogue.hear(&notice("turn/completed", turn("u")));
    let refusal = RpcError { code: -32600, message: "no".into() };
    dialogue.hear(&Incoming::Response { id: json!(id), answer: Err(refusal) });
    assert!(!dialogue.is_unanswered() && !dialogue.was_refused());
}

#[test]
fn a_message_before_there_is_a_thread_waits_for_it() {
    let (mut dialogue, _) = Dialogue::open(task(None));
    assert_eq!(dialogue.send("And this."), None);
    let said = dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
    let texts: Vec<&str> = said
        .iter()
        .filter_map(|message| match message {
            Outgoing::Request { params, .. } => params["input"][0]["text"].as_str(),
            _ => None,
        })
        .collect();
    assert_eq!(texts, ["Do it.", "And this."]);
}

#[test]
fn the_gate_is_trusted_before_a_thread_is_opened() {
    let hooks = |status: &str| {
        let hook = json!({
            "key": "config.toml:pre_tool_use:0:0", "eventName": "preToolUse", "source": "user", "enabled": true,
            "command": "/bin/sh \"$CODEX_HOME/ask\"", "currentHash": "sha256:1", "trustStatus": status,
        });
        json!({ "data": [{ "cwd": "repo", "hooks": [hook] }] })
    };
    let gated = || Dialogue::open(Task { gated: true, ..task(None) }).0;
    let mut dialogue = gated();
    assert_eq!(methods(&dialogue.hear(&answer(INITIALIZE, json!({})))), ["initialized", "hooks/list"]);
    let said = dialogue.hear(&answer(FIND_GATE, hooks("untrusted")));
    let [Outgoing::Request { params, .. }] = &said[..] else { panic!("{said:?}") };
    let trusted = &params["edits"][0]["value"]["config.toml:pre_tool_use:0:0"]["trusted_hash"];
    assert_eq!(trusted, "sha256:1");
    assert_eq!(methods(&dialogue.hear(&answer(TRUST_GATE, json!({})))), ["hooks/list"]);
    assert_eq!(methods(&dialogue.hear(&answer(CHECK_GATE, hooks("trusted")))), ["thread/start"]);
    assert!(!dialogue.is_ungated());

    for broken in [json!({}), json!({ "data": [] }), hooks("modified")] {
        let mut dialogue = gated();
        dialogue.hear(&answer(CHECK_GATE, broken));
        assert!(dialogue.is_ungated());
    }
}
