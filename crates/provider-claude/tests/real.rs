//! The real CLI against a scripted model on loopback. `LIME_CLAUDE_BIN` names it; without it, the tests are skipped.

#![allow(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use lime_core::governance::{Allowlist, ToolLayer, ToolPattern};
use lime_core::ports::{AgentProvider, AgentSession, SessionReport, SessionSpec, ToolAnswer};
use lime_core::runs::{AgentEvent, AgentMode, FailureKind, Limit, Outcome, ToolStatus};
use lime_provider_claude::ClaudeProvider;
use lime_scripted_model::{Ending, Fault, Script, ScriptedModel, Turn, Usage};
use processes::marked;
use run::{all, processes_left, spec, until, with_env};
use serde_json::json;
use tempfile::TempDir;

const MODEL: &str = "claude-sonnet-4-5";

/// A worker with the real CLI, a home of its own, an empty repository, and a scripted model.
struct Stage {
    binary: PathBuf,
    home: TempDir,
    repository: TempDir,
    model: ScriptedModel,
}

impl Stage {
    fn set(script: Script) -> Option<Self> {
        let Some(binary) = std::env::var_os("LIME_CLAUDE_BIN") else {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "skipped: LIME_CLAUDE_BIN names no Claude Code").unwrap();
            return None;
        };
        let repository = TempDir::new().unwrap();
        let made = Command::new("git").args(["init", "-q"]).current_dir(repository.path()).status();
        assert!(made.unwrap().success());
        Some(Self {
            binary: binary.into(),
            home: TempDir::new().unwrap(),
            repository,
            model: ScriptedModel::start(script).unwrap(),
        })
    }

    fn provider(&self, key: Option<&str>) -> ClaudeProvider {
        let builder = ClaudeProvider::builder()
            .binary(&self.binary)
            .base_url(self.model.anthropic_base_url())
            .model(MODEL)
            .max_retries(1)
            .pass("HOME", self.home.path().to_string_lossy())
            .pass("PATH", "/usr/local/bin:/usr/bin:/bin");
        match key {
            Some(key) => builder.api_key(key).build(),
            None => builder.build(),
        }
    }

    fn spec(&self, mode: AgentMode) -> SessionSpec {
        spec(self.repository.path(), mode, "Do what the script says.")
    }

    async fn run(&self, spec: SessionSpec) -> (Vec<AgentEvent>, SessionReport) {
        let mut session = self.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
        let events = all(&mut session).await;
        (events, session.report().await)
    }

    /// The statuses of a tool's calls, in order.
    fn calls(events: &[AgentEvent], tool: &str) -> Vec<ToolStatus> {
        events
            .iter()
            .filter_map(|event| match event {
                AgentEvent::Tool { name, status, .. } if name == tool => Some(*status),
                _ => None,
            })
            .collect()
    }
}

fn failure(report: &SessionReport) -> FailureKind {
    match &report.outcome {
        Outcome::Failed(failure) => failure.kind,
        other => panic!("it did not fail: {other:?}"),
    }
}

