//! How what happens in one process is seen in another.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use lime_conformance::scene::{LONG, Scene, settlement, succeeded, worker};
use lime_core::memory::MemoryStorage;
use lime_core::ports::{EventLog, EventStream, Live, Queue, Request};
use lime_core::runs::{AgentEvent, Lease, RunEvent};
use lime_core::{ErrorKind, Id, LiveHub};
use lime_queue_redis::{RedisOptions, RedisQueue};

use crate::support::work::{Memory, memory, scene, submit};
use crate::support::{Place, Server, eventually, run};

fn log(text: impl Into<String>) -> AgentEvent {
    AgentEvent::Log { text: text.into() }
}

fn delta(text: &str) -> AgentEvent {
    AgentEvent::Delta { text: text.into() }
}

/// A process that only hears what it is told: it does not look at the log by itself.
fn listener(place: &Place, storage: &Arc<MemoryStorage>) -> Memory {
    let options = RedisOptions { look_every: Duration::from_secs(3_600), ..place.options() };
    RedisQueue::new(storage.clone(), &place.url, options).unwrap()
}

async fn begin(queue: &Memory, scene: &Scene) -> Lease {
    submit(queue, scene, 1).await;
    eventually("the run is begun", async || queue.claim(&worker(), 1, LONG).await.unwrap().pop()).await.lease
}

async fn next(stream: &mut EventStream) -> Option<Live> {
    let next = tokio::time::timeout(Duration::from_secs(20), stream.next());
    next.await.expect("the subscription hangs").map(Result::unwrap)
}

async fn rest(mut stream: EventStream) -> Vec<RunEvent> {
    let mut events = Vec::new();
    while let Some(live) = next(&mut stream).await {
        if let Live::Recorded(event) = live {
            events.push(event);
        }
    }
    events
}

/// Waits until somebody listens to a run.
async fn listened_to(place: &Place, lease: &Lease, listeners: usize) {
    let mut ask = redis::cmd("PUBSUB");
    ask.arg("NUMSUB").arg(format!("{}:run:{}", place.prefix, lease.run));
    eventually("somebody listens", async || {
        let (_, count): (String, usize) = run(&place.url, &ask).await.unwrap();
        (count == listeners).then_some(())
    })
    .await;
}

#[tokio::test]
async fn everything_is_seen_in_another_process() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let mut seen = there.subscribe(&scene.scope, lease.run, 2);
    let other = tokio::spawn(rest(there.subscribe(&scene.scope, lease.run, 0)));
    // The first look at the log, then nothing but what is told.
    let first = tokio::time::timeout(Duration::from_millis(50), seen.next()).await;
    assert!(first.is_err(), "{first:?}");
    listened_to(&place, &lease, 1).await;
    for n in 0..20 {
        let events = vec![delta("a"), log(format!("{n} one")), delta("b"), log(format!("{n} two"))];
        let recorded = here.append(&lease, events.into()).await.unwrap();
        let expected = [
            Live::Ephemeral(delta("a")),
            Live::Recorded(recorded[0].clone()),
            Live::Ephemeral(delta("b")),
            Live::Recorded(recorded[1].clone()),
        ];
        for expected in expected {
            assert_eq!(next(&mut seen).await, Some(expected));
        }
    }
    here.settle(&lease, settlement(succeeded())).await.unwrap();
    let all = here.read(&scene.scope, lease.run, 0, 1_000).await.unwrap();
    assert_eq!(rest(seen).await, all[all.len() - 1..]);
    assert_eq!(other.await.unwrap(), all);
    listened_to(&place, &lease, 0).await;
}

#[tokio::test]
async fn what_is_written_elsewhere_than_by_append_is_seen_too() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let run = *submit(&here, &scene, 1).await.iter().next().unwrap();
    let seen = tokio::spawn(rest(there.subscribe(&scene.scope, run, 0)));
    let lease = Lease { tenant: scene.scope.tenant(), run, attempt: Id::new(1) };
    listened_to(&place, &lease, 1).await;
    here.request(&scene.scope, run, Request::Pause).await.unwrap();
    here.request(&scene.scope, run, Request::Resume).await.unwrap();
    here.request(&scene.scope, run, Request::Cancel).await.unwrap();
    assert_eq!(seen.await.unwrap(), storage.read(&scene.scope, run, 0, 100).await.unwrap());
}

#[tokio::test]
async fn what_is_too_much_to_tell_is_read() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let seen = tokio::spawn(rest(there.subscribe(&scene.scope, lease.run, 0)));
    listened_to(&place, &lease, 1).await;
    for _ in 0..40 {
        here.append(&lease, vec![log("x".repeat(200_000)), log("small")].into()).await.unwrap();
        here.append(&lease, vec![log("small")].into()).await.unwrap();
    }
    here.settle(&lease, settlement(succeeded())).await.unwrap();
    assert_eq!(seen.await.unwrap(), storage.read(&scene.scope, lease.run, 0, 1_000).await.unwrap());
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_holds_nobody_up() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let slow = there.subscribe(&scene.scope, lease.run, 0);
    let quick = tokio::spawn(rest(there.subscribe(&scene.scope, lease.run, 0)));
    listened_to(&place, &lease, 1).await;
    for n in 0..3_000 {
        here.append(&lease, vec![log(format!("{n}"))].into()).await.unwrap();
    }
    here.settle(&lease, settlement(succeeded())).await.unwrap();
    let all = storage.read(&scene.scope, lease.run, 0, 10_000).await.unwrap();
    assert_eq!(quick.await.unwrap(), all);
    assert_eq!(rest(slow).await, all);
}

