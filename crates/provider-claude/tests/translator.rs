//! What no recording shows, line by line through the translator.

use std::time::Duration;

use lime_core::Micros;
use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, FailureKind, Limit, Outcome, ToolStatus, Usage};
use lime_provider_claude::{ExitFacts, Translator};
use serde_json::{Value, json};

/// Plays lines 1 ms apart, without an exit code.
fn play(lines: &[Value]) -> (Vec<AgentEvent>, SessionReport) {
    let mut translator = Translator::new();
    let mut events = Vec::new();
    for (at, line) in (0..).zip(lines) {
        events.extend(translator.line(&line.to_string(), Duration::from_millis(at)));
    }
    events.extend(translator.close(Duration::from_secs(1)));
    (events, translator.finish(&ExitFacts::default()))
}

fn start(id: &str, input: u64) -> Value {
    let message = json!({ "id": id, "usage": { "input_tokens": input, "cache_read_input_tokens": 3, "output_tokens": 1 } });
    json!({ "type": "stream_event", "event": { "type": "message_start", "message": message } })
}

fn block(id: &str, parent: &Value, block: &Value) -> Value {
    let usage = json!({ "input_tokens": 10, "cache_read_input_tokens": 3, "output_tokens": 1 });
    let message = json!({ "id": id, "model": "m", "usage": usage, "content": [block] });
    json!({ "type": "assistant", "message": message, "parent_tool_use_id": parent })
}

fn end(output: u64) -> Value {
    json!({ "type": "stream_event", "event": { "type": "message_delta", "usage": { "output_tokens": output } } })
}

fn failed(lines: &[Value]) -> (FailureKind, String, bool) {
    match play(lines).1.outcome {
        Outcome::Failed(failure) => (failure.kind, failure.message, failure.retry_at.is_some()),
        other => panic!("it did not fail: {other:?}"),
    }
}

#[test]
fn tokens_are_counted_once_and_grow() {
    let text = |id| block(id, &Value::Null, &json!({ "type": "text", "text": "x" }));
    let of_sub_agent = block("b", &json!("call"), &json!({ "type": "text", "text": "y" }));
    let (events, report) =
        play(&[start("a", 10), text("a"), of_sub_agent, text("a"), end(20), start("c", 10)]);
    let usage: Vec<&Usage> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Usage(usage) => Some(usage),
            _ => None,
        })
        .collect();
    // Messages a and b, their cached tokens included; the end of a, and not of b, is known.
    let expected = Usage {
        turns: 2,
        input_tokens: 26,
        cached_input_tokens: 6,
        cache_write_tokens: 0,
        output_tokens: 21,
        cost: None,
    };
    assert_eq!(usage, [&expected]);
    assert_eq!((report.usage.turns, report.usage.input_tokens), (3, 39));
}

#[test]
fn the_result_replaces_the_count() {
    let models = json!({
        "one": { "inputTokens": 5, "cacheReadInputTokens": 2, "cacheCreationInputTokens": 1, "outputTokens": 4 },
        "two": { "inputTokens": 1 },
    });
    let result = json!({
        "type": "result", "subtype": "success", "is_error": false, "num_turns": 1,
        "total_cost_usd": 0.012629999999999999, "modelUsage": models,
    });
    let (_, report) = play(&[start("a", 1_000), end(20), result]);
    let expected = Usage {
        turns: 1,
        input_tokens: 9,
        cached_input_tokens: 2,
        cache_write_tokens: 1,
        output_tokens: 4,
        cost: Some(Micros(12_630)),
    };
    assert_eq!(report.usage, expected);
}

#[test]
fn a_sub_agent_is_not_taken_for_the_agent() {
    let delta = json!({
        "type": "stream_event", "parent_tool_use_id": "call",
        "event": { "type": "content_block_delta", "delta": { "type": "text_delta", "text": "psst" } },
    });
    let told = json!({
        "type": "user", "parent_tool_use_id": "call",
        "message": { "content": [{ "type": "text", "text": "look around" }] },
    });
    let said = block("b", &json!("call"), &json!({ "type": "text", "text": "I looked." }));
    let (events, _) = play(&[told, delta, said]);
    let expected = AgentEvent::Log { text: "A sub-agent says: I looked.".to_owned() };
    assert_eq!(events, [expected]);
}

