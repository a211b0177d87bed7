//! Behaviour of [`EventLog`](lime_core::ports::EventLog).

use futures_util::StreamExt;
use futures_util::future::join_all;
use lime_core::governance::{ActionScope, ApprovalStatus};
use lime_core::ports::Record;
use lime_core::runs::{AgentEvent, FailureKind, MessageRole, RunStatus, Seq, ToolStatus, Usage};
use lime_core::{ErrorKind, Id};
use serde_json::json;

use crate::scene::{Scene, Subject, forged};

fn message(n: usize) -> AgentEvent {
    AgentEvent::Message { role: MessageRole::Assistant, text: format!("message {n}") }
}

/// `append`: positions go on from the last one without a gap, and come back with the events.
pub async fn positions_have_no_gap(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    assert!(storage.append(&claim.lease, Record::default()).await.unwrap().is_empty());
    let mut appended = Vec::new();
    for size in [1, 3, 70] {
        let batch: Vec<_> = (0..size).map(message).collect();
        appended.extend(storage.append(&claim.lease, batch.into()).await.unwrap());
    }
    let log = scene.log(&storage, claim.lease.run).await;
    assert_eq!(log[2..], appended);
    assert!(log.iter().all(|event| event.run_id == claim.lease.run));
    assert!(log.is_sorted_by_key(|event| event.ts));
}

/// `append`: many at once keep the positions gapless, and each batch together.
pub async fn concurrent_appends_have_no_gap(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let appends = (0..16).map(|n| {
        let (storage, lease) = (storage.clone(), claim.lease);
        tokio::spawn(async move {
            storage.append(&lease, vec![message(n), message(n), message(n)].into()).await.unwrap()
        })
    });
    for batch in join_all(appends).await.into_iter().map(Result::unwrap) {
        assert_eq!(batch[2].seq, batch[0].seq + 2);
    }
    let log = scene.log(&storage, claim.lease.run).await;
    assert_eq!(log.len(), 2 + 48);
}

/// `read`: after a position, at most as many as asked for, in order.
pub async fn reading_goes_on_from_a_position(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let events: Vec<_> = (0..5).map(message).collect();
    storage.append(&claim.lease, events.into()).await.unwrap();
    let mut seen: Vec<Seq> = Vec::new();
    loop {
        let after = seen.last().copied().unwrap_or(0);
        let page = storage.read(&scene.scope, claim.lease.run, after, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|event| event.seq));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
}

/// `append`: under a lease that was never given, nothing is appended.
pub async fn a_forged_lease_appends_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let error = storage.append(&forged(&claim.lease), vec![message(1)].into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleLease);
    assert_eq!(storage.read(&scene.scope, claim.lease.run, 0, 10).await.unwrap().len(), 2);
}

/// `append`: texts are cut to the limit, and NUL is replaced.
pub async fn texts_are_bounded(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let long = AgentEvent::Log { text: "x\0".repeat(AgentEvent::MAX_TEXT_BYTES) };
    let raw = AgentEvent::Unknown(json!({ "a\0b": ["y".repeat(AgentEvent::MAX_TEXT_BYTES * 2), "\0"] }));
    storage.append(&claim.lease, vec![long.clone(), raw.clone()].into()).await.unwrap();
    let log = storage.read(&scene.scope, claim.lease.run, 2, 10).await.unwrap();
    assert_eq!(log[0].event, long.bounded());
    assert_eq!(log[1].event, raw.bounded());
}

/// `read`, `subscribe`: another tenant's run is `NotFound`, as a missing one is.
pub async fn another_tenant_sees_no_log(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let run = theirs.queued(&storage).await.id;
    for run in [run, Id::new(i64::MAX)] {
        assert_eq!(storage.read(&ours.scope, run, 0, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
        let items: Vec<_> = storage.subscribe(&ours.scope, run, 0).collect().await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// `append`, `read`: an event of every type comes back as it was.
pub async fn every_event_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let events = vec![
        AgentEvent::Status { status: RunStatus::WaitingApproval, detail: Some("d".into()) },
        AgentEvent::Message { role: MessageRole::Tool, text: "é 中 \u{1F980} \r\n".into() },
        AgentEvent::Message { role: MessageRole::User, text: String::new() },
        AgentEvent::Reasoning { text: "hm".into() },
        AgentEvent::Tool {
            call_id: "c".into(),
            name: "Bash".into(),
            status: ToolStatus::Started,
            input: Some(json!({ "command": "ls", "n": 1 })),
            output: None,
            duration_ms: None,
        },
        AgentEvent::Tool {
            call_id: "c".into(),
            name: "Bash".into(),
            status: ToolStatus::Denied,
            input: None,
            output: Some("no".into()),
            duration_ms: Some(12),
        },
        AgentEvent::Approval {
            approval_id: Some(Id::new(i64::MAX)),
            scope: ActionScope::repo_push(),
            action: "lime/1".into(),
            call_id: Some("c".into()),
            status: ApprovalStatus::Defaulted,
            summary: "s".into(),
            payload: Some(json!({ "b": [1, null], "a": "é" })),
        },
        AgentEvent::Log { text: "l".into() },
        AgentEvent::Diff { unified_diff: "+a".into(), summary: Some("s".into()) },
        AgentEvent::Artifact { name: "a".into(), url: Some("u".into()), mime: Some("text/plain".into()) },
        AgentEvent::Error { message: "m".into(), kind: Some(FailureKind::Network), stack: Some("s".into()) },
        AgentEvent::Session { session_id: "s".into(), model: Some("m".into()) },
        AgentEvent::Usage(Usage { turns: 1, input_tokens: 2, ..Usage::default() }),
        AgentEvent::Unknown(json!({ "type": "hologram", "deep": [1, { "x": null }] })),
        AgentEvent::Unknown(json!("just a text")),
    ];
    storage.append(&claim.lease, events.clone().into()).await.unwrap();
    let log = storage.read(&scene.scope, claim.lease.run, 2, 100).await.unwrap();
    assert_eq!(log.into_iter().map(|event| event.event).collect::<Vec<_>>(), events);
}
