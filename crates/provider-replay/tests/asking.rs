//! What a recording does when a person is asked, and when somebody speaks to it.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

mod stage;

use std::fs;
use std::path::Path;

use lime_conformance::agent::spec;
use lime_core::governance::{Allowlist, ToolLayer, ToolPattern};
use lime_core::ports::{AgentProvider, AgentSession, SessionSpec, ToolAnswer};
use lime_core::runs::{AgentEvent, FailureKind, MessageRole, Outcome, ToolStatus};
use lime_provider_replay::ReplayProvider;

use self::stage::{drain, failure, folder, recording, tools};

/// A push that needs leave, and what comes of it either way.
const PUSH: &str = "
    [[step]]
    run = 'git push origin main'
    output = 'Pushed.'
    [[step]]
    only_if = 'allowed'
    write = 'pushed.txt'
    content = ''
    [[step]]
    only_if = 'allowed'
    say = 'It is out.'
    [[step]]
    only_if = 'denied'
    say = 'I leave it to you.'
";

fn asks(folder: &Path, ask: &[&str]) -> SessionSpec {
    let mut spec = spec(folder, "Publish it.");
    spec.ask = ask.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect();
    spec
}

async fn start(steps: &str, spec: SessionSpec) -> Box<dyn AgentSession> {
    ReplayProvider::new(recording(steps)).speed(0.0).start(spec).await.unwrap()
}

/// Takes events up to the question.
async fn question(session: &mut dyn AgentSession) -> (Vec<AgentEvent>, String) {
    let mut events = Vec::new();
    loop {
        let event = session.next_event().await.expect("a question comes");
        if let AgentEvent::Approval { call_id: Some(call_id), payload: Some(payload), .. } = &event {
            assert!(payload.is_object());
            return (events, call_id.clone());
        }
        events.push(event);
    }
}

#[tokio::test]
async fn a_recording_goes_either_way() {
    for (answer, statuses, summary) in [
        (ToolAnswer::Allow, [ToolStatus::Started, ToolStatus::Completed], "It is out."),
        (
            ToolAnswer::Deny("Not on Fridays.".into()),
            [ToolStatus::Started, ToolStatus::Denied],
            "I leave it to you.",
        ),
    ] {
        let folder = folder(&[]);
        let mut session = start(PUSH, asks(folder.path(), &["Bash(git push *)"])).await;
        let (mut events, call) = question(&mut *session).await;
        session.answer(&call, answer.clone()).await;
        events.extend(drain(&mut *session).await);
        let called: Vec<_> = tools(&events).into_iter().filter(|(tool, ..)| *tool == "Bash").collect();
        assert_eq!(called.iter().map(|(_, status, _)| *status).collect::<Vec<_>>(), statuses);
        let denied = answer != ToolAnswer::Allow;
        assert_eq!(called[1].2, if denied { "Not on Fridays." } else { "Pushed." });
        assert_eq!(folder.path().join("pushed.txt").exists(), !denied);
        let report = session.report().await;
        assert_eq!(report.outcome, Outcome::Succeeded { summary: Some(summary.into()) });
        assert_eq!(report.denials.len(), usize::from(denied));
    }
}

#[tokio::test]
async fn what_nobody_is_asked_about_was_allowed_or_denied_by_the_runs_list() {
    let folder = folder(&[]);
    let mut session = start(PUSH, asks(folder.path(), &["Write(*.rs)"])).await;
    drain(&mut *session).await;
    let allowed = session.report().await;
    assert_eq!(allowed.outcome, Outcome::Succeeded { summary: Some("It is out.".into()) });
    let mut spec = asks(folder.path(), &["*"]);
    spec.tools = Allowlist::parse(ToolLayer::Run, &["Read"]).unwrap();
    let mut session = start(PUSH, spec).await;
    drain(&mut *session).await;
    let denied = session.report().await;
    assert_eq!(denied.outcome, Outcome::Succeeded { summary: Some("I leave it to you.".into()) });
    assert_eq!(denied.denials.len(), 1);
}

#[tokio::test]
async fn a_file_is_changed_only_if_that_was_allowed() {
    let steps = "[[step]]\nwrite = 'a'\ncontent = 'x'\n[[step]]\nwrite = 'b'\ncontent = 'x'";
    let folder = folder(&[]);
    let mut session = start(steps, asks(folder.path(), &["Write"])).await;
    let (_, a) = question(&mut *session).await;
    session.answer(&a, ToolAnswer::Deny("No.".into())).await;
    let (_, b) = question(&mut *session).await;
    session.answer(&a, ToolAnswer::Allow).await;
    session.answer(&b, ToolAnswer::Allow).await;
    drain(&mut *session).await;
    assert!(!folder.path().join("a").exists());
    assert_eq!(fs::read_to_string(folder.path().join("b")).unwrap(), "x");
}

#[tokio::test]
async fn a_recording_can_end_because_it_was_denied() {
    let steps = "
        [[step]]
        run = 'git push'
        [[step]]
        only_if = 'denied'
        fail = 'refused'
        message = 'I may not push.'
        [[step]]
        say = 'Done.'
    ";
    let folder = folder(&[]);
    for allow in [true, false] {
        let mut session = start(steps, asks(folder.path(), &["Bash"])).await;
        let (_, call) = question(&mut *session).await;
        let answer = if allow { ToolAnswer::Allow } else { ToolAnswer::Deny("No.".into()) };
        session.answer(&call, answer).await;
        drain(&mut *session).await;
        let report = session.report().await;
        if allow {
            assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("Done.".into()) });
        } else {
            assert_eq!(failure(&report), (FailureKind::Refused, "I may not push."));
        }
    }
}

#[tokio::test]
async fn whoever_speaks_is_heard_even_while_it_hangs_or_asks() {
    let folder = folder(&[]);
    for (steps, ask) in [("[[step]]\nhang = true", &[][..]), ("[[step]]\nrun = 'make'", &["Bash"][..])] {
        let mut session = start(steps, asks(folder.path(), ask)).await;
        if ask.is_empty() {
            session.next_event().await.unwrap();
            session.next_event().await.unwrap();
        } else {
            question(&mut *session).await;
        }
        assert!(session.send("Mind the pears.").await.unwrap());
        let Some(AgentEvent::Message { role: MessageRole::Assistant, text }) = session.next_event().await
        else {
            panic!("it says nothing");
        };
        assert!(text.contains("Mind the pears."));
        session.cancel().await;
        assert!(!session.send("Too late.").await.unwrap());
        assert_eq!(session.next_event().await, None);
    }
}
