//! Many at once, and some who go away in the middle.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::HashSet;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt, StreamExt, TryFutureExt};
use lime_core::planning::Project;
use lime_core::ports::{EventLog, Live, Queue};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, Outcome, ProviderId, RunStatus, RunStep, StepKind, StepStatus,
};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Query, Store};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{PgStorage, PoolOptions};

use crate::support::{LONG, claim, database, log, open, options, scene, settlement, submit, texts, worker};

fn step(run: Id<AgentRun>, key: &str) -> RunStep {
    RunStep {
        run_id: run,
        step_number: 1,
        step_key: key.into(),
        kind: StepKind::Phase,
        status: StepStatus::Running,
        model_id: None,
        usage: None,
        result: None,
        error: None,
        completed_at: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_appenders_leave_no_gap() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    submit(&storage, &scope, &project).await;
    let lease = claim(&storage, LONG).await.lease;
    let appenders = (0..8).map(|who| {
        let storage = storage.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                let events = (0..=n % 3).map(|part| log(format!("{who} {n} {part}"))).collect::<Vec<_>>();
                let recorded = storage.append(&lease, events.clone().into()).await.unwrap();
                let first = recorded[0].seq;
                for (place, (recorded, event)) in recorded.iter().zip(events).enumerate() {
                    assert_eq!(
                        (recorded.seq, &recorded.event),
                        (first + i64::try_from(place).unwrap(), &event)
                    );
                }
            }
        })
    });
    for appended in join_all(appenders).await {
        appended.unwrap();
    }
    let all = storage.read(&scope, lease.run, 0, 10_000).await.unwrap();
    let expected: Vec<_> = (1..=i64::try_from(all.len()).unwrap()).collect();
    assert_eq!(all.iter().map(|event| event.seq).collect::<Vec<_>>(), expected);
    assert!(all.windows(2).all(|pair| pair[0].ts <= pair[1].ts), "times fall");
    let run = storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(run.last_seq, expected.last().unwrap() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_on_their_own_connections_share_nothing() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, _) = scene(&storage).await;
    let mut expected = HashSet::new();
    for key in ["A", "B", "C", "D"] {
        let wide = Project { max_concurrent_agents: 10, ..Project::new("P", key) };
        let wide = storage.insert(&scope, wide).await.unwrap();
        for _ in 0..10 {
            expected.insert(submit(&storage, &scope, &wide).await.id);
        }
    }
    let claimers = (0..8).map(|_| {
        let url = fresh.url().to_owned();
        tokio::spawn(async move {
            let storage =
                PgStorage::connect(&url, &PoolOptions { max_connections: 1, ..options() }).await.unwrap();
            let mut mine = Vec::new();
            loop {
                let claims = storage.claim(&worker(), 3, LONG).await.unwrap();
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims.into_iter().map(|claim| claim.lease.run));
            }
        })
    });
    let claimed: Vec<_> = join_all(claimers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), expected);
}

