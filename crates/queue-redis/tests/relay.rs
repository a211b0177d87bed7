//! What relays take, and for whom.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use lime_conformance::scene::LONG;
use lime_core::memory::MemoryStorage;
use lime_core::ports::{Clock, Queue};
use lime_queue_redis::{RedisOptions, RedisQueue};

use crate::support::work::{LINE, Memory, end, memory, named, scene, submit};
use crate::support::{Place, eventually, run};

/// As long as a relay may need to hear what was said, or to do what it must not do.
const A_MOMENT: Duration = Duration::from_millis(100);

/// The clock of a database that does not answer while it is told so.
#[derive(Clone, Default)]
struct Stuck(Arc<AtomicBool>);

impl Clock for Stuck {
    fn now(&self) -> DateTime<Utc> {
        while self.0.load(Ordering::Relaxed) {
            // Whatever else is to be done on this thread is done on another.
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(1)));
        }
        Utc::now()
    }
}

/// Waits long enough for a relay to look at the queue of its own accord, and tells how many runs are held.
async fn held(storage: &MemoryStorage) -> u64 {
    tokio::time::sleep(Duration::from_millis(700)).await;
    storage.depth().await.unwrap().leased
}

async fn is_empty(queue: &Memory, worker: &str, room: usize) -> bool {
    queue.claim(&named(worker), room, LONG).await.unwrap().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_who_waits_no_longer() {
    let Some(mut place) = Place::new().await else { return };
    let stuck = Stuck::default();
    let storage = Arc::new(MemoryStorage::with_clock(stuck.clone()));
    let options = RedisOptions { answer_within: Duration::from_millis(200), ..place.options() };
    let server = RedisQueue::new(storage.clone(), &place.url, options.clone()).unwrap();
    place.relay(&server).await;
    let scene = scene(&storage).await;
    submit(&server, &scene, 10).await;
    stuck.0.store(true, Ordering::Relaxed);
    for n in 0..5 {
        // Behind its Redis is nothing: what it has, it has from the relay.
        let worker = RedisQueue::new(memory(), &place.url, options.clone()).unwrap();
        let leases = worker.take(&named(&format!("worker {n}")), 3, LONG).await.unwrap();
        assert!(leases.is_empty(), "a relay answers that cannot look");
    }
    stuck.0.store(false, Ordering::Relaxed);
    assert_eq!(held(&storage).await, 3, "what was taken when it hung, and nothing after that");
    let worker = RedisQueue::new(memory(), &place.url, options).unwrap();
    let mut taken = 0;
    eventually("the others are there for who asks now", async || {
        taken += worker.take(&named("late"), 10, LONG).await.unwrap().len();
        (taken == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_kept_though_the_duty_is_lost() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { hand_over: Duration::from_secs(3_600), ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    submit(&queue, &scene, 3).await;
    // Nothing can be put into a line that is none.
    let (line, duty) = (format!("{}:{LINE}", place.prefix), format!("{}:relay", place.prefix));
    let _: String = run(&place.url, redis::cmd("SET").arg(&line).arg("no line")).await.unwrap();
    let (_, kind) = LINE.split_once(':').unwrap();
    let question = format!("somebody 1 3 {} {kind}", LONG.as_millis());
    let ask = async || {
        let mut ask = redis::cmd("PUBLISH");
        run::<u32>(&place.url, ask.arg(format!("{}:asks", place.prefix)).arg(&question)).await.unwrap()
    };
    assert_eq!(ask().await, 1);
    eventually("the relay has taken them", async || {
        (storage.depth().await.unwrap().leased == 3).then_some(())
    })
    .await;
    let _: String = run(&place.url, redis::cmd("SET").arg(&duty).arg("another")).await.unwrap();
    // It says once a second that it is there, and is told that it is not.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let _: u32 = run(&place.url, redis::cmd("DEL").arg(&line)).await.unwrap();
    let mut taken = 0;
    eventually("they are passed on", async || {
        taken += queue.claim(&named("worker"), 3, LONG).await.unwrap().len();
        (taken == 3).then_some(())
    })
    .await;
    let on_duty: String = run(&place.url, redis::cmd("GET").arg(&duty)).await.unwrap();
    assert_eq!(on_duty, "another");
}

#[tokio::test]
async fn nothing_is_taken_for_a_worker_that_has_no_room() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let (server, process) = (place.queue(&storage), place.queue(&storage));
    place.relay(&server).await;
    let scene = scene(&storage).await;
    assert!(is_empty(&process, "full", 2).await && is_empty(&process, "idle", 1).await);
    assert!(is_empty(&process, "full", 0).await);
    let mut waiting = process.queued();
    assert!((&mut waiting).now_or_never().is_none());
    tokio::time::sleep(A_MOMENT).await;
    submit(&server, &scene, 5).await;
    assert_eq!(held(&storage).await, 1);
}

#[tokio::test]
async fn nothing_is_taken_for_a_worker_that_has_stopped() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let (server, process) = (place.queue(&storage), place.queue(&storage));
    place.relay(&server).await;
    let scene = scene(&storage).await;
    assert!(is_empty(&process, "stops", 2).await);
    let mut waiting = process.queued();
    assert!((&mut waiting).now_or_never().is_none());
    // The other goes on as a worker does, for longer than one is waited for that says nothing.
    for _ in 0..8 {
        assert!(is_empty(&process, "idle", 1).await);
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert!(is_empty(&process, "idle", 1).await);
    tokio::time::sleep(A_MOMENT).await;
    submit(&server, &scene, 5).await;
    assert_eq!(held(&storage).await, 1);
}

#[tokio::test]
async fn a_worker_that_asks_is_not_thought_to_wait_besides() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let (server, process) = (place.queue(&storage), place.queue(&storage));
    place.relay(&server).await;
    let scene = scene(&storage).await;
    for n in 1..=2 {
        let mut waiting = process.queued();
        let heard = (&mut waiting).now_or_never().is_some();
        assert!(!heard && is_empty(&process, "worker", 2).await);
        drop(waiting);
        tokio::time::sleep(A_MOMENT).await;
        submit(&server, &scene, 4).await;
        // It listens before it looks.
        let mut waiting = process.queued();
        let _ = (&mut waiting).now_or_never();
        assert_eq!(process.claim(&named("worker"), 2, LONG).await.unwrap().len(), 2);
        drop(waiting);
        assert_eq!(held(&storage).await, 4 * n - 2, "two of four lie in the line for nobody");
        assert_eq!(process.claim(&named("worker"), 2, LONG).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn relays_that_come_and_go_leave_nothing_behind() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let scene = scene(&storage).await;
    let mut names = redis::cmd("XINFO");
    names.arg("CONSUMERS").arg(format!("{}:{LINE}", place.prefix)).arg("workers");
    for n in 1..=3 {
        let options = RedisOptions { reclaim_after: Duration::from_millis(300), ..place.options() };
        let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
        let relay = place.relay(&queue).await;
        submit(&queue, &scene, 1).await;
        eventually("it is read, and not begun", async || {
            queue.take(&named("killed"), 1, LONG).await.unwrap().pop()
        })
        .await;
        eventually("it is in the line again", async || (place.pushed(LINE).await >= 2 * n).then_some(()))
            .await;
        let claim = eventually("another begins it", async || {
            queue.claim(&named("worker"), 1, LONG).await.unwrap().pop()
        })
        .await;
        end(&queue, &claim).await;
        relay.abort();
        eventually("the relay has gone", async || (!place.exists("relay").await).then_some(())).await;
    }
    let left: Vec<HashMap<String, redis::Value>> = run(&place.url, &names).await.unwrap();
    assert_eq!(left.len(), 3, "the two workers, and one for all relays: {left:?}");
}
