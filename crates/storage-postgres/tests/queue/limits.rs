//! How many are at work at once, and whose turn it is.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use lime_core::identity::{Tenant, Tenants};
use lime_core::planning::Project;
use lime_core::ports::{Handback, Queue};
use lime_core::runs::{AgentRun, Outcome};
use lime_core::{Id, Scope, Store, Stored};
use lime_storage_postgres::{PgStorage, PoolOptions};

use crate::support::{LONG, a_run, database, open, options, scene, settlement, texts, worker};

/// Who is over a limit right now.
const OVER: &str = "WITH leased AS (SELECT * FROM run_leases)
    SELECT 'tenant ' || tenant.id FROM tenants AS tenant JOIN leased ON leased.tenant_id = tenant.id
    GROUP BY tenant.id HAVING count(*) > tenant.max_concurrent_runs
    UNION ALL
    SELECT 'project ' || project.id FROM projects AS project JOIN leased ON leased.project_id = project.id
    GROUP BY project.id HAVING count(*) > project.max_concurrent_agents
    UNION ALL
    SELECT 'agent ' || agent_id FROM leased WHERE agent_id <> 0 GROUP BY tenant_id, agent_id HAVING count(*) > 1";

async fn project(storage: &PgStorage, scope: &Scope, key: &str, most: i32) -> Stored<Project> {
    let project = Project { max_concurrent_agents: most, ..Project::new("P", key) };
    storage.insert(scope, project).await.unwrap()
}

/// Takes runs up until none is left; now and then it goes away in the middle of a call.
async fn claims(storage: PgStorage, seed: u64) {
    let lease = Duration::from_secs(3);
    for n in seed.. {
        let patience = if n % 5 == 0 { Duration::from_micros(n % 13 * 300) } else { LONG };
        let max = usize::try_from(n % 4 + 1).unwrap();
        let claims = tokio::time::timeout(patience, storage.claim(&worker(), max, lease)).await;
        for (place, claim) in claims.unwrap_or(Ok(Vec::new())).unwrap().into_iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(n % 3)).await;
            // A slow machine may lose a lease meanwhile; then another has the run.
            drop(match (n + place as u64) % 7 {
                0 => storage.hand_back(&claim.lease, Handback::released()).await,
                _ => storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await,
            });
        }
        let depth = storage.depth().await.unwrap();
        if depth.ready + depth.leased == 0 {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_limit_is_passed_by_sixteen_claimers_that_go_away_in_the_middle() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (one, small) = scene(&storage).await;
    let (two, default) = scene(&storage).await;
    storage.limit_runs(one.tenant(), Some(5)).await.unwrap();
    let other = project(&storage, &one, "OTHER", 4).await;
    let wide = project(&storage, &two, "WIDE", 10).await;
    for n in 0..36_i64 {
        let agent_id = (n % 3 == 0).then_some(Id::new(n % 2 + 1));
        storage
            .submit(&one, AgentRun { agent_id, ..a_run(if n % 4 == 0 { &other } else { &small }) })
            .await
            .unwrap();
        storage
            .submit(&two, AgentRun { agent_id, ..a_run(if n % 4 == 0 { &wide } else { &default }) })
            .await
            .unwrap();
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (storage, is_over) = (storage.clone(), is_over.clone());
        tokio::spawn(async move {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(texts(storage.connection(), OVER).await);
            }
            seen
        })
    };
    let mut pools = Vec::new();
    for _ in 0..4 {
        let options = PoolOptions { max_connections: 3, notify: false, ..options() };
        pools.push(PgStorage::connect(fresh.url(), &options).await.unwrap());
    }
    let claimers =
        (0..16_u64).map(|n| tokio::spawn(claims(pools[usize::try_from(n).unwrap() % 4].clone(), n * 31)));
    for done in join_all(claimers).await {
        done.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    assert_eq!(watch.await.unwrap(), BTreeSet::new());
    let left = "SELECT status FROM agent_runs WHERE status NOT IN ('cancelled', 'failed')";
    assert_eq!(texts(storage.connection(), left).await, [""; 0]);
}

/// Who is at work, by tenant.
async fn at_work(storage: &PgStorage) -> HashMap<Id<Tenant>, usize> {
    let tenants = texts(storage.connection(), "SELECT tenant_id::text FROM run_leases").await;
    let mut counts = HashMap::new();
    for tenant in tenants {
        *counts.entry(tenant.parse().unwrap()).or_default() += 1;
    }
    counts
}

