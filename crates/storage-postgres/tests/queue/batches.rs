//! The calls of many as one statement: each gets its own answer.

use futures_util::future::join_all;
use lime_core::planning::Project;
use lime_core::ports::{Handback, Queue};
use lime_core::runs::{AgentRun, Lease, Outcome, RunStatus};
use lime_core::{ErrorKind, Id, Store};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

use crate::support::{LONG, a_run, database, open, options, scene, settlement, texts, worker};

/// With one batch at a time, so that those who come while it is under way are together in the next one.
async fn one_at_a_time(fresh: &TestDatabase) -> PgStorage {
    let options = PoolOptions { max_connections: 2, ..options() };
    PgStorage::connect(fresh.url(), &options).await.unwrap()
}

#[tokio::test]
async fn a_run_that_cannot_be_stored_does_not_keep_others_from_it() {
    let Some(fresh) = database().await else { return };
    open(&fresh).await;
    let storage = one_at_a_time(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let runs = (0..40_i64).map(|n| match n {
        13 => AgentRun { project_id: Id::new(7_777), ..a_run(&project) },
        27 => AgentRun { input_prompt: " ".into(), ..a_run(&project) },
        _ => AgentRun { priority: i16::try_from(n).unwrap(), ..a_run(&project) },
    });
    let submits = runs.map(|run| storage.submit(&scope, run));
    for (n, stored) in join_all(submits).await.into_iter().enumerate() {
        match stored {
            Ok(run) => assert_eq!(usize::try_from(run.priority).unwrap(), n),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid, "{n}: {error}");
                assert!([13, 27].contains(&n), "{n}: {error}");
            }
        }
    }
    assert_eq!(storage.depth().await.unwrap().ready, 38);
}

#[tokio::test]
async fn an_attempt_that_cannot_end_does_not_keep_others_from_it() {
    let Some(fresh) = database().await else { return };
    open(&fresh).await;
    let storage = one_at_a_time(&fresh).await;
    let mut leases = Vec::new();
    for _ in 0..5 {
        let (scope, _) = scene(&storage).await;
        let wide = Project { max_concurrent_agents: 10, ..Project::new("P", "WIDE") };
        let project = storage.insert(&scope, wide).await.unwrap();
        storage.submit_all(&scope, vec![a_run(&project); 8]).await.unwrap();
    }
    for claim in storage.claim(&worker(), 100, LONG).await.unwrap() {
        leases.push(claim.lease);
    }
    assert_eq!(leases.len(), 40);
    let forged = |lease: &Lease| Lease { attempt: Id::new(lease.attempt.raw() + 1_000), ..*lease };
    let endings = leases.iter().enumerate().map(|(n, lease)| {
        let storage = storage.clone();
        let lease = *lease;
        async move {
            match n % 8 {
                0 => (
                    storage.settle(&forged(&lease), settlement(Outcome::Cancelled)).await,
                    RunStatus::Running,
                ),
                1 => (storage.hand_back(&lease, Handback::released()).await, RunStatus::Queued),
                _ => {
                    let done = settlement(Outcome::Succeeded { summary: None });
                    (storage.settle(&lease, done).await, RunStatus::Succeeded)
                }
            }
        }
    });
    for (n, (ended, status)) in join_all(endings).await.into_iter().enumerate() {
        match ended {
            Ok(run) => assert_eq!((run.id, run.status), (leases[n].run, status)),
            Err(error) => {
                assert_eq!((n % 8, error.kind()), (0, ErrorKind::StaleLease), "{n}: {error}");
            }
        }
    }
    // Of two with the same lease in one batch, one is in time.
    let twice = (0..2).map(|_| storage.settle(&leases[0], settlement(Outcome::Cancelled)));
    let ended = join_all(twice).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(ended, 1);
    let states = "SELECT status || ' ' || count(*) FROM agent_runs GROUP BY status ORDER BY status";
    assert_eq!(
        texts(storage.connection(), states).await,
        ["cancelled 1", "queued 5", "running 4", "succeeded 30"]
    );
}

/// A row that another version has written is its own caller's trouble only.
#[tokio::test]
async fn a_run_that_cannot_be_read_does_not_keep_others_from_ending() {
    let Some(fresh) = database().await else { return };
    open(&fresh).await;
    let storage = one_at_a_time(&fresh).await;
    let (scope, project) = scene(&storage).await;
    storage.submit_all(&scope, vec![a_run(&project); 3]).await.unwrap();
    let claims = storage.claim(&worker(), 3, LONG).await.unwrap();
    let strange = format!("UPDATE agent_runs SET tool_calls = '7' WHERE id = {}", claims[1].lease.run);
    storage.connection().execute_unprepared(&strange).await.unwrap();
    let endings = claims.iter().map(|claim| storage.settle(&claim.lease, settlement(Outcome::Cancelled)));
    let kinds: Vec<_> = join_all(endings)
        .await
        .into_iter()
        .map(|ended| ended.map(|run| run.status).map_err(|error| error.kind()))
        .collect();
    assert_eq!(kinds, [Ok(RunStatus::Cancelled), Err(ErrorKind::Corrupt), Ok(RunStatus::Cancelled)]);
}
