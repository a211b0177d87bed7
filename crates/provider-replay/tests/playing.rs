//! What a session tells, and when.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

mod stage;

use std::fs;
use std::time::Duration;

use lime_conformance::agent::spec;
use lime_core::ports::AgentProvider;
use lime_core::runs::{
    AgentEvent, AgentMode, FailureKind, Limit, MessageRole, Outcome, ProviderId, ToolStatus,
};
use lime_core::{Id, Micros};
use lime_provider_replay::{Recording, ReplayProvider};
use tokio::time::{Instant, timeout};

use self::stage::{drain, failure, folder, play, play_spec, recording, refusal};

#[tokio::test]
async fn it_says_first_that_it_is_a_recording() {
    let folder = folder(&[]);
    let (events, report) = play("model = 'm'\n[[step]]\nsay = 'Hello.'", folder.path()).await;
    let expected = [
        AgentEvent::system("This is a recording (r): no model is called."),
        AgentEvent::Session { session_id: "replay/r/1".into(), model: Some("m".into()) },
        AgentEvent::Message { role: MessageRole::Assistant, text: "Hello.".into() },
    ];
    assert_eq!(events, expected);
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("Hello.".into()) });
    assert_eq!(report.session_id.as_deref(), Some("replay/r/1"));
}

#[tokio::test]
async fn messages_thoughts_and_events_are_told() {
    let folder = folder(&[]);
    let steps = "
        [[step]]
        think = 'Hm.'
        [[step]]
        say = 'Two words'
        stream_ms = 10
        [[step]]
        tool = 'WebSearch'
        input = { query = 'lime', max = 3 }
        output = 'Nothing.'
        fails = true
        takes_ms = 7
        [[step]]
        event = { type = 'artifact', name = 'report.html' }
        [[step]]
        event = { type = 'hologram', depth = 3 }
    ";
    let (events, _) = play(steps, folder.path()).await;
    let call = |status, input, output: Option<&str>, duration_ms| AgentEvent::Tool {
        call_id: "call-1".into(),
        name: "WebSearch".into(),
        status,
        input,
        output: output.map(Into::into),
        duration_ms,
    };
    let input = serde_json::json!({ "query": "lime", "max": 3 });
    let expected = [
        AgentEvent::Reasoning { text: "Hm.".into() },
        AgentEvent::Delta { text: "Two ".into() },
        AgentEvent::Delta { text: "words".into() },
        AgentEvent::Message { role: MessageRole::Assistant, text: "Two words".into() },
        call(ToolStatus::Started, Some(input), None, None),
        call(ToolStatus::Failed, None, Some("Nothing."), Some(7)),
        AgentEvent::Artifact { name: "report.html".into(), url: None, mime: None },
        AgentEvent::Unknown(serde_json::json!({ "type": "hologram", "depth": 3 })),
    ];
    assert_eq!(events[2..], expected);
}

#[tokio::test]
async fn turns_are_added_up() {
    let folder = folder(&[]);
    let steps = "
        [[step]]
        usage = { input_tokens = 10, cached_input_tokens = 4, output_tokens = 1, cost_micros = 5 }
        [[step]]
        usage = { input_tokens = 20, cache_write_tokens = 2, output_tokens = 2, cost_micros = 6 }
    ";
    let (events, report) = play(steps, folder.path()).await;
    assert_eq!(report.usage.turns, 2);
    assert_eq!((report.usage.input_tokens, report.usage.output_tokens), (30, 3));
    assert_eq!((report.usage.cached_input_tokens, report.usage.cache_write_tokens), (4, 2));
    assert_eq!(report.usage.cost, Some(Micros(11)));
    assert_eq!(events.last(), Some(&AgentEvent::Usage(report.usage)));
}

#[tokio::test]
async fn placeholders_are_filled_in_once() {
    let folder = folder(&[]);
    let mut spec = spec(folder.path(), "Add {{mode}}.");
    spec.request.run_id = Id::new(42);
    let steps = "
        [[step]]
        write = 'ci.yml'
        content = '${{ matrix.os }} {{run_id}} {{prompt}}'
        [[step]]
        say = 'In mode {{mode}}: {{prompt}}{{'
    ";
    let (_, report) = play_spec(steps, spec).await;
    assert_eq!(
        report.outcome,
        Outcome::Succeeded { summary: Some("In mode implement: Add {{mode}}.{{".into()) }
    );
    let written = fs::read_to_string(folder.path().join("ci.yml")).unwrap();
    assert_eq!(written, "${{ matrix.os }} 42 Add {{mode}}.");
}

#[tokio::test]
async fn a_recording_can_end_badly() {
    let folder = folder(&[]);
    let (_, report) =
        play("[[step]]\nfail = 'rate_limited'\nmessage = 'Wait for {{mode}}.'", folder.path()).await;
    assert_eq!(failure(&report), (FailureKind::RateLimited, "Wait for implement."));
    let (_, report) = play("[[step]]\nlimit = 'time'", folder.path()).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Time));
}