/// Each run takes as long as any other; a worker with room for all takes and ends them in rounds of that length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_of_one_tenant_do_not_keep_ten_of_another_waiting() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let ((many, _), (few, _)) = (scene(&storage).await, scene(&storage).await);
    for scope in [&many, &few] {
        storage.limit_runs(scope.tenant(), Some(4)).await.unwrap();
    }
    let (crowded, quiet) =
        (project(&storage, &many, "MANY", 10).await, project(&storage, &few, "FEW", 10).await);
    storage.submit_all(&many, vec![a_run(&crowded); 2_000]).await.unwrap();
    let mut working = storage.claim(&worker(), 32, LONG).await.unwrap();
    assert_eq!(working.len(), 4);
    storage.submit_all(&few, vec![a_run(&quiet); 10]).await.unwrap();
    // They came in the middle of a round, and wait for its end at most; each round after it is one length more.
    let mut waits = Vec::new();
    for round in 0.. {
        working.extend(storage.claim(&worker(), 32, LONG).await.unwrap());
        let counts = at_work(&storage).await;
        assert!(counts.values().all(|count| *count <= 4), "{counts:?}");
        let theirs = working.iter().filter(|claim| claim.lease.tenant == few.tenant()).count();
        waits.extend(std::iter::repeat_n(round, theirs));
        if waits.len() == 10 {
            break;
        }
        assert_eq!(counts[&many.tenant()], 4, "there is room for both");
        for claim in working.drain(..) {
            storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
        }
    }
    assert_eq!(waits.len(), 10);
    assert!(waits.iter().all(|rounds| *rounds <= 2), "they waited {waits:?} run lengths");
}

/// Few runs of each lane are looked at, at first: a lane that gives more than its share must be read on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_with_greater_priority_gives_all_it_may_before_others() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, _) = scene(&storage).await;
    let mut urgent = BTreeSet::new();
    for number in 0..8_i16 {
        let project = project(&storage, &scope, &format!("P{number}"), 10).await;
        let priority = i16::from(number == 5);
        let runs = vec![AgentRun { priority, ..a_run(&project) }; 10];
        let ids = storage.submit_all(&scope, runs).await.unwrap().into_iter().map(|run| run.id);
        urgent.extend(ids.filter(|_| priority > 0));
    }
    let taken = storage.take(&worker(), 16, LONG).await.unwrap();
    assert_eq!(taken.len(), 16);
    let first: BTreeSet<_> = taken[..10].iter().map(|lease| lease.run).collect();
    assert_eq!(first, urgent);
    // The others share what is left, each in its turn.
    let ids: Vec<String> = taken[10..].iter().map(|lease| lease.run.to_string()).collect();
    let projects =
        format!("SELECT DISTINCT project_id::text FROM agent_runs WHERE id IN ({})", ids.join(", "));
    assert_eq!(texts(storage.connection(), &projects).await.len(), 6);
}

/// A worker of one run at a time has nobody at work when it looks: it goes around.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slot_goes_around_the_tenants() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let scenes = [scene(&storage).await, scene(&storage).await, scene(&storage).await];
    for (scope, project) in &scenes {
        storage.submit_all(scope, vec![a_run(project); 3]).await.unwrap();
    }
    let mut turns = Vec::new();
    while let Some(claim) = storage.claim(&worker(), 1, LONG).await.unwrap().pop() {
        turns.push(claim.lease.tenant);
        storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
    let around: Vec<_> = scenes.iter().map(|(scope, _)| scope.tenant()).collect();
    assert_eq!(turns, around.repeat(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_works_one_run_at_a_time_in_whatever_project() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, here) = scene(&storage).await;
    let there = project(&storage, &scope, "THERE", 10).await;
    let of = |agent, project| AgentRun { agent_id: Some(Id::new(agent)), ..a_run(project) };
    let runs = vec![of(1, &here), of(1, &there), of(1, &here), of(2, &there)];
    let ids: Vec<_> = storage.submit_all(&scope, runs).await.unwrap().iter().map(|run| run.id).collect();
    let taken = storage.take(&worker(), 10, LONG).await.unwrap();
    assert_eq!(taken.iter().map(|lease| lease.run).collect::<BTreeSet<_>>(), [ids[0], ids[3]].into());
    // What is only taken counts as well as what is worked.
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    let claims = storage.start(&worker(), &taken, LONG).await.unwrap();
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    for claim in claims {
        storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
    let next = storage.take(&worker(), 10, LONG).await.unwrap();
    assert_eq!(next.iter().map(|lease| lease.run).collect::<Vec<_>>(), [ids[1]]);
}