#[tokio::test]
async fn what_was_told_too_quickly_is_read() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let queue = listener(&place, &storage);
    let scene = scene(&storage).await;
    let lease = begin(&queue, &scene).await;
    let mut seen = queue.subscribe(&scene.scope, lease.run, 2);
    // It has looked at the log, and once more when it began to listen.
    for _ in 0..2 {
        let none = tokio::time::timeout(Duration::from_millis(50), seen.next()).await;
        assert!(none.is_err(), "{none:?}");
        listened_to(&place, &lease, 1).await;
    }
    // More than is kept for it, and nothing comes after that.
    let mut told = Vec::new();
    while told.len() <= LiveHub::RING {
        let events: Vec<_> = (0..100).map(|n| log(n.to_string())).collect();
        told.extend(queue.append(&lease, events.into()).await.unwrap());
    }
    for event in told {
        assert_eq!(next(&mut seen).await, Some(Live::Recorded(event)));
    }
}

#[tokio::test]
async fn a_cut_connection_costs_nothing_that_is_recorded() {
    let Some(server) = Server::start().await else { return };
    let place = Place::on(server.url());
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let mut seen = there.subscribe(&scene.scope, lease.run, 2);
    // It waits all the time, and so does not notice by itself that it hears nothing.
    let (see, mut seen_there) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move { while see.send(next(&mut seen).await).is_ok() {} });
    let mut seen_there = async || {
        let seen = tokio::time::timeout(Duration::from_secs(10), seen_there.recv());
        seen.await.expect("it is never seen").unwrap()
    };
    listened_to(&place, &lease, 1).await;
    let append = async |text: &str| here.append(&lease, vec![log(text)].into()).await.unwrap().pop().unwrap();
    for kind in ["pubsub", "normal", "pubsub"] {
        let told = append("told").await;
        assert_eq!(seen_there().await, Some(Live::Recorded(told)));
        // The reader waits again.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut kill = redis::cmd("CLIENT");
        let killed: u32 = run(&place.url, kill.arg("KILL").arg("TYPE").arg(kind)).await.unwrap();
        assert!(killed > 0);
        // Nobody hears it, or nobody can say it; and nothing comes after it that would show the gap.
        let unheard = append("unheard").await;
        assert_eq!(seen_there().await, Some(Live::Recorded(unheard)), "after the loss of {kind} connections");
        listened_to(&place, &lease, 1).await;
    }
}

#[tokio::test]
async fn without_redis_the_log_is_looked_at() {
    let Some(mut server) = Server::start().await else { return };
    let place = Place::on(server.url());
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let mut seen = there.subscribe(&scene.scope, lease.run, 2);
    listened_to(&place, &lease, 1).await;
    server.kill();
    let recorded = here.append(&lease, vec![log("nobody tells")].into()).await.unwrap();
    assert_eq!(next(&mut seen).await, Some(Live::Recorded(recorded[0].clone())));
    // In the same process pieces are seen even then.
    let mut own = here.subscribe(&scene.scope, lease.run, 3);
    here.append(&lease, vec![delta("here")].into()).await.unwrap();
    assert_eq!(next(&mut own).await, Some(Live::Ephemeral(delta("here"))));
    assert!(server.up().await);
    listened_to(&place, &lease, 2).await;
    let piece = eventually("pieces are heard again", async || {
        here.append(&lease, vec![delta("there")].into()).await.unwrap();
        tokio::time::timeout(Duration::from_millis(100), seen.next()).await.ok().flatten()
    })
    .await;
    assert_eq!(piece.unwrap(), Live::Ephemeral(delta("there")));
}

#[tokio::test]
async fn another_tenant_sees_nothing() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let (owner, stranger) = (scene(&storage).await, scene(&storage).await);
    let lease = begin(&here, &owner).await;
    let mut seen = there.subscribe(&stranger.scope, lease.run, 0);
    here.append(&lease, vec![log("secret"), delta("secret")].into()).await.unwrap();
    assert_eq!(seen.next().await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(seen.next().await.is_none());
}

#[tokio::test]
async fn lies_on_the_channel_are_not_believed() {
    let Some(place) = Place::new().await else { return };
    let storage = memory();
    let (here, there) = (place.queue(&storage), listener(&place, &storage));
    let scene = scene(&storage).await;
    let lease = begin(&here, &scene).await;
    let seen = tokio::spawn(rest(there.subscribe(&scene.scope, lease.run, 0)));
    listened_to(&place, &lease, 1).await;
    let lie = |seq: i64| {
        format!(
            r#"{{"from":"x","items":[{{"seq":{seq},"ts":"2020-01-01T00:00:00Z","event":{{"type":"log","text":"lie"}}}}]}}"#
        )
    };
    for odd in [String::new(), "{".into(), lie(1), lie(999), lie(1_000)] {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(format!("{}:run:{}", place.prefix, lease.run)).arg(odd);
        let _: u32 = run(&place.url, &publish).await.unwrap();
    }
    here.append(&lease, vec![log("true")].into()).await.unwrap();
    here.settle(&lease, settlement(succeeded())).await.unwrap();
    assert_eq!(seen.await.unwrap(), storage.read(&scene.scope, lease.run, 0, 100).await.unwrap());
}