#[tokio::test]
async fn a_plan_without_edits_is_played() {
    let folder = folder(&[]);
    let mut spec = spec(folder.path(), "Plan it.");
    spec.request.mode = AgentMode::Plan;
    let (_, report) = play_spec("[[step]]\nsay = 'A plan.'", spec).await;
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("A plan.".into()) });
}

#[tokio::test]
async fn the_prompt_chooses_among_recordings() {
    let folder = folder(&[]);
    let named = |name: &str, when: &str| {
        Recording::parse(&format!("version = 1\nname = '{name}'\nwhen = '{when}'\n[[step]]\nsay = '{name}'"))
            .unwrap()
    };
    let provider = ReplayProvider::new(named("first", "due date")).or(named("second", "colour"));
    let summary = async |prompt: &str| {
        let session = provider.start(spec(folder.path(), prompt)).await;
        let mut session = session.ok()?;
        drain(&mut *session).await;
        match session.report().await.outcome {
            Outcome::Succeeded { summary } => summary,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(summary("Add a due date").await.as_deref(), Some("first"));
    assert_eq!(summary("Add a colour").await.as_deref(), Some("second"));
    assert_eq!(summary("Add a colour and a due date").await.as_deref(), Some("first"));
    assert_eq!(summary("Add a sound").await, None);
    let said = refusal(&provider, spec(folder.path(), "Add a sound")).await;
    assert!(said.contains(r#"["due date", "colour"]"#), "{said}");
}

#[tokio::test]
async fn a_session_is_resumed_under_its_id() {
    let folder = folder(&[]);
    let mut again = spec(folder.path(), "Go on.");
    again.request.run_id = Id::new(2);
    again.resume = Some("replay/r/1".into());
    let (_, report) = play_spec("[[step]]\nsay = 'x'", again).await;
    assert_eq!(report.session_id.as_deref(), Some("replay/r/1"));
}

#[tokio::test]
async fn a_missing_folder_is_an_outcome() {
    let folder = folder(&[]);
    let (_, report) = play("[[step]]\nwrite = 'a'\ncontent = ''", &folder.path().join("nowhere")).await;
    assert_eq!(failure(&report).0, FailureKind::Workspace);
    assert!(!folder.path().join("nowhere").exists());
}

#[tokio::test]
async fn it_can_stand_in_for_another_provider() {
    let provider = ReplayProvider::new(recording("[[step]]\nsay = 'x'"));
    assert_eq!(provider.id(), ReplayProvider::ID);
    let claude = ProviderId::from_static("claude");
    assert_eq!(provider.named(claude.clone()).id(), claude);
}

#[tokio::test]
async fn waits_are_kept_and_scaled() {
    let steps = "[[step]]\nsay = 'x'\nwait_ms = 300\n[[step]]\nrun = 'make'\ntakes_ms = 300";
    let folder = folder(&[]);
    for (speed, least, most) in [(1.0, 600, 5_000), (10.0, 60, 500), (0.0, 0, 400), (-1.0, 0, 400)] {
        let provider = ReplayProvider::new(recording(steps)).speed(speed);
        let since = Instant::now();
        drain(&mut *provider.start(spec(folder.path(), "Do it.")).await.unwrap()).await;
        let took = since.elapsed();
        let expected = Duration::from_millis(least)..Duration::from_millis(most);
        assert!(expected.contains(&took), "{took:?} at speed {speed}");
    }
}

#[tokio::test]
async fn a_wait_that_is_broken_off_does_not_begin_again() {
    let folder = folder(&[]);
    let provider = ReplayProvider::new(recording("[[step]]\nsay = 'x'\nwait_ms = 200"));
    let mut session = provider.start(spec(folder.path(), "Do it.")).await.unwrap();
    let since = Instant::now();
    let mut events = 0;
    loop {
        match timeout(Duration::from_millis(30), session.next_event()).await {
            Ok(Some(_)) => events += 1,
            Ok(None) => break,
            Err(_) => assert!(since.elapsed() < Duration::from_secs(5), "the wait never ends"),
        }
    }
    assert_eq!(events, 3);
}

#[tokio::test]
async fn cancelling_in_the_middle_of_a_tool_leaves_its_file_alone() {
    let folder = folder(&[]);
    let provider = ReplayProvider::new(recording("[[step]]\nwrite = 'a'\ncontent = ''\ntakes_ms = 60_000"));
    let mut session = provider.start(spec(folder.path(), "Do it.")).await.unwrap();
    while let Ok(event) = timeout(Duration::from_millis(50), session.next_event()).await {
        assert!(event.is_some());
    }
    let since = Instant::now();
    session.cancel().await;
    assert_eq!(session.next_event().await, None);
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
    assert!(since.elapsed() < Duration::from_millis(200));
    assert!(!folder.path().join("a").exists());
}