#[tokio::test]
async fn a_file_is_written() {
    let Some(stage) = Stage::set(Script::edit_file("greeting.txt", "hello\n", "I wrote it.")) else {
        return;
    };
    // Neither the repository's hooks nor the user's instructions are taken.
    fs::create_dir(stage.repository.path().join(".claude")).unwrap();
    let hook = json!({ "hooks": [{ "type": "command", "command": "touch hooked" }] });
    let settings = json!({ "hooks": { "SessionStart": [hook] } });
    fs::write(stage.repository.path().join(".claude/settings.json"), settings.to_string()).unwrap();
    fs::create_dir(stage.home.path().join(".claude")).unwrap();
    fs::write(stage.home.path().join(".claude/CLAUDE.md"), "MARK-OF-THE-USER").unwrap();
    let mut spec = stage.spec(AgentMode::Implement);
    spec.instructions = format!("MARK-OF-THE-FACTORY {}", "x".repeat(200_000));

    let (events, report) = stage.run(spec).await;
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("I wrote it.".to_owned()) }, "{report:?}");
    let written = fs::read_to_string(stage.repository.path().join("greeting.txt")).unwrap();
    assert_eq!(written, "hello\n");
    assert_eq!(Stage::calls(&events, "Write"), [ToolStatus::Started, ToolStatus::Completed]);
    assert!(events.iter().any(|event| matches!(event, AgentEvent::Delta { .. })));
    assert!(!events.iter().any(|event| matches!(event, AgentEvent::Unknown(_))), "{events:?}");
    assert!(
        matches!(&events[0], AgentEvent::Session { session_id, .. } if Some(session_id) == report.session_id.as_ref())
    );
    assert_eq!((report.usage.turns, report.usage.output_tokens), (2, 20));
    assert!(report.usage.cost.is_some());
    assert!(!stage.repository.path().join("hooked").exists());
    let asked: String = stage.model.requests().iter().map(|request| request.body.to_string()).collect();
    assert!(asked.contains("MARK-OF-THE-FACTORY") && !asked.contains("MARK-OF-THE-USER"));
}

#[tokio::test]
async fn what_is_not_allowed_is_denied() {
    let outside = TempDir::new().unwrap();
    let path = outside.path().join("outside.txt");
    let write = json!({ "file_path": path, "content": "x" });
    let script = Script::new()
        .turn(Turn::new().call_tool("Write", write))
        .turn(Turn::new().call_tool("WebFetch", json!({ "url": "http://127.0.0.1:9/", "prompt": "x" })))
        .turn(Turn::new().call_tool("Bash", json!({ "command": "touch made", "description": "x" })));
    let Some(stage) = Stage::set(script) else { return };
    let (events, report) = stage.run(stage.spec(AgentMode::Implement)).await;
    assert_eq!(Stage::calls(&events, "Write"), [ToolStatus::Started, ToolStatus::Denied]);
    assert_eq!(Stage::calls(&events, "WebFetch"), [ToolStatus::Started, ToolStatus::Denied]);
    assert_eq!(Stage::calls(&events, "Bash"), [ToolStatus::Started, ToolStatus::Completed]);
    assert!(!path.exists() && stage.repository.path().join("made").exists());
    let denied: Vec<&str> = report.denials.iter().map(|denial| denial.tool.as_str()).collect();
    assert_eq!(denied, ["Write", "WebFetch"]);
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
}

#[tokio::test]
async fn whoever_reviews_reads_and_changes_nothing() {
    let bash =
        |command: &str| Turn::new().call_tool("Bash", json!({ "command": command, "description": "x" }));
    let script = Script::new()
        .turn(bash("git status"))
        .turn(bash("touch made"))
        .turn(Turn::new().call_tool("Write", json!({ "file_path": "${CWD}/made", "content": "x" })))
        .turn(Turn::new().call_tool("Read", json!({ "file_path": "/etc/hostname" })));
    let Some(stage) = Stage::set(script) else { return };
    let (events, report) = stage.run(stage.spec(AgentMode::Review)).await;
    assert_eq!(
        Stage::calls(&events, "Bash"),
        [ToolStatus::Started, ToolStatus::Completed, ToolStatus::Started, ToolStatus::Denied]
    );
    assert_eq!(Stage::calls(&events, "Write"), [ToolStatus::Started, ToolStatus::Denied]);
    assert_eq!(Stage::calls(&events, "Read"), [ToolStatus::Started, ToolStatus::Denied]);
    assert!(!stage.repository.path().join("made").exists());
    assert_eq!(report.denials.len(), 3, "{report:?}");
}