/// One row that cannot be read must not stop the queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_another_version_is_left_aside() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let strange = submit(&storage, &scope, &project).await;
    let run = submit(&storage, &scope, &project).await;
    let change = format!("UPDATE agent_runs SET tool_calls = '7' WHERE id = {}", strange.id);
    storage.connection().execute_unprepared(&change).await.unwrap();
    for lease in [Duration::from_secs(1), LONG] {
        let claims = storage.claim(&worker(), 10, lease).await.unwrap();
        assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<Vec<_>>(), [run.id]);
        tokio::time::sleep(Duration::from_millis(1_050)).await;
    }
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    let error = Lookup::<AgentRun>::get(&storage, &scope, strange.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// A lease that is being taken away waits for a fenced write under way, and the write after it fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_write_and_the_loss_of_its_lease_are_one_after_the_other() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    submit(&storage, &scope, &project).await;
    let held = claim(&storage, LONG).await;
    // Another connection changes the run and takes its time; the fence must see what it made of it.
    let other = storage.connection().begin().await.unwrap();
    let expire = "UPDATE run_leases SET expires_at = now() - interval '1 second'";
    other.execute_unprepared(expire).await.unwrap();
    let write = {
        let (storage, scope, run) = (storage.clone(), held.scope(), held.lease.run);
        tokio::spawn(async move { storage.insert(&scope, step(run, "late")).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!write.is_finished(), "the write did not wait for the change of the lease");
    other.commit().await.unwrap();
    assert_eq!(write.await.unwrap().unwrap_err().kind(), ErrorKind::StaleLease);
    assert_eq!(
        storage.append(&held.lease, vec![log("late")].into()).await.unwrap_err().kind(),
        ErrorKind::StaleLease
    );
    assert!(storage.all(&scope, Query::<RunStep>::all()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_in_another_process_sees_everything() {
    let Some(fresh) = database().await else { return };
    let (storage, elsewhere) = (open(&fresh).await, open(&fresh).await);
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    let seen = tokio::spawn(elsewhere.subscribe(&scope, run.id, 0).collect::<Vec<_>>());
    let held = claim(&storage, LONG).await;
    for n in 0..5 {
        storage
            .append(&held.lease, vec![log(n.to_string()), AgentEvent::Delta { text: "…".into() }].into())
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    storage.settle(&held.lease, settlement(Outcome::Cancelled)).await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the stream ends").unwrap();
    let positions: Vec<_> = seen
        .into_iter()
        .map(|live| match live.unwrap() {
            Live::Recorded(event) => event.seq,
            Live::Ephemeral(event) => panic!("{event:?} came from another process"),
        })
        .collect();
    assert_eq!(positions, (1..=8).collect::<Vec<_>>());
}

/// Waits for a future until it has been waiting this many times, and then drops it.
async fn given_up<T>(mut call: BoxFuture<'_, T>, times: usize) -> Option<T> {
    let mut waited = 0;
    std::future::poll_fn(move |context| match call.poll_unpin(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if waited == times => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

async fn time(storage: &PgStorage) -> Vec<String> {
    texts(storage.connection(), "SELECT now()::text").await
}

/// Drops calls at every moment, then sees that each has happened as a whole or not at all, and that nothing hangs.
async fn survives_cancelled_calls(storage: PgStorage) {
    let (scope, project) = scene(&storage).await;
    let worker = worker();
    let mut submitted = 0;
    for n in 0..256_usize {
        let run = AgentRun::new(project.id, ProviderId::from_static("replay"), AgentMode::Plan, "x");
        let key = format!("K{n}");
        let call: BoxFuture<'_, lime_core::Result<()>> = match n % 4 {
            0 => storage.submit(&scope, run).map_ok(|_| ()).boxed(),
            1 => storage.claim(&worker, 1, LONG).map_ok(|_| ()).boxed(),
            2 => storage.insert(&scope, Project::new("P", key)).map_ok(|_| ()).boxed(),
            _ => Lookup::get(&storage, &scope, project.id).map_ok(|_| ()).boxed(),
        };
        if let Some(done) = given_up(call, n / 4 % 16).await {
            done.unwrap();
            submitted += usize::from(n % 4 == 0);
        }
        // In a transaction that was left open time stands still, and what follows would never be committed.
        let (first, second) = (time(&storage).await, time(&storage).await);
        assert_ne!(first, second, "call {n} left a transaction open");
    }
    let again = tokio::time::timeout(Duration::from_secs(20), async {
        let kept = storage.insert(&scope, Project::new("Kept", "KEPT")).await.unwrap();
        assert_eq!(Lookup::get(&storage, &scope, kept.id).await.unwrap(), kept);
        storage.all(&scope, Query::<AgentRun>::all()).await.unwrap()
    });
    let runs = again.await.expect("the storage still answers");
    assert!(runs.len() >= submitted, "{} of {submitted} submitted runs are left", runs.len());
    for run in runs {
        let log = storage.read(&scope, run.id, 0, 100).await.unwrap();
        assert_eq!(i64::try_from(log.len()).unwrap(), run.last_seq, "half a change of {run:?}");
        let expected = if run.status == RunStatus::Queued { 1 } else { 2 };
        assert_eq!(log.len(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_survives_cancelled_calls() {
    let Some(fresh) = database().await else { return };
    open(&fresh).await;
    let one = PoolOptions { max_connections: 1, ..options() };
    survives_cancelled_calls(PgStorage::connect(fresh.url(), &one).await.unwrap()).await;
}

#[cfg(feature = "embedded")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_database_survives_cancelled_calls() {
    let embedded = lime_storage_postgres::Embedded::temporary().await.unwrap();
    survives_cancelled_calls(embedded.storage()).await;
    embedded.close().await.unwrap();
}

/// A stream that nobody polls must not keep the connection that it has begun to read on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_not_polled_holds_nobody_up() {
    let Some(fresh) = database().await else { return };
    let options = PoolOptions { max_connections: 1, acquire_timeout: Duration::from_secs(5), ..options() };
    let storage = PgStorage::connect(fresh.url(), &options).await.unwrap();
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    for _ in 0..20 {
        let mut stream = storage.subscribe(&scope, run.id, 0);
        if stream.next().now_or_never().is_some() {
            continue; // the page was there at once, so nothing was left half read
        }
        Lookup::get(&storage, &scope, run.id).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok(), "the stream goes on where it was");
    }
}
