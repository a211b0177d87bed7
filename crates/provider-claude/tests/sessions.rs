//! Sessions with a stand-in for the CLI, for what the real one seldom does.

#![allow(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

#[path = "support/processes.rs"]
mod processes;
#[path = "support/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lime_core::governance::{Allowlist, ToolLayer, ToolPattern};
use lime_core::ports::{AgentProvider, AgentSession, Readiness, ToolAnswer};
use lime_core::runs::{AgentEvent, AgentMode, FailureKind, Outcome, ToolStatus};
use lime_core::{ErrorKind, Micros};
use lime_provider_claude::{CONFIGURED_ENV, ClaudeBuilder, ClaudeProvider, FIXED_ENV};
use processes::marked;
use run::{all, processes_left, spec, until, with_env};
use serde_json::Value;
use tempfile::TempDir;

const KEY: &str = "sk-ant-not-a-real-key";
const SECRET: &str = "hunter2-hunter2";

fn fake() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/claude")
}

fn provider(home: &TempDir) -> ClaudeBuilder {
    ClaudeProvider::builder()
        .binary(fake())
        .api_key(KEY)
        .pass("HOME", home.path().to_string_lossy())
        .pass("PATH", "/usr/bin:/bin")
}

/// Plays a scene with the secret in the environment: its events, and its report.
async fn play(scene: &str, mode: AgentMode) -> (Vec<AgentEvent>, lime_core::ports::SessionReport) {
    let home = TempDir::new().unwrap();
    let spec = with_env(spec(home.path(), mode, "do it"), "FAKE_SCENE", scene);
    let spec = with_env(spec, "GIVEN_SECRET", SECRET);
    let mut session = provider(&home).build().start(spec).await.unwrap();
    let events = all(&mut session).await;
    assert_eq!(session.next_event().await, None, "after the end there is nothing");
    (events, session.report().await)
}

fn texts(events: &[AgentEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Message { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

fn unknown<'e>(events: &'e [AgentEvent], kind: &str) -> Vec<&'e Value> {
    events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Unknown(raw) if raw["type"] == kind => Some(raw),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn the_environment_is_exactly_the_list() {
    let home = TempDir::new().unwrap();
    let provider = provider(&home).base_url("http://127.0.0.1:9/s/x").max_retries(2).build();
    let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", "environment");
    let mut session = provider.start(with_env(spec, "TZ", "UTC")).await.unwrap();
    let events = all(&mut session).await;
    let found: BTreeMap<&str, &str> =
        texts(&events)[0].split('|').filter_map(|variable| variable.split_once('=')).collect();
    let home = home.path().to_string_lossy();
    let mut expected: BTreeMap<&str, &str> = FIXED_ENV.iter().copied().collect();
    expected.extend([
        // The key itself is hidden in what the agent prints.
        ("ANTHROPIC_API_KEY", "[secret]"),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/s/x"),
        ("CLAUDE_CODE_MAX_RETRIES", "2"),
        ("FAKE_SCENE", "[secret]"),
        ("HOME", &home),
        ("LIME_RUN_MARK", found["LIME_RUN_MARK"]),
        ("PATH", "/usr/bin:/bin"),
        ("TZ", "UTC"),
    ]);
    assert_eq!(found, expected);
    let configured = CONFIGURED_ENV.iter().filter(|name| found.contains_key(**name));
    assert_eq!(configured.count(), 3, "all but the login, which the key makes needless");
}

#[tokio::test]
async fn the_command_says_what_the_spec_asks_for() {
    let home = TempDir::new().unwrap();
    let mut spec = with_env(spec(home.path(), AgentMode::Bugfix, "mend it"), "FAKE_SCENE", "arguments");
    spec.model = Some("claude-x".to_owned());
    spec.resume = Some("session-7".to_owned());
    spec.instructions = "Be kind. ".repeat(40_000);
    let constraints = spec.request.constraints.as_mut().unwrap();
    constraints.max_turns = Some(7);
    constraints.max_cost_cents = Some(205);
    spec.tools = Allowlist::parse(ToolLayer::Run, &["Edit", "Bash(cargo test *)"]).unwrap();
    let instructions = spec.instructions.clone();
    let mut session = provider(&home).build().start(spec).await.unwrap();
    let events = all(&mut session).await;
    let arguments: Vec<&str> = texts(&events)[0].split('|').filter(|argument| !argument.is_empty()).collect();
    for expected in [
        "-p",
        "--output-format=stream-json",
        "--input-format=stream-json",
        "--permission-prompt-tool=stdio",
        "--strict-mcp-config",
        "--setting-sources=",
        "--permission-mode=acceptEdits",
        "--tools=Bash,Edit",
        "--allowedTools=Bash(cargo test *)",
        "--model=claude-x",
        "--resume=session-7",
        "--max-turns=7",
        "--max-budget-usd=2.05",
    ] {
        assert!(arguments.contains(&expected), "{expected} is not in {arguments:?}");
    }
    // They are longer than an argument can be, so the protocol takes them, and so it does the prompt. The event
    // that shows it is cut, as every long one is.
    let said = events.iter().find_map(|event| match event {
        AgentEvent::Unknown(raw) => Some(raw.to_string()),
        _ => None,
    });
    let said = said.unwrap();
    assert!(said.contains(&instructions[..1_000]) && said.contains("appendSystemPrompt"));
}

#[tokio::test]
async fn questions_are_answered_by_policy() {
    let (events, report) = play("questions", AgentMode::Implement).await;
    let answers: Vec<&Value> =
        unknown(&events, "heard").iter().map(|heard| &heard["answer"]["response"]).collect();
    assert_eq!(answers[0]["response"]["behavior"], "allow");
    assert_eq!(answers[1]["response"]["behavior"], "deny");
    assert_eq!(answers[2]["response"]["behavior"], "deny");
    assert_eq!(answers[3]["subtype"], "error", "what this side knows nothing of");
    // The agent got its input back as it was; only what is shown hides the secret.
    assert_eq!(answers[0]["response"]["updatedInput"]["token"], "[secret]");
    let denied: Vec<&str> = report.denials.iter().map(|denial| denial.tool.as_str()).collect();
    assert_eq!(denied, ["Write", "WebFetch"]);
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }));
}