#[tokio::test]
async fn failures_of_the_api_are_told_apart() {
    for (fault, kind) in [
        (Fault::unauthorized(), FailureKind::BadCredentials),
        (Fault::http(403), FailureKind::PermissionDenied),
        (Fault::http(400), FailureKind::InvalidRequest),
        (Fault::rate_limited(Duration::from_secs(1)), FailureKind::RateLimited),
        (Fault::overloaded(), FailureKind::Overloaded),
        (Fault::Quota, FailureKind::QuotaExceeded),
        (Fault::ContextFull, FailureKind::ContextFull),
        (Fault::Refusal, FailureKind::Refused),
        (Fault::MaxTokens, FailureKind::OutputLimit),
        (Fault::Cut { after_deltas: 0 }, FailureKind::Network),
    ] {
        let Some(stage) = Stage::set(Script::failing(fault.clone())) else {
            return;
        };
        let (events, report) = stage.run(stage.spec(AgentMode::Implement)).await;
        assert_eq!(failure(&report), kind, "{fault:?}: {report:?}");
        let retried = events.iter().any(|event| matches!(event, AgentEvent::Error { .. }));
        assert!(retried || !matches!(kind, FailureKind::RateLimited | FailureKind::Overloaded), "{events:?}");
    }
}

#[tokio::test]
async fn a_missing_key_is_told_from_a_wrong_one() {
    let Some(stage) = Stage::set(Script::text("Unheard.")) else {
        return;
    };
    let provider = stage.provider(None);
    let mut session = provider.start(stage.spec(AgentMode::Implement)).await.unwrap();
    all(&mut session).await;
    assert_eq!(failure(&session.report().await), FailureKind::MissingCredentials);
}

#[tokio::test]
async fn a_cancelled_tool_leaves_no_process() {
    let command = "setsid sleep 997 & sleep 998";
    let Some(stage) = Stage::set(Script::run_command(command, "Unheard.")) else {
        return;
    };
    let mark = format!("cancelled-{}", std::process::id());
    let provider = stage.provider(Some("dummy-key-of-a-test"));
    let spec = with_env(stage.spec(AgentMode::Implement), "MARK", &mark);
    let mut session = provider.start(spec).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Tool { .. })).await;
    let patience = Instant::now() + Duration::from_secs(10);
    while marked(&mark) < 4 {
        // The CLI, its shell and both sleeps.
        assert!(Instant::now() < patience, "the tool does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    session.cancel().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(processes_left(&mark).await, 0);
    let events = all(&mut session).await;
    assert_eq!(Stage::calls(&events, "Bash"), [ToolStatus::Failed], "{events:?}");
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn limits_end_a_run() {
    let usage = Usage { input_tokens: 100_000, ..Usage::default() };
    let script = || {
        let turn = Turn::new().run_command("true").usage(usage);
        Script::new().turn(turn).then(Ending::RepeatLast)
    };
    let Some(stage) = Stage::set(script()) else { return };
    let mut turns = stage.spec(AgentMode::Implement);
    turns.request.constraints.as_mut().unwrap().max_turns = Some(2);
    assert_eq!(stage.run(turns).await.1.outcome, Outcome::Limited(Limit::Turns));
    let mut cost = stage.spec(AgentMode::Implement);
    cost.request.constraints.as_mut().unwrap().max_cost_cents = Some(40);
    let (_, report) = stage.run(cost).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Cost));
    assert!(report.usage.cost.is_some_and(|cost| cost.to_cents() >= 40), "{report:?}");
}

#[tokio::test]
async fn a_session_is_taken_up() {
    let script = Script::new().turn(Turn::new().say("First words.")).turn(Turn::new().say("Second words."));
    let Some(stage) = Stage::set(script) else { return };
    let (_, first) = stage.run(stage.spec(AgentMode::Implement)).await;
    let mut spec = stage.spec(AgentMode::Implement);
    spec.resume.clone_from(&first.session_id);
    let (_, second) = stage.run(spec).await;
    assert_eq!(second.outcome, Outcome::Succeeded { summary: Some("Second words.".to_owned()) });
    let mut gone = stage.spec(AgentMode::Implement);
    gone.resume = Some("11111111-2222-4333-8444-555555555555".to_owned());
    assert_eq!(failure(&stage.run(gone).await.1), FailureKind::SessionGone);
}

