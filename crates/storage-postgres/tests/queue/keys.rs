//! One run for a key, however many want one at once.

use std::time::Duration;

use futures_util::future::join_all;
use lime_core::planning::Project;
use lime_core::ports::Queue;
use lime_core::runs::AgentRun;
use lime_core::{Id, LookupExt, Query, Scope, Store, Stored};
use lime_storage_postgres::PgStorage;

use crate::support::{a_run, database, open, scene, texts};

const AT_ONCE: usize = 64;

/// Stores a run in a transaction of its own that does not last.
async fn submit_and_roll_back(storage: &PgStorage, scope: &Scope, run: AgentRun, pause: Duration) {
    let transaction = storage.connection().begin().await.unwrap();
    storage.submit_in(&transaction, scope, vec![run]).await.unwrap();
    tokio::time::sleep(pause).await;
    transaction.rollback().await.unwrap();
}

async fn round(storage: &PgStorage, scope: &Scope, project: &Stored<Project>, number: usize) {
    let key = format!("round {number}");
    let run = AgentRun { unique_key: Some(key.clone()), ..a_run(project) };
    let submits = (0..AT_ONCE).map(|n| {
        let (storage, scope, run) = (storage.clone(), scope.clone(), run.clone());
        tokio::spawn(async move {
            if n % 2 == number % 2 {
                let pause = Duration::from_micros((n % 5 * 200).try_into().unwrap());
                submit_and_roll_back(&storage, &scope, run, pause).await;
                None
            } else {
                Some(storage.submit(&scope, run).await.unwrap().id)
            }
        })
    });
    let mut ids: Vec<Id<AgentRun>> = join_all(submits).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(ids.len(), AT_ONCE / 2);
    ids.dedup();
    let [id] = ids[..] else { panic!("round {number} made {ids:?}") };
    let query = Query::<AgentRun>::all().filter(AgentRun::UNIQUE_KEY.eq(key.clone()));
    let stored = storage.all(scope, query).await.unwrap();
    assert_eq!(stored.iter().map(|run| run.id).collect::<Vec<_>>(), [id]);
}

async fn rounds(count: usize) {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    for number in 0..count {
        round(&storage, &scope, &project, number).await;
    }
    let places =
        "SELECT concat_ws(' ', (SELECT count(*) FROM run_queue), (SELECT count(*) FROM agent_events))";
    assert_eq!(texts(storage.connection(), places).await, [format!("{count} {count}")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_at_once_with_half_of_them_rolled_back_are_one_run() {
    rounds(6).await;
}

/// The same for long: `cargo test -p lime-storage-postgres --test queue -- --ignored`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn a_thousand_rounds_of_sixty_four_at_once_are_a_thousand_runs() {
    rounds(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_comes_and_goes_with_the_transaction_that_it_is_submitted_in() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let key = |key: &str| AgentRun { unique_key: Some(key.into()), ..a_run(&project) };
    let transaction = storage.connection().begin().await.unwrap();
    let runs = vec![a_run(&project), key("a"), key("b"), key("a")];
    let stored = storage.submit_in(&transaction, &scope, runs.clone()).await.unwrap();
    assert_eq!(stored[1], stored[3], "two of the list with the same key are one run");
    assert!(stored[0].id < stored[1].id && stored[1].id < stored[2].id, "{stored:?}");
    assert_eq!(storage.depth().await.unwrap().ready, 0);
    transaction.commit().await.unwrap();
    assert_eq!(storage.depth().await.unwrap().ready, 3);
    assert_eq!(storage.submit_all(&scope, runs[1..].to_vec()).await.unwrap()[0], stored[1]);

    let transaction = storage.connection().begin().await.unwrap();
    storage.submit_in(&transaction, &scope, vec![a_run(&project)]).await.unwrap();
    drop(transaction);
    let wrong = AgentRun { project_id: Id::new(7_777), ..a_run(&project) };
    assert!(storage.submit_all(&scope, vec![a_run(&project), wrong]).await.is_err());
    assert_eq!(storage.all(&scope, Query::<AgentRun>::all()).await.unwrap().len(), 3);
    storage.insert(&scope, Project::new("Q", "Q")).await.unwrap();
}

/// Transactions that want the same keys wait for each other in turn, in whatever order they name them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_the_same_keys_do_not_block_each_other() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let lists = (0..16).map(|n| {
        let (storage, scope, project) = (storage.clone(), scope.clone(), project.clone());
        tokio::spawn(async move {
            let mut keys: Vec<_> = (0..20).collect();
            keys.rotate_left(n);
            if n % 2 == 0 {
                keys.reverse();
            }
            let run = |key| AgentRun { unique_key: Some(format!("k{key}")), ..a_run(&project) };
            storage.submit_all(&scope, keys.into_iter().map(run).collect()).await.unwrap()
        })
    });
    for list in join_all(lists).await {
        assert_eq!(list.unwrap().len(), 20);
    }
    assert_eq!(storage.depth().await.unwrap().ready, 20);
}