#[tokio::test]
async fn garbage_is_data() {
    let (events, report) = play("garbage", AgentMode::Implement).await;
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("Done.".to_owned()) });
    assert_eq!(report.session_id.as_deref(), Some("fake-1"));
    assert_eq!(unknown(&events, "hologram").len(), 1);
    assert_eq!(unknown(&events, "novelty").len(), 1);
    assert!(events.contains(&AgentEvent::Log { text: "not json at all".to_owned() }));
}

#[tokio::test]
async fn a_line_without_end_is_cut_and_said() {
    let (events, report) = play("flood", AgentMode::Implement).await;
    let cut = events.iter().find_map(|event| match event {
        AgentEvent::Log { text } => Some(text),
        _ => None,
    });
    assert!(cut.is_some_and(|text| text.contains("30000000 bytes") && text.len() < 1_000));
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }));
    assert_eq!(report.usage.cost, Some(Micros(1_000)));
}

#[tokio::test]
async fn a_stubborn_agent_is_gone_within_two_seconds() {
    let home = TempDir::new().unwrap();
    let mark = format!("stubborn-{}", std::process::id());
    let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", "stubborn");
    let mut session = provider(&home).build().start(with_env(spec, "MARK", &mark)).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Tool { .. })).await;
    while marked(&mark) < 4 {
        // The agent with its sleep, its daemon with its own: these come when they come.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    session.cancel().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(processes_left(&mark).await, 0);
    let events = all(&mut session).await;
    assert!(
        events.iter().any(|event| matches!(event, AgentEvent::Tool { status: ToolStatus::Failed, .. })),
        "the call that was open has an end: {events:?}"
    );
    let report = session.report().await;
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!(report.diagnostics.unwrap().contains("killed"));
}