fn patterns(tools: &[&str]) -> Vec<ToolPattern> {
    tools.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect()
}

/// Waits for a question: the call's id, and the question.
async fn question(session: &mut Box<dyn AgentSession>) -> (String, AgentEvent) {
    loop {
        let event = session.next_event().await.expect("a question comes");
        if let AgentEvent::Approval { call_id: Some(call_id), .. } = &event {
            return (call_id.clone(), event);
        }
    }
}

fn bash(command: &str) -> Turn {
    Turn::new().call_tool("Bash", json!({ "command": command, "description": "x" }))
}

/// What the CLI would approve by itself is asked about too: commands that only read, edits of the working folder.
#[tokio::test]
async fn every_call_that_is_meant_is_asked_about() {
    let script = Script::new()
        .turn(bash("ls -la"))
        .turn(bash("true"))
        .turn(Turn::new().write_file("a.txt", "hello\n"))
        .turn(Turn::new().call_tool("Glob", json!({ "pattern": "*.txt" })));
    let Some(stage) = Stage::set(script) else { return };
    let mut spec = stage.spec(AgentMode::Implement);
    spec.ask = patterns(&["Bash(ls *)", "Write", "Glob"]);
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let (call, event) = question(&mut session).await;
        let AgentEvent::Approval { action, .. } = event else { panic!() };
        asked.push(action);
        session.answer(&call, ToolAnswer::Allow).await;
    }
    let events = all(&mut session).await;
    assert_eq!(asked, ["Bash", "Write", "Glob"], "{events:#?}");
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }) && report.denials.is_empty(), "{report:?}");
    assert!(stage.repository.path().join("a.txt").exists());
}

#[tokio::test]
async fn several_questions_are_answered_in_any_order() {
    let read = |turn: Turn, path: &str| turn.call_tool("Read", json!({ "file_path": path }));
    let turn = read(read(Turn::new(), "${CWD}/one.txt"), "${CWD}/two.txt");
    let Some(stage) = Stage::set(Script::new().turn(turn)) else { return };
    for file in ["one.txt", "two.txt"] {
        fs::write(stage.repository.path().join(file), file).unwrap();
    }
    let mut spec = stage.spec(AgentMode::Implement);
    spec.ask = patterns(&["Read(*.txt)"]);
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    let (one, _) = question(&mut session).await;
    let (two, _) = question(&mut session).await;
    session.answer(&two, ToolAnswer::Deny("Not the second.".into())).await;
    session.answer(&one, ToolAnswer::Allow).await;
    let events = all(&mut session).await;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{events:#?}");
    assert_eq!(report.denials.len(), 1);
    assert_eq!(report.denials[0].call_id, two);
    let told = stage.model.requests().last().unwrap().body.to_string();
    assert!(told.contains("Not the second.") && told.contains("one.txt"));
}

#[tokio::test]
async fn leave_never_goes_beyond_what_the_run_may_do() {
    let Some(stage) = Stage::set(Script::new().turn(bash("git status")).turn(bash("touch made"))) else {
        return;
    };
    let mut spec = stage.spec(AgentMode::Review);
    spec.ask = patterns(&["Bash"]);
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        if let AgentEvent::Approval { call_id: Some(call), .. } = &event {
            session.answer(call, ToolAnswer::Allow).await;
        }
        events.push(event);
    }
    assert_eq!(
        Stage::calls(&events, "Bash"),
        [ToolStatus::Started, ToolStatus::Completed, ToolStatus::Started, ToolStatus::Denied]
    );
    assert!(!stage.repository.path().join("made").exists());

    let script = Script::new()
        .turn(Turn::new().call_tool("Write", json!({ "file_path": "${CWD}/.git/hooks/x", "content": "x" })))
        .turn(bash("rm -rf .git/refs; touch deleted"));
    let Some(stage) = Stage::set(script) else { return };
    let mut spec = stage.spec(AgentMode::Implement);
    spec.ask = patterns(&["Write"]);
    spec.tools = Allowlist::parse(ToolLayer::Run, &["Write", "Bash(cargo *)"]).unwrap();
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    let (call, _) = question(&mut session).await;
    session.answer(&call, ToolAnswer::Allow).await;
    let events = all(&mut session).await;
    assert!(!stage.repository.path().join(".git/hooks/x").exists(), "{events:#?}");
    assert_eq!(session.report().await.denials.len(), 2, "{events:#?}");
}