#[test]
fn a_call_that_was_decided_against_is_denied() {
    let call =
        block("a", &Value::Null, &json!({ "type": "tool_use", "id": "c1", "name": "Bash", "input": {} }));
    let decision = json!([{ "id": "c1", "permission_decision": { "decision": "reject" } }]);
    let answer = json!({
        "type": "user", "tool_result_meta": decision,
        "message": { "content": [{ "type": "tool_result", "tool_use_id": "c1", "is_error": true, "content": "no" }] },
    });
    let (events, report) = play(&[call, answer]);
    let ended = AgentEvent::Tool {
        call_id: "c1".to_owned(),
        name: "Bash".to_owned(),
        status: ToolStatus::Denied,
        input: None,
        output: Some("no".to_owned()),
        duration_ms: Some(1),
    };
    assert_eq!(events.last(), Some(&ended));
    assert_eq!(report.denials[0].call_id, "c1");
}

#[test]
fn results_of_tools_are_text() {
    let content = json!([{ "type": "text", "text": "a" }, { "type": "image", "source": {} }, "b"]);
    let answer = json!({ "type": "tool_result", "tool_use_id": "c1", "content": content });
    let (events, _) = play(&[json!({ "type": "user", "message": { "content": [answer] } })]);
    assert!(matches!(&events[0], AgentEvent::Tool { output: Some(text), .. } if text == "a\n[image]\n\"b\""));
}

#[test]
fn a_plan_that_is_used_up_says_when_to_come_back() {
    let limit = json!({ "type": "rate_limit_event", "rate_limit_info": { "status": "rejected", "resetsAt": 1_795_300_000 } });
    let result = json!({
        "type": "result", "subtype": "success", "is_error": true, "api_error_status": 429,
        "result": "You've hit your session limit · resets 3pm",
    });
    let (kind, message, comes_back) = failed(&[limit, result]);
    assert_eq!((kind, comes_back), (FailureKind::QuotaExceeded, true));
    assert!(message.contains("session limit"), "{message}");
}

#[test]
fn the_error_flag_decides_and_not_the_subtype() {
    let result = |subtype: &str, is_error: Value| json!({ "type": "result", "subtype": subtype, "is_error": is_error, "result": "words", "errors": ["odd"] });
    let (kind, message, _) = failed(&[result("success", json!(true))]);
    assert_eq!(kind, FailureKind::Crashed);
    assert!(message.contains("words"), "{message}");
    let good = play(&[result("novel_ending", json!(false))]).1.outcome;
    assert!(matches!(good, Outcome::Succeeded { .. }));
    assert_eq!(failed(&[result("error_during_execution", Value::Null)]).0, FailureKind::Crashed);
    let limited = play(&[result("error_max_turns", json!(true))]).1.outcome;
    assert_eq!(limited, Outcome::Limited(Limit::Turns));
}

#[test]
fn what_is_new_is_kept_as_it_came() {
    let lines = [
        json!({ "type": "hologram" }),
        json!({ "type": "system", "subtype": "hologram" }),
        json!({ "no": "type" }),
        json!(7),
    ];
    let (events, _) = play(&lines);
    assert_eq!(events, lines.map(AgentEvent::Unknown));
}

#[test]
fn without_a_result_the_end_of_the_process_tells() {
    let ended = |code, signal| {
        let exit = ExitFacts { code, signal, ..ExitFacts::default() };
        Translator::new().finish(&exit).outcome
    };
    assert_eq!(ended(None, Some(15)), Outcome::Cancelled);
    assert_eq!(ended(Some(130), None), Outcome::Cancelled);
    for (code, signal) in [(Some(0), None), (Some(1), None), (None, Some(9)), (None, None)] {
        let outcome = ended(code, signal);
        assert!(
            matches!(&outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Crashed),
            "{outcome:?}"
        );
    }
}
