//! Behaviour of [`EventLog`](lime_core::ports::EventLog).

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use lime_core::ErrorKind;
use lime_core::ports::{EventStream, Live};
use lime_core::runs::{
    AgentEvent, FailureKind, MessageRole, Outcome, RunEvent, RunStatus, Seq, ToolStatus, Usage,
};
use serde_json::json;

use crate::scene::{Scene, Subject, forged, settlement};

/// Far more than a live event takes; only a subscription that hangs gets there.
const PATIENCE: Duration = Duration::from_secs(30);

fn message(n: usize) -> AgentEvent {
    AgentEvent::Message { role: MessageRole::Assistant, text: format!("message {n}") }
}

fn gapless(events: &[RunEvent]) -> bool {
    events.iter().zip(1..).all(|(event, n)| event.seq == n)
}

async fn next(stream: &mut EventStream) -> Option<Live> {
    let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("the subscription hangs");
    item.map(|item| item.unwrap())
}

async fn recorded(mut stream: EventStream) -> Vec<RunEvent> {
    let mut events = Vec::new();
    while let Some(live) = next(&mut stream).await {
        if let Live::Recorded(event) = live {
            events.push(event);
        }
    }
    events
}

/// `append`: positions go on from the last one without a gap, and come back with the events.
pub async fn positions_have_no_gap(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    assert!(storage.append(&claim.lease, vec![]).await.unwrap().is_empty());
    let mut appended = Vec::new();
    for size in [1, 3, 70] {
        let batch = (0..size).map(message).collect();
        appended.extend(storage.append(&claim.lease, batch).await.unwrap());
    }
    let log = storage.read(&scene.scope, claim.lease.run, 0, 1_000).await.unwrap();
    assert!(gapless(&log));
    assert_eq!(log[2..], appended);
    assert!(log.iter().all(|event| event.run_id == claim.lease.run));
    assert!(log.is_sorted_by_key(|event| event.ts));
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `append`: many at once keep the positions gapless, and each batch together.
pub async fn concurrent_appends_have_no_gap(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let appends = (0..16).map(|n| {
        let (storage, lease) = (storage.clone(), claim.lease);
        tokio::spawn(async move {
            storage.append(&lease, vec![message(n), message(n), message(n)]).await.unwrap()
        })
    });
    for batch in join_all(appends).await.into_iter().map(Result::unwrap) {
        assert_eq!(batch[2].seq, batch[0].seq + 2);
    }
    let log = storage.read(&scene.scope, claim.lease.run, 0, 1_000).await.unwrap();
    assert!(gapless(&log));
    assert_eq!(log.len(), 2 + 48);
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `read`: after a position, at most as many as asked for, in order.
pub async fn reading_goes_on_from_a_position(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    storage.append(&claim.lease, (0..5).map(message).collect()).await.unwrap();
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
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `append`: under a lease that was never given, nothing is appended.
pub async fn a_forged_lease_appends_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let error = storage.append(&forged(&claim), vec![message(1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleLease);
    assert_eq!(storage.read(&scene.scope, claim.lease.run, 0, 10).await.unwrap().len(), 2);
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `append`: texts are cut to the limit, and NUL is replaced.
pub async fn texts_are_bounded(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let long = AgentEvent::Log { text: "x\0".repeat(AgentEvent::MAX_TEXT_BYTES) };
    let raw = AgentEvent::Unknown(json!({ "a\0b": ["y".repeat(AgentEvent::MAX_TEXT_BYTES * 2), "\0"] }));
    storage.append(&claim.lease, vec![long.clone(), raw.clone()]).await.unwrap();
    let log = storage.read(&scene.scope, claim.lease.run, 2, 10).await.unwrap();
    assert_eq!(log[0].event, long.bounded());
    assert_eq!(log[1].event, raw.bounded());
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `read`, `subscribe`: another tenant's run is `NotFound`, as a missing one is.
pub async fn another_tenant_sees_no_log(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let run = theirs.queued(&storage).await.id;
    for run in [run, lime_core::Id::new(i64::MAX)] {
        assert_eq!(storage.read(&ours.scope, run, 0, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
        let items: Vec<_> = storage.subscribe(&ours.scope, run, 0).collect().await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    }
    storage.request_cancel(&theirs.scope, run).await.unwrap();
}

/// `subscribe`: what was recorded before, then what comes, each once and in order, and then the end.
pub async fn a_subscriber_sees_everything_once_and_then_the_end(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = claim.lease.run;
    storage.append(&claim.lease, vec![message(0)]).await.unwrap();
    let followers: Vec<_> =
        (0..3).map(|_| tokio::spawn(recorded(storage.subscribe(&scene.scope, run, 0)))).collect();
    for n in 1..40 {
        storage.append(&claim.lease, vec![message(n)]).await.unwrap();
        tokio::task::yield_now().await;
    }
    storage.settle(&claim.lease, settlement(Outcome::Succeeded { summary: None })).await.unwrap();
    let log = storage.read(&scene.scope, run, 0, 1_000).await.unwrap();
    assert!(gapless(&log));
    for seen in join_all(followers).await {
        assert_eq!(seen.unwrap(), log);
    }
    assert_eq!(recorded(storage.subscribe(&scene.scope, run, 0)).await, log, "after the end it is a replay");
}

/// `subscribe`: a reader that breaks off goes on after the last position it saw.
pub async fn a_subscriber_goes_on_where_it_broke_off(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = claim.lease.run;
    let mut seen: Vec<Seq> = Vec::new();
    for n in 0..10 {
        let mut stream = storage.subscribe(&scene.scope, run, seen.last().copied().unwrap_or(0));
        storage.append(&claim.lease, vec![message(n), message(n)]).await.unwrap();
        while seen.len() < n + 1 {
            if let Some(Live::Recorded(event)) = next(&mut stream).await {
                seen.push(event.seq);
            }
        }
    }
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    let rest = recorded(storage.subscribe(&scene.scope, run, seen.last().copied().unwrap())).await;
    seen.extend(rest.iter().map(|event| event.seq));
    let expected: Vec<Seq> = (1..=23).collect();
    assert_eq!(seen, expected);
}

/// `append`: ephemeral events reach those who are there, get no position, and are not kept.
pub async fn ephemeral_events_are_seen_and_not_kept(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = claim.lease.run;
    let mut stream = storage.subscribe(&scene.scope, run, 2);
    let delta = AgentEvent::Delta { text: "hel".into() };
    assert!(storage.append(&claim.lease, vec![delta.clone()]).await.unwrap().is_empty());
    assert_eq!(next(&mut stream).await, Some(Live::Ephemeral(delta.clone())));
    let appended = storage.append(&claim.lease, vec![delta, message(1)]).await.unwrap();
    assert_eq!(appended.len(), 1);
    assert_eq!(appended[0].seq, 3);
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    let log = storage.read(&scene.scope, run, 0, 10).await.unwrap();
    assert!(gapless(&log));
    assert_eq!(log.len(), 4);
}

/// `append`, `read`: an event of every type comes back as it was.
pub async fn every_event_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let events = vec![
        AgentEvent::Status { status: RunStatus::WaitingApproval, detail: Some("d".into()) },
        AgentEvent::Message { role: MessageRole::Tool, text: "é 中 \u{1F980} \r\n".into() },
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
        AgentEvent::Log { text: "l".into() },
        AgentEvent::Diff { unified_diff: "+a".into(), summary: Some("s".into()) },
        AgentEvent::Artifact { name: "a".into(), url: Some("u".into()), mime: Some("text/plain".into()) },
        AgentEvent::Error { message: "m".into(), kind: Some(FailureKind::Network), stack: Some("s".into()) },
        AgentEvent::Session { session_id: "s".into(), model: Some("m".into()) },
        AgentEvent::Usage(Usage { turns: 1, input_tokens: 2, ..Usage::default() }),
        AgentEvent::Unknown(json!({ "type": "hologram", "deep": [1, { "x": null }] })),
        AgentEvent::Unknown(json!("just a text")),
    ];
    storage.append(&claim.lease, events.clone()).await.unwrap();
    let log = storage.read(&scene.scope, claim.lease.run, 2, 100).await.unwrap();
    assert_eq!(log.into_iter().map(|event| event.event).collect::<Vec<_>>(), events);
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}