#[tokio::test]
async fn a_secret_in_a_question_is_hidden_and_the_call_has_it() {
    let Some(stage) = Stage::set(Script::run_command("echo hunter2-hunter2 > token.txt", "Done.")) else {
        return;
    };
    let mut spec = with_env(stage.spec(AgentMode::Implement), "TOKEN", "hunter2-hunter2");
    spec.ask = patterns(&["Bash"]);
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    let (call, event) = question(&mut session).await;
    assert!(
        !format!("{event:?}").contains("hunter2") && format!("{event:?}").contains("[secret]"),
        "{event:?}"
    );
    session.answer(&call, ToolAnswer::Allow).await;
    all(&mut session).await;
    let written = fs::read_to_string(stage.repository.path().join("token.txt")).unwrap();
    assert_eq!(written, "hunter2-hunter2\n");
}

/// In the middle of a turn the CLI adds a message to it; during the last answer, it takes another turn for it.
#[tokio::test]
async fn what_is_said_counts_in_either_turn() {
    let slow = Duration::from_millis(150);
    let words = "These words take a while to be said.";
    let (in_turn, after) = (
        Script::new().turn(Turn::new().say("One.").run_command("sleep 1")).turn(Turn::new().say("Two.")),
        Script::new().turn(Turn::new().say(words).paced(4, slow)).turn(Turn::new().say("Two.")),
    );
    for script in [in_turn, after] {
        let Some(stage) = Stage::set(script) else { return };
        let mut session = stage
            .provider(Some("dummy-key-of-a-test"))
            .start(stage.spec(AgentMode::Implement))
            .await
            .unwrap();
        until(&mut session, |event| matches!(event, AgentEvent::Delta { .. })).await;
        assert!(session.send("Mind the pears.").await.unwrap());
        assert!(session.send("And the plums.").await.unwrap());
        let events = all(&mut session).await;
        assert!(!session.send("Too late.").await.unwrap());
        let report = session.report().await;
        assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("Two.".to_owned()) }, "{events:#?}");
        let told = stage.model.requests().last().unwrap().body.to_string();
        assert!(told.contains("pears") && told.contains("plums"));
        assert_eq!((report.usage.turns, report.usage.output_tokens), (2, 20), "{events:#?}");
        assert_eq!(report.usage.input_tokens, 200);
        let cost = report.usage.cost.expect("the CLI tells the cost");
        // Two calls at 450 millionths; the CLI adds with floating points.
        assert!((900..=901).contains(&cost.0), "{cost:?}");
    }
}

#[tokio::test]
async fn the_turn_limit_is_the_sessions_and_not_one_messages() {
    let words = "These words take a while to be said.";
    let script = Script::new()
        .turn(Turn::new().say(words).paced(4, Duration::from_millis(100)))
        .turn(Turn::new().run_command("true"))
        .then(Ending::RepeatLast);
    let Some(stage) = Stage::set(script) else { return };
    let mut spec = stage.spec(AgentMode::Implement);
    spec.request.constraints.as_mut().unwrap().max_turns = Some(3);
    let mut session = stage.provider(Some("dummy-key-of-a-test")).start(spec).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Delta { .. })).await;
    assert!(session.send("Go on for ever.").await.unwrap());
    all(&mut session).await;
    assert_eq!(session.report().await.outcome, Outcome::Limited(Limit::Turns));
    assert!(stage.model.request_count() <= 6, "{}", stage.model.request_count());
}
