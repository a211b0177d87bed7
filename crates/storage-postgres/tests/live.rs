//! Two processes on one database, as two storages: what one records, the other's subscribers see.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use lime_core::ports::{EventLog, EventStream, Live, Queue, Request};
use lime_core::runs::{AgentEvent, AgentRun, Failure, FailureKind, Outcome, RunEvent, Seq};
use lime_core::{Id, Scope};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};
use tokio::time::timeout;

use crate::support::{claim, database, log, open, scene, settlement, submit, texts, texts_of_owner};

const LONG: Duration = Duration::from_secs(600);
/// Far more than a word from another process takes, and far less than the next look without one.
const PROMPT: Duration = Duration::from_secs(20);

/// One who hears of news, or else looks once an hour.
async fn told(fresh: &TestDatabase) -> PgStorage {
    connected(fresh, true).await
}

async fn connected(fresh: &TestDatabase, notify: bool) -> PgStorage {
    let options = PoolOptions { live_poll: Duration::from_secs(3_600), notify, ..PoolOptions::default() };
    PgStorage::connect(fresh.url(), &options).await.unwrap()
}

async fn next(stream: &mut EventStream) -> RunEvent {
    loop {
        let live = timeout(PROMPT, stream.next()).await.expect("no news came").expect("the stream ended");
        if let Live::Recorded(event) = live.unwrap() {
            return event;
        }
    }
}

/// Takes what comes up to a position, of which nothing is missing or repeated.
async fn upto(stream: &mut EventStream, from: Seq, last: Seq) {
    for seq in from..=last {
        assert_eq!(next(stream).await.seq, seq);
    }
}

/// The server processes that listen.
async fn listeners(storage: &PgStorage) -> Vec<String> {
    let sql = "SELECT pid::text FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'assembly-lime listener' AND query LIKE 'LISTEN%'";
    texts_of_owner(storage, sql).await
}