#[tokio::test]
async fn dropping_a_session_ends_the_agent() {
    let home = TempDir::new().unwrap();
    let mark = format!("dropped-{}", std::process::id());
    let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", "stubborn");
    let mut session = provider(&home).build().start(with_env(spec, "MARK", &mark)).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Tool { .. })).await;
    drop(session);
    assert_eq!(processes_left(&mark).await, 0);
}

#[tokio::test]
async fn a_cancelled_agent_is_cancelled_whatever_it_says() {
    let home = TempDir::new().unwrap();
    let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", "interrupted");
    let mut session = provider(&home).build().start(spec).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Session { .. })).await;
    session.cancel().await;
    session.cancel().await;
    let events = all(&mut session).await;
    assert_eq!(unknown(&events, "said")[0]["interrupt"]["request"]["subtype"], "interrupt");
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn an_agent_that_stays_after_its_result_is_ended() {
    let (_, report) = play("lingering", AgentMode::Implement).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
    assert!(report.diagnostics.unwrap().contains("killed"));
}

#[tokio::test]
async fn no_event_is_lost_when_waiting_is_given_up() {
    let home = TempDir::new().unwrap();
    let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", "questions");
    let mut session = provider(&home).build().start(spec).await.unwrap();
    let mut events = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_micros(200), session.next_event()).await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    assert_eq!(unknown(&events, "heard").len(), 4);
    assert!(matches!(session.report().await.outcome, Outcome::Succeeded { .. }));
}

#[tokio::test]
async fn an_agent_that_dies_says_how_and_no_secret() {
    let (_, report) = play("killed", AgentMode::Implement).await;
    let Outcome::Failed(failure) = report.outcome else { panic!("{report:?}") };
    assert_eq!(failure.kind, FailureKind::Crashed);
    assert!(failure.message.contains("signal 9"), "{}", failure.message);

    let (_, report) = play("complaining", AgentMode::Implement).await;
    let Outcome::Failed(failure) = &report.outcome else { panic!("{report:?}") };
    assert!(failure.message.contains("exit code 3"), "{}", failure.message);
    assert!(failure.message.contains("it broke"), "{}", failure.message);
    assert!(!format!("{report:?}").contains(SECRET), "{report:?}");
}

#[tokio::test]
async fn secrets_are_hidden_in_events() {
    let (events, _) = play("leaking", AgentMode::Implement).await;
    assert_eq!(texts(&events), ["the token is [secret]"]);
}

