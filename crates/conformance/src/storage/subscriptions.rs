//! Behaviour of [`EventLog::subscribe`](lime_core::ports::EventLog::subscribe).

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use lime_core::ports::{EventStream, Live, Request};
use lime_core::runs::{AgentEvent, MessageRole, RunEvent, RunStatus, Seq};

use crate::scene::{LONG, PATIENCE, Scene, Subject, claim, eventually, failed, settlement, succeeded};

fn message(n: usize) -> AgentEvent {
    AgentEvent::Message { role: MessageRole::Assistant, text: format!("message {n}") }
}

fn delta(text: &str) -> AgentEvent {
    AgentEvent::Delta { text: text.into() }
}

async fn next(stream: &mut EventStream) -> Option<Live> {
    let item = tokio::time::timeout(PATIENCE, stream.next()).await.expect("the subscription hangs");
    item.map(|item| item.unwrap())
}

/// All that is recorded, to the end of the subscription.
async fn recorded(mut stream: EventStream) -> Vec<RunEvent> {
    let mut events = Vec::new();
    while let Some(live) = next(&mut stream).await {
        if let Live::Recorded(event) = live {
            events.push(event);
        }
    }
    events
}

/// `subscribe`: what was recorded before, then what comes, each once and in order, and then the end.
pub async fn a_subscriber_sees_everything_once_and_then_the_end(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    storage.append(&lease, vec![message(0)].into()).await.unwrap();
    let followers: Vec<_> =
        (0..3).map(|_| tokio::spawn(recorded(storage.subscribe(&scene.scope, lease.run, 0)))).collect();
    for n in 1..40 {
        storage.append(&lease, vec![message(n)].into()).await.unwrap();
        tokio::task::yield_now().await;
    }
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    let log = scene.log(&storage, lease.run).await;
    assert_eq!(log.len(), 2 + 40 + 1);
    for seen in join_all(followers).await {
        assert_eq!(seen.unwrap(), log);
    }
    let replayed = recorded(storage.subscribe(&scene.scope, lease.run, 0)).await;
    assert_eq!(replayed, log, "after the end it is a replay");
}

/// `subscribe`: a reader that breaks off goes on after the last position it saw.
pub async fn a_subscriber_goes_on_where_it_broke_off(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let mut seen: Vec<Seq> = Vec::new();
    for n in 0..10 {
        let mut stream = storage.subscribe(&scene.scope, lease.run, seen.last().copied().unwrap_or(0));
        storage.append(&lease, vec![message(n), message(n)].into()).await.unwrap();
        while seen.len() < n + 1 {
            if let Some(Live::Recorded(event)) = next(&mut stream).await {
                seen.push(event.seq);
            }
        }
    }
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    let rest = recorded(storage.subscribe(&scene.scope, lease.run, seen.last().copied().unwrap())).await;
    seen.extend(rest.iter().map(|event| event.seq));
    assert!(seen.into_iter().eq(1..=23));
}

/// `subscribe`: however slowly the subscriber reads, it misses nothing recorded, and the run does not wait for it.
pub async fn a_slow_subscriber_misses_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let mut slow = storage.subscribe(&scene.scope, lease.run, 0);
    let first = next(&mut slow).await;
    let never_read = storage.subscribe(&scene.scope, lease.run, 0);
    for batch in 0..12 {
        let events: Vec<_> = (0..250).map(|n| message(batch * 250 + n)).collect();
        storage.append(&lease, events.into()).await.unwrap();
        if batch == 5 {
            for seq in 2..=100 {
                let Some(Live::Recorded(event)) = next(&mut slow).await else { panic!("it ended") };
                assert_eq!(event.seq, seq);
            }
        }
    }
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    let log = scene.log(&storage, lease.run).await;
    assert_eq!(first, Some(Live::Recorded(log[0].clone())));
    assert_eq!(recorded(slow).await, log[100..]);
    drop(never_read);
}

/// `subscribe`: it ends after the event that closes the run, where that was seen before, too.
pub async fn a_subscription_after_the_end_ends(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let ended = storage.settle(&lease, settlement(failed())).await.unwrap();
    assert_eq!(recorded(storage.subscribe(&scene.scope, lease.run, ended.last_seq)).await, []);
    let last = recorded(storage.subscribe(&scene.scope, lease.run, ended.last_seq - 1)).await;
    assert_eq!(last.iter().map(|event| event.seq).collect::<Vec<_>>(), [ended.last_seq]);
}