async fn listens(storage: &PgStorage) -> String {
    for _ in 0..400 {
        if let Some(pid) = listeners(storage).await.pop() {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody listens");
}

async fn say(storage: &PgStorage, lease: &lime_core::runs::Lease, count: usize) {
    for n in 0..count {
        storage.append(lease, vec![log(n.to_string())].into()).await.unwrap();
    }
}

/// Lets a stream come to the end of the log, where it waits for news.
async fn rest(stream: &mut EventStream) {
    assert!(timeout(Duration::from_millis(300), stream.next()).await.is_err(), "there is more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_has_read_what_is_new_keeps_it_from_nobody() {
    let Some(fresh) = database().await else { return };
    let here = connected(&fresh, false).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let lease = claim(&here, LONG).await.lease;
    let mut first = there.subscribe(&scope, lease.run, 0);
    upto(&mut first, 1, 2).await;
    rest(&mut first).await;
    say(&here, &lease, 1).await;
    let mut second = there.subscribe(&scope, lease.run, 0);
    upto(&mut second, 1, 3).await;
    rest(&mut second).await;
    let word = format!("NOTIFY lime, '1 ff l{}'", lease.run);
    here.connection().execute_unprepared(&word).await.unwrap();
    upto(&mut first, 3, 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_elsewhere_is_told_at_once_and_misses_nothing() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let lease = claim(&here, LONG).await.lease;
    let mut streams: Vec<_> = (0..5).map(|_| there.subscribe(&scope, lease.run, 0)).collect();
    for stream in &mut streams {
        upto(stream, 1, 2).await;
    }
    listens(&here).await;
    for round in 0..20 {
        say(&here, &lease, 3).await;
        let from = 3 + round * 3;
        join_all(streams.iter_mut().map(|stream| upto(stream, from, from + 2))).await;
    }
    here.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    for stream in &mut streams {
        assert!(next(stream).await.event.is_final());
        assert!(timeout(PROMPT, stream.next()).await.unwrap().is_none(), "the end is the end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_that_write_one_log_are_seen_in_its_order() {
    let Some(fresh) = database().await else { return };
    let one = open(&fresh).await;
    let (other, third) = (told(&fresh).await, told(&fresh).await);
    let (scope, project) = scene(&one).await;
    submit(&one, &scope, &project).await;
    let lease = claim(&one, LONG).await.lease;
    let mut streams: Vec<_> =
        [&one, &other, &third].map(|storage| storage.subscribe(&scope, lease.run, 0)).into();
    let writers = [one.clone(), other.clone()]
        .map(|storage| tokio::spawn(async move { say(&storage, &lease, 50).await }));
    join_all(streams.iter_mut().map(|stream| upto(stream, 1, 102))).await;
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_loses_its_connection_comes_back() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let lease = claim(&here, LONG).await.lease;
    let mut stream = there.subscribe(&scope, lease.run, 0);
    upto(&mut stream, 1, 2).await;
    let mut seen = 2;
    for _ in 0..3 {
        let pid = listens(&here).await;
        let kill = format!("SELECT pg_terminate_backend({pid})::text");
        assert_eq!(texts_of_owner(&here, &kill).await, ["true"]);
        // Recorded while nobody listens, and told to nobody.
        say(&here, &lease, 2).await;
        upto(&mut stream, seen + 1, seen + 2).await;
        let another = listens(&here).await;
        assert_ne!(another, pid);
        say(&here, &lease, 1).await;
        upto(&mut stream, seen + 3, seen + 3).await;
        seen += 3;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn news_of_the_line_and_of_requests_reaches_those_who_wait_elsewhere() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    // The first call begins to listen, which is a wake-up for nothing.
    drop(timeout(Duration::from_millis(10), there.queued()).await);
    listens(&here).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let waiting = tokio::spawn({
        let there = there.clone();
        async move { there.queued().await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "it was woken for nothing");
    let run = submit(&here, &scope, &project).await;
    timeout(PROMPT, waiting).await.expect("nobody was told of the run").unwrap();
    let lease = claim(&there, LONG).await.lease;
    let asked = tokio::spawn({
        let there = there.clone();
        async move { there.signalled(&lease).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!asked.is_finished(), "it was woken for nothing");
    here.request(&scope, run.id, Request::Cancel).await.unwrap();
    timeout(PROMPT, asked).await.expect("the worker was not told of the request").unwrap();
    assert!(there.heartbeat(&lease, LONG).await.unwrap().cancel);
}

/// A pooler takes `LISTEN` away, so that one only looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_told_looks() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let options =
        PoolOptions { live_poll: Duration::from_millis(20), notify: false, ..PoolOptions::default() };
    let there = PgStorage::connect(fresh.url(), &options).await.unwrap();
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let lease = claim(&here, LONG).await.lease;
    let mut stream = there.subscribe(&scope, lease.run, 0);
    upto(&mut stream, 1, 2).await;
    say(&here, &lease, 2).await;
    upto(&mut stream, 3, 4).await;
    assert_eq!(listeners(&here).await, [""; 0]);
}

/// What a slow one has missed it reads from the log, and the run does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_slows_nobody_and_misses_nothing() {
    const MANY: usize = 3_000;
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let lease = claim(&here, LONG).await.lease;
    let mut slow: Vec<_> = [&here, &there].map(|storage| storage.subscribe(&scope, lease.run, 0)).into();
    for stream in &mut slow {
        upto(stream, 1, 2).await;
    }
    for _ in 0..MANY / 100 {
        let events: Vec<AgentEvent> = (0..100).map(|n| log(n.to_string())).collect();
        here.append(&lease, events.into()).await.unwrap();
    }
    here.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    let last = Seq::try_from(MANY).unwrap() + 3;
    for stream in &mut slow {
        upto(stream, 3, last).await;
        assert!(timeout(PROMPT, stream.next()).await.unwrap().is_none());
    }
}

async fn fail(storage: &PgStorage) -> Id<AgentRun> {
    let lease = claim(storage, LONG).await.lease;
    let failed = Outcome::Failed(Failure::new(FailureKind::Network, "no"));
    storage.settle(&lease, settlement(failed)).await.unwrap();
    lease.run
}

async fn everything(storage: &PgStorage, scope: &Scope, run: Id<AgentRun>) -> Vec<Seq> {
    let mut stream = storage.subscribe(scope, run, 0);
    let mut seen = Vec::new();
    while let Some(live) = timeout(PROMPT, stream.next()).await.expect("the stream hangs") {
        if let Live::Recorded(event) = live.unwrap() {
            seen.push(event.seq);
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_requeued_goes_on_after_its_end() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    submit(&here, &scope, &project).await;
    let run = fail(&here).await;
    assert_eq!(everything(&there, &scope, run).await, [1, 2, 3]);
    here.request(&scope, run, Request::Requeue).await.unwrap();
    let mut stream = there.subscribe(&scope, run, 0);
    upto(&mut stream, 1, 4).await;
    listens(&here).await;
    fail(&here).await;
    upto(&mut stream, 5, 6).await;
    assert!(timeout(PROMPT, stream.next()).await.unwrap().is_none());
    assert_eq!(everything(&there, &scope, run).await, [1, 2, 3, 4, 5, 6]);
    let rest: Vec<_> = timeout(PROMPT, there.subscribe(&scope, run, 6).collect()).await.expect("it hangs");
    assert!(rest.is_empty(), "{rest:?}");
}

/// Nothing holds on to a storage that is dropped: its connections go, the one that listens too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_is_dropped_leaves_no_connection() {
    let Some(fresh) = database().await else { return };
    let here = open(&fresh).await;
    let there = told(&fresh).await;
    let (scope, project) = scene(&here).await;
    let run = submit(&there, &scope, &project).await;
    let mut stream = there.subscribe(&scope, run.id, 0);
    upto(&mut stream, 1, 1).await;
    listens(&here).await;
    drop(stream);
    drop(there);
    let others = "SELECT pid::text FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'assembly-lime%' AND pid <> pg_backend_pid()";
    for _ in 0..200 {
        // Those of this storage are idle, and are not closed.
        if listeners(&here).await.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(listeners(&here).await, [""; 0]);
    here.close().await;
    let fresh_eyes = connected(&fresh, false).await;
    for _ in 0..200 {
        if texts(fresh_eyes.connection(), others).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left over: {:?}", texts(fresh_eyes.connection(), others).await);
}
