//! What happens to leases that nobody uses, and to takes that a power cut forgets.

use std::time::Duration;

use lime_core::ports::Queue;
use lime_core::runs::{AgentRun, Lease, RunAttempt, RunStatus};
use lime_core::{ErrorKind, Lookup, LookupExt, Query};
use lime_storage_postgres::PgStorage;
use lime_storage_postgres::sea_orm::ConnectionTrait;

use crate::support::{LONG, as_owner, database, open, scene, submit, texts, worker};

/// What a power cut leaves of a take.
const FORGET: &str = "WITH gone AS (DELETE FROM run_leases RETURNING *)
    INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs)
    SELECT run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs FROM gone";

async fn take(storage: &PgStorage, lease: Duration) -> Lease {
    storage.take(&worker(), 1, lease).await.unwrap().pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_never_started_goes_back_without_a_crash() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    for _ in 0..=AgentRun::MAX_CRASHES {
        let lost = take(&storage, Duration::from_millis(1)).await;
        assert_eq!(lost.run, run.id);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(storage.start(&worker(), &[lost], LONG).await.unwrap().is_empty());
    }
    let claim = storage.claim(&worker(), 1, LONG).await.unwrap().pop().unwrap();
    assert_eq!((claim.attempt_number, claim.run.crash_count, claim.run.last_seq), (1, 0, 2));
    assert_eq!(storage.all(&scope, Query::<RunAttempt>::all()).await.unwrap().len(), 1);
}

/// A take is not flushed to disk, so a power cut may forget it: the row is as it was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_that_is_forgotten_does_no_harm() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    let forgotten = take(&storage, LONG).await;
    storage.connection().execute_unprepared(FORGET).await.unwrap();

    assert!(storage.start(&worker(), &[forgotten], LONG).await.unwrap().is_empty());
    assert_eq!(storage.finish(&[forgotten]).await.unwrap(), 0);
    let again = take(&storage, LONG).await;
    assert_eq!(again.run, run.id);
    assert!(storage.start(&worker(), &[forgotten], LONG).await.unwrap().is_empty());
    let claims = storage.start(&worker(), &[forgotten, again, again], LONG).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.lease).collect::<Vec<_>>(), [again]);
    assert!(
        storage.start(&worker(), &[forgotten, again], LONG).await.unwrap().is_empty(),
        "it is begun once"
    );
    let stale = storage.heartbeat(&forgotten, LONG).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::StaleLease);
    let run = Lookup::get(&storage, &scope, run.id).await.unwrap();
    assert_eq!((run.status, run.attempt_count), (RunStatus::Running, 1));
}

/// The sequence of tokens may be forgotten too, so that two workers get the same one: one of them begins the attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_given_twice_begins_one_attempt() {
    let Some(fresh) = database().await else { return };
    let (storage, elsewhere) = (open(&fresh).await, open(&fresh).await);
    let (scope, project) = scene(&storage).await;
    submit(&storage, &scope, &project).await;
    let first = take(&storage, LONG).await;
    let forget = format!("{FORGET}; SELECT setval('run_attempts_id_seq', {}, false)", first.attempt);
    as_owner(&storage, &forget).await;
    let second = take(&elsewhere, LONG).await;
    assert_eq!(first, second);
    let worker = worker();
    let leases = [first];
    let (one, two) =
        tokio::join!(storage.start(&worker, &leases, LONG), elsewhere.start(&worker, &leases, LONG));
    assert_eq!(one.unwrap().len() + two.unwrap().len(), 1);
    assert_eq!(storage.all(&scope, Query::<RunAttempt>::all()).await.unwrap().len(), 1);
}

/// No foreign key keeps the places: they go with their runs, and one that was left behind goes when its lease runs out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_place_of_a_run_that_is_deleted_is_gone() {
    const PLACES: &str = "SELECT run_id::text FROM run_queue UNION ALL SELECT run_id::text FROM run_leases";
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    for _ in 0..3 {
        submit(&storage, &scope, &project).await;
    }
    storage.claim(&worker(), 1, LONG).await.unwrap().pop().unwrap();
    let left = take(&storage, Duration::from_millis(1)).await.run;
    let orphan = format!(
        "ALTER TABLE agent_runs DISABLE TRIGGER drop_place; DELETE FROM agent_runs WHERE id = {left};
         ALTER TABLE agent_runs ENABLE TRIGGER drop_place; DELETE FROM agent_runs"
    );
    as_owner(&storage, &orphan).await;
    assert_eq!(texts(storage.connection(), PLACES).await, [left.to_string()]);
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(texts(storage.connection(), PLACES).await, [""; 0]);
}

/// A worker that goes away while it takes runs leaves none of them lying until their leases run out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_goes_back_at_once() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let run = submit(&storage, &scope, &project).await;
    let worker = worker();
    for micros in (0..40).map(|n| n * 50) {
        let given_up = storage.take(&worker, 1, LONG);
        if let Ok(taken) = tokio::time::timeout(Duration::from_micros(micros), given_up).await {
            for lease in taken.unwrap() {
                assert_eq!(storage.finish(&[lease]).await.unwrap(), 1);
                assert_eq!(storage.sweep().await.unwrap(), 1);
            }
        }
    }
    // Those that were given up may still be under way.
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lease) = storage.take(&worker, 1, LONG).await.unwrap().pop() {
            assert_eq!(lease.run, run.id);
            return;
        }
        assert!(waited < Duration::from_secs(20), "the run is still leased to nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
        waited += Duration::from_millis(5);
    }
}