#[tokio::test]
async fn readiness_tells_what_is_missing() {
    let home = TempDir::new().unwrap();
    let ready = provider(&home).build().readiness().await;
    let Readiness::Ready(found) = ready else { panic!("{ready:?}") };
    assert!(
        found.contains("9.9.9") && found.contains("ANTHROPIC_API_KEY") && !found.contains(KEY),
        "{found}"
    );

    let keyless = || {
        ClaudeProvider::builder()
            .binary(fake())
            .pass("HOME", home.path().to_string_lossy())
            .pass("PATH", "/usr/bin:/bin")
    };
    let missing = keyless().build().readiness().await;
    assert!(matches!(missing, Readiness::MissingCredentials(_)), "{missing:?}");
    std::fs::create_dir(home.path().join(".claude")).unwrap();
    std::fs::write(home.path().join(".claude/.credentials.json"), "{}").unwrap();
    let login = keyless().build().readiness().await;
    assert!(matches!(&login, Readiness::Ready(found) if found.contains("login")), "{login:?}");

    let nothing = provider(&home).binary(home.path().join("nothing")).build();
    assert!(matches!(nothing.readiness().await, Readiness::MissingBinary(_)));
    let mut session = nothing.start(spec(home.path(), AgentMode::Plan, "x")).await.unwrap();
    assert_eq!(session.next_event().await, None);
    let report = session.report().await;
    assert!(
        matches!(&report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::MissingBinary),
        "{report:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_at_once() {
    let home = TempDir::new().unwrap();
    let provider = provider(&home).build();
    let mut long = spec(home.path(), AgentMode::Implement, "x");
    long.model = Some("m".repeat(200_000));
    let mut tool = spec(home.path(), AgentMode::Implement, "x");
    tool.tools = Allowlist::parse(ToolLayer::Run, &["Edit,Bash"]).unwrap();
    let name =
        with_env(spec(home.path(), AgentMode::Implement, "x"), "ANTHROPIC_BASE_URL", "http://127.0.0.1:1");
    for spec in [long, tool, name] {
        let refused = provider.start(spec).await.err().expect("it is refused");
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    }
    let nowhere =
        provider.start(spec(&home.path().join("nowhere"), AgentMode::Implement, "x")).await.unwrap();
    let report = nowhere.report().await;
    assert!(
        matches!(&report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Workspace),
        "{report:?}"
    );
}

/// A session of a scene in which calls of `Bash` need leave.
async fn asking(home: &TempDir, scene: &str) -> Box<dyn AgentSession> {
    let spec = with_env(spec(home.path(), AgentMode::Implement, "do it"), "FAKE_SCENE", scene);
    let mut spec = with_env(spec, "GIVEN_SECRET", SECRET);
    spec.ask = vec![ToolPattern::parse("Bash").unwrap()];
    provider(home).build().start(spec).await.unwrap()
}

#[tokio::test]
async fn an_agent_that_does_not_ask_is_stopped() {
    let home = TempDir::new().unwrap();
    let mut session = asking(&home, "unasked").await;
    all(&mut session).await;
    let Outcome::Failed(failure) = session.report().await.outcome else { panic!("it failed") };
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert!(failure.message.contains("hooks"), "{}", failure.message);
}

#[tokio::test]
async fn a_question_that_was_withdrawn_is_not_open() {
    let home = TempDir::new().unwrap();
    let mut session = asking(&home, "hooked").await;
    let mut questions = 0;
    until(&mut session, |event| matches!(event, AgentEvent::Approval { .. })).await;
    let mut events = Vec::new();
    while questions == 0 {
        let event = session.next_event().await.unwrap();
        questions += usize::from(matches!(event, AgentEvent::Approval { .. }));
        events.push(event);
    }
    let shown = format!("{:?}", events.last());
    assert!(shown.contains("git push [secret]") && !shown.contains(SECRET), "{shown}");
    session.answer("call-1", ToolAnswer::Deny("Not today.".to_owned())).await;
    session.answer("call-1", ToolAnswer::Allow).await;
    events.extend(all(&mut session).await);
    let heard = unknown(&events, "heard");
    let answer = &heard.last().unwrap()["answer"]["response"];
    assert_eq!(answer["request_id"], "3", "the question that is still open is answered, and only that one");
    assert_eq!(answer["response"]["hookSpecificOutput"]["permissionDecision"], "deny");
    assert_eq!(answer["response"]["hookSpecificOutput"]["permissionDecisionReason"], "Not today.");
    let report = session.report().await;
    assert_eq!(report.denials.len(), 1, "{report:?}");
}

#[tokio::test]
async fn a_message_that_comes_late_has_a_turn_of_its_own() {
    let home = TempDir::new().unwrap();
    for (scene, expected) in [("spoken", Some("Second.")), ("deaf", None)] {
        let spec = with_env(spec(home.path(), AgentMode::Implement, "x"), "FAKE_SCENE", scene);
        let mut session = provider(&home).build().start(spec).await.unwrap();
        until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
        assert!(session.send("One more thing.").await.unwrap());
        let events = all(&mut session).await;
        assert!(!session.send("Too late.").await.unwrap());
        let report = session.report().await;
        match (expected, report.outcome) {
            (Some(summary), Outcome::Succeeded { summary: Some(said) }) => {
                assert_eq!(said, summary);
                let message = &unknown(&events, "said")[0]["message"];
                assert_eq!(message["message"]["content"][0]["text"], "One more thing.");
                assert_eq!(message["uuid"].as_str().map(str::len), Some(36));
                assert_eq!((report.usage.turns, report.usage.cost), (2, Some(Micros(3_000))));
            }
            (None, Outcome::Failed(failure)) => assert_eq!(failure.kind, FailureKind::Crashed),
            (_, other) => panic!("{scene}: {other:?}"),
        }
    }
}
