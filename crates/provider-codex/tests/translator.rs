//! The translator on lines that no recording has.

use chrono::DateTime;
use lime_core::governance::PriceTable;
use lime_core::runs::{AgentEvent, FailureKind, Outcome, ToolStatus};
use lime_provider_codex::{Exit, Translator};
use serde_json::json;

fn translator() -> Translator {
    Translator::new(PriceTable::shipped())
}

fn opened() -> Translator {
    let mut translator = translator();
    translator.line(&json!({ "id": 2, "result": { "thread": { "id": "t" }, "model": "gpt-5" } }).to_string());
    translator
}

fn turn(word: &str, thread: &str, status: &str) -> String {
    let turn = json!({ "id": "u", "status": status });
    json!({ "method": format!("turn/{word}"), "params": { "threadId": thread, "turn": turn } }).to_string()
}

fn used(thread: &str, tokens: u64) -> String {
    let total = json!({ "inputTokens": tokens, "cachedInputTokens": 0, "outputTokens": tokens });
    let params = json!({ "threadId": thread, "turnId": "u", "tokenUsage": { "total": total } });
    json!({ "method": "thread/tokenUsage/updated", "params": params }).to_string()
}

#[test]
fn a_key_that_comes_twice_is_no_error() {
    let line =
        r#"{"type":"item.completed","item":{"id":"item_1","type":"web_search","id":"ws_1","query":"rust"}}"#;
    let events = translator().line(line);
    let [AgentEvent::Tool { call_id, name, status, input, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((call_id.as_str(), name.as_str(), *status), ("ws_1", "web_search", ToolStatus::Completed));
    assert_eq!(input.as_ref().map(|input| &input["query"]), Some(&json!("rust")));
}

#[test]
fn what_a_thread_had_before_is_not_counted() {
    let mut translator = opened();
    assert_eq!(translator.line(&used("t", 1_000)), []);
    translator.line(&turn("started", "t", "inProgress"));
    let events = translator.line(&used("t", 1_010));
    assert!(matches!(&events[..], [AgentEvent::Usage(usage)] if usage.input_tokens == 10), "{events:?}");
    assert_eq!(translator.line(&used("t", 1_010)), [], "told twice is not used twice");
    translator.line(&turn("completed", "t", "completed"));
    let usage = translator.finish(&Exit::default()).usage;
    assert_eq!((usage.turns, usage.input_tokens, usage.output_tokens), (1, 10, 10));
}

#[test]
fn a_sub_agents_end_is_not_the_runs() {
    let mut translator = opened();
    translator.line(&turn("started", "t", "inProgress"));
    translator.line(&turn("completed", "other", "completed"));
    let exit = Exit { code: Some(0), ..Exit::default() };
    let report = translator.finish(&exit);
    assert!(
        matches!(&report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Crashed),
        "{report:?}"
    );
}

#[test]
fn a_limit_of_the_account_is_told_once_and_says_until_when() {
    let mut translator = opened();
    let limits = |reached: &str| {
        let limits = json!({
            "primary": { "usedPercent": 100, "resetsAt": 1_800_000_000 },
            "secondary": { "usedPercent": 20, "resetsAt": 1_900_000_000 },
            "rateLimitReachedType": if reached.is_empty() { json!(null) } else { json!(reached) },
        });
        json!({ "method": "account/rateLimits/updated", "params": { "rateLimits": limits } }).to_string()
    };
    assert_eq!(translator.line(&limits("")), []);
    let events = translator.line(&limits("workspace_member_usage_limit_reached"));
    assert!(
        matches!(&events[..], [AgentEvent::Error { kind: Some(FailureKind::QuotaExceeded), .. }]),
        "{events:?}"
    );
    assert_eq!(translator.line(&limits("workspace_member_usage_limit_reached")), []);
    let error = json!({ "message": "You've hit your usage limit.", "codexErrorInfo": "usageLimitExceeded" });
    let turn = json!({ "id": "u", "status": "failed", "error": error });
    translator.line(
        &json!({ "method": "turn/completed", "params": { "threadId": "t", "turn": turn } }).to_string(),
    );
    let Outcome::Failed(failure) = translator.finish(&Exit::default()).outcome else {
        panic!("the turn has failed");
    };
    assert_eq!(failure.kind, FailureKind::QuotaExceeded);
    assert_eq!(failure.retry_at, DateTime::from_timestamp(1_800_000_000, 0));
}

#[test]
fn a_declined_call_is_denied() {
    let mut translator = opened();
    let item = json!({ "type": "fileChange", "id": "p", "status": "declined",
        "changes": [{ "path": "/etc/x", "kind": { "type": "update", "move_path": "/etc/y" }, "diff": "d" }] });
    let events =
        translator.line(&json!({ "method": "item/completed", "params": { "item": item } }).to_string());
    let [AgentEvent::Tool { status: ToolStatus::Denied, input: Some(input), .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(input["changes"][0]["movedTo"], "/etc/y");
    let report = translator.finish(&Exit::default());
    assert_eq!(report.denials.len(), 1);
    assert_eq!((report.denials[0].call_id.as_str(), report.denials[0].tool.as_str()), ("p", "apply_patch"));
}

#[test]
fn how_the_program_ended_decides_where_the_turn_did_not() {
    let finish = |exit: Exit| translator().finish(&exit).outcome;
    let signal = |signal| Exit { signal: Some(signal), ..Exit::default() };
    for asked in [1, 2, 15] {
        assert_eq!(finish(signal(asked)), Outcome::Cancelled, "signal {asked}");
    }
    let told = |outcome: Outcome| match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(finish(signal(9))).kind, FailureKind::Crashed);
    let code = |code, stderr: &str| Exit { code: Some(code), signal: None, stderr: stderr.to_owned() };
    assert_eq!(
        told(finish(code(1, "Error: invalid type: string \"x\", expected a boolean"))).kind,
        FailureKind::InvalidRequest
    );
    assert_eq!(
        told(finish(code(1, "Error: no rollout found for thread id x"))).kind,
        FailureKind::SessionGone
    );
    let crash = told(finish(code(101, "\u{1b}[31mthread panicked\u{1b}[0m")));
    assert_eq!(
        crash.message,
        "Codex ended without a result: exit code 101. Look at the worker's log, then run it again."
    );
    let report = translator().finish(&code(101, "\u{1b}[31mthread panicked\u{1b}[0m"));
    assert_eq!(report.diagnostics.as_deref(), Some("exit code 101\nthread panicked"));
}

#[test]
fn a_plan_is_told_when_it_changes() {
    let mut translator = opened();
    let plan = |status: &str| {
        let steps = json!([{ "step": "look", "status": "completed" }, { "step": "mend", "status": status }]);
        json!({ "method": "turn/plan/updated", "params": { "plan": steps } }).to_string()
    };
    let log = |text: &str| vec![AgentEvent::Log { text: text.to_owned() }];
    assert_eq!(translator.line(&plan("inProgress")), log("[x] look\n[>] mend"));
    assert_eq!(translator.line(&plan("inProgress")), []);
    assert_eq!(translator.line(&plan("pending")), log("[x] look\n[ ] mend"));
}