/// `subscribe`: the end of a run that was requeued is not the end of its log.
pub async fn a_subscription_goes_on_over_a_requeue(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.failed(&storage).await;
    let first_life = recorded(storage.subscribe(&scene.scope, run.id, 0)).await;
    assert_eq!(first_life, scene.log(&storage, run.id).await);
    storage.request(&scene.scope, run.id, Request::Requeue).await.unwrap();
    let from_the_start = tokio::spawn(recorded(storage.subscribe(&scene.scope, run.id, 0)));
    let from_the_end = tokio::spawn(recorded(storage.subscribe(&scene.scope, run.id, run.last_seq)));
    let at_the_end = tokio::spawn(recorded(storage.subscribe(&scene.scope, run.id, run.last_seq - 1)));
    let lease = claim(&storage, run.id, LONG).await.lease;
    storage.append(&lease, vec![message(1)].into()).await.unwrap();
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    let log = scene.log(&storage, run.id).await;
    use RunStatus::{Failed, Queued, Running, Succeeded};
    let expected = [Queued, Running, Failed, Queued, Running, Succeeded];
    assert_eq!(scene.states(&storage, run.id).await, expected);
    assert_eq!(from_the_start.await.unwrap(), log);
    assert_eq!(from_the_end.await.unwrap(), log[first_life.len()..]);
    assert_eq!(at_the_end.await.unwrap(), log[first_life.len() - 1..]);
}

/// `subscribe`: what people do to a run that nobody works is seen too, and its end.
pub async fn a_subscriber_hears_of_what_people_do(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let mut stream = storage.subscribe(&scene.scope, run, 1);
    for (request, status) in [
        (Request::Pause, RunStatus::Paused),
        (Request::Resume, RunStatus::Queued),
        (Request::Cancel, RunStatus::Cancelled),
    ] {
        storage.request(&scene.scope, run, request).await.unwrap();
        let Some(Live::Recorded(event)) = next(&mut stream).await else { panic!("it ended") };
        assert!(
            matches!(event.event, AgentEvent::Status { status: seen, .. } if seen == status),
            "{event:?}"
        );
    }
    assert_eq!(next(&mut stream).await, None);
}

/// `append`: ephemeral events reach those who are there, get no position, and are not kept.
pub async fn ephemeral_events_are_seen_and_not_kept(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let mut stream = storage.subscribe(&scene.scope, lease.run, 2);
    // Any of them may be dropped, but not all.
    let seen = eventually("an ephemeral event is seen", async || {
        assert_eq!(storage.append(&lease, vec![delta("hel")].into()).await.unwrap(), []);
        tokio::time::timeout(Duration::from_millis(50), stream.next()).await.ok()
    })
    .await;
    assert_eq!(seen.unwrap().unwrap(), Live::Ephemeral(delta("hel")));
    let appended = storage.append(&lease, vec![delta("lo"), message(1)].into()).await.unwrap();
    assert_eq!(appended.iter().map(|event| event.seq).collect::<Vec<_>>(), [3]);
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    assert_eq!(scene.log(&storage, lease.run).await.len(), 4);
    assert_eq!(recorded(stream).await.len(), 2);
}

/// `append`: ephemeral events that are seen are in their place among the others.
pub async fn ephemeral_events_keep_their_place(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let mut stream = storage.subscribe(&scene.scope, lease.run, 2);
    let reader = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(live) = next(&mut stream).await {
            seen.push(live);
        }
        seen
    });
    for n in 0..50 {
        let piece = |part| delta(&format!("{n}.{part}"));
        let events = vec![piece(0), message(3 * n), piece(1), piece(2), message(3 * n + 1), piece(3)];
        storage.append(&lease, events.into()).await.unwrap();
        tokio::task::yield_now().await;
        storage.append(&lease, vec![message(3 * n + 2)].into()).await.unwrap();
    }
    storage.settle(&lease, settlement(succeeded())).await.unwrap();
    let mut last = (0, 0);
    for live in reader.await.unwrap() {
        let place = match live {
            Live::Recorded(event) => match event.event {
                AgentEvent::Message { text, .. } => {
                    let n: usize = text.trim_start_matches("message ").parse().unwrap();
                    (n / 3, [1, 4, 6][n % 3])
                }
                _ => continue,
            },
            Live::Ephemeral(AgentEvent::Delta { text }) => {
                let (n, part) = text.split_once('.').unwrap();
                (n.parse().unwrap(), [0, 2, 3, 5][part.parse::<usize>().unwrap()])
            }
            Live::Ephemeral(other) => panic!("{other:?}"),
        };
        assert!(place >= last, "{place:?} came after {last:?}");
        last = place;
    }
    assert_eq!(last, (49, 6));
}
