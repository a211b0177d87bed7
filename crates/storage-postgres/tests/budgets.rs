//! Budgets under load, under kills, and beside the model in memory.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use lime_core::governance::{
    Amount, Budget, BudgetCounter, BudgetPeriod, BudgetSubject, BudgetUnit, Currency, TimeZone,
};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::ports::{Admission, BudgetDemand, Budgets, Claim, EventLog, Queue, Storage};
use lime_core::runs::{AgentEvent, AgentRun, Lease, Outcome, RunStatus};
use lime_core::{Id, Lookup, Scope, Store, Stored};
use lime_storage_postgres::PgStorage;
use lime_storage_postgres::sea_orm::ConnectionTrait;
use proptest::prelude::*;

use crate::support::{LONG, a_run, database, log, open, settlement, texts, worker};

const DOLLARS: BudgetUnit = BudgetUnit::Money(Currency::USD);
/// 1,000 cents.
const LIMIT: i64 = 10_000_000;

/// Sums of the ledger that are not their counter, and counters that nobody wrote into the ledger: there are none.
const DRIFT: &str = "SELECT concat_ws(' ', counter.budget_id, counter.\"window\", counter.spent, counter.held, sums.spent, sums.held)
    FROM budget_counters AS counter FULL JOIN (
        SELECT tenant_id, budget_id, \"window\", sum(spent)::BIGINT AS spent, sum(held)::BIGINT AS held
        FROM budget_entries GROUP BY 1, 2, 3
    ) AS sums USING (tenant_id, budget_id, \"window\")
    WHERE (coalesce(counter.spent, -1), coalesce(counter.held, -1)) <> (coalesce(sums.spent, 0), coalesce(sums.held, 0))";
/// The most that was ever spent and held together of a budget, in the order in which it was written.
const PEAK: &str = "SELECT max(committed)::TEXT FROM (
    SELECT sum(held + spent) OVER (PARTITION BY budget_id, \"window\" ORDER BY id) AS committed FROM budget_entries
) AS entry";
const HELD: &str = "SELECT coalesce(sum(held), 0)::TEXT FROM budget_counters";
const RESERVATIONS: &str = "SELECT count(*)::TEXT FROM budget_reservations";

async fn tenant(storage: &dyn Storage, slug: &str) -> (Scope, Vec<Stored<Project>>) {
    let tenant = lime_core::identity::Tenant::new("T", lime_core::identity::Slug::parse(slug).unwrap());
    let scope = Scope::system(storage.create_tenant(tenant).await.unwrap().id, "a test");
    let mut projects = Vec::new();
    for at in 0..10 {
        let project = Project { max_concurrent_agents: 10, ..Project::new("P", format!("P{at}")) };
        projects.push(storage.insert(&scope, project).await.unwrap());
    }
    (scope, projects)
}

async fn claims(
    storage: &dyn Storage,
    scope: &Scope,
    projects: &[Stored<Project>],
    count: usize,
) -> Vec<Claim> {
    let runs: Vec<AgentRun> = (0..count).map(|at| a_run(&projects[at % projects.len()])).collect();
    storage.submit_all(scope, runs).await.unwrap();
    let mut claims = Vec::new();
    while claims.len() < count {
        claims.extend(storage.claim(&worker(), count - claims.len(), LONG).await.unwrap());
    }
    claims.sort_by_key(|claim| claim.lease.run);
    claims
}

async fn budget(storage: &dyn Storage, scope: &Scope, limit: i64) -> Stored<Budget> {
    let budget = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Monthly, DOLLARS, Amount::new(limit));
    storage.insert(scope, budget).await.unwrap()
}

fn demand(budget: &Stored<Budget>, lease: &Lease, used: i64, ahead: i64) -> BudgetDemand {
    let window = budget.period.window(SystemTime::now().into(), TimeZone::UTC, lease.run);
    BudgetDemand { budget: budget.id, window, used: Amount::new(used), ahead: Amount::new(ahead) }
}

async fn counter(storage: &dyn Storage, scope: &Scope, budget: Id<Budget>) -> BudgetCounter {
    let standings = storage.standings(scope).await.unwrap();
    standings.iter().find(|standing| standing.budget.id == budget).unwrap().counter
}

async fn no_drift(storage: &PgStorage) {
    assert_eq!(texts(storage.connection(), DRIFT).await, [""; 0]);
}

/// Works a run whose calls cost up to 30 cents, 20 of them at most, until a budget stops it.
async fn work(storage: PgStorage, budget: Stored<Budget>, lease: Lease) -> i64 {
    const WORST: i64 = 300_000;
    let mut used = 0;
    for call in 0..20 {
        match storage.hold(&lease, vec![demand(&budget, &lease, used, WORST)]).await.unwrap() {
            Admission::Admitted => used += WORST - (lease.run.raw() * 7 + call) % 10 * 20_000,
            Admission::Refused(_) => break,
        }
    }
    let last = vec![demand(&budget, &lease, used, 0)];
    storage.hold(&lease, last).await.unwrap();
    storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    used
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_runs_never_pass_the_limit_together() {
    let Some(fresh) = database().await else { return };
    // Four processes, as far as the database knows.
    let storages = [open(&fresh).await, open(&fresh).await, open(&fresh).await, open(&fresh).await];
    let storage = &storages[0];
    let (scope, projects) = tenant(storage, "many").await;
    let budget = budget(storage, &scope, LIMIT).await;
    let claims = claims(storage, &scope, &projects, 64).await;
    let works = claims.iter().enumerate().map(|(at, claim)| {
        tokio::spawn(work(storages[at % storages.len()].clone(), budget.clone(), claim.lease))
    });
    let used: i64 = join_all(works).await.into_iter().map(Result::unwrap).sum();
    let counter = counter(storage, &scope, budget.id).await;
    assert_eq!((counter.spent.get(), counter.held.get()), (used, 0));
    let peak: i64 = texts(storage.connection(), PEAK).await[0].parse().unwrap();
    assert!(peak <= LIMIT, "{peak} was spent and held");
    assert!(used > LIMIT / 2, "{used}: the limit was hardly reached");
    no_drift(storage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_workers_hold_nothing_after_twice_their_lease() {
    const LEASE: Duration = Duration::from_millis(1_500);
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, projects) = tenant(&storage, "killed").await;
    let budget = budget(&storage, &scope, 100 * LIMIT).await;
    let runs = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Daily, BudgetUnit::Runs, Amount::new(1_000));
    let runs = storage.insert(&scope, runs).await.unwrap();
    let mut expected = 0;
    for round in 0..4 {
        let claims = claims(&storage, &scope, &projects, 10).await;
        let died = Instant::now();
        for (at, claim) in (0..).zip(&claims) {
            let doomed = open(&fresh).await;
            let (lease, budget, runs) = (claim.lease, budget.clone(), runs.clone());
            doomed.append(&lease, vec![log("at work")].into()).await.unwrap();
            let worker = tokio::spawn(async move {
                for call in 0.. {
                    let demands =
                        vec![demand(&budget, &lease, call * 1_000, 50_000), demand(&runs, &lease, 0, 1)];
                    doomed.hold(&lease, demands).await.unwrap();
                }
            });
            tokio::time::sleep(Duration::from_millis(5 + at * 3)).await;
            storage.heartbeat(&lease, LEASE).await.unwrap();
            worker.abort();
            assert!(worker.await.unwrap_err().is_cancelled());
        }
        let held = || async { texts(storage.connection(), HELD).await[0].clone() };
        assert_ne!(held().await, "0");
        while held().await != "0" {
            tokio::time::sleep(LEASE / 3).await;
            storage.reclaim().await.unwrap();
        }
        assert!(died.elapsed() < 2 * LEASE + Duration::from_secs(2), "{:?}", died.elapsed());
        no_drift(&storage).await;
        for claim in &claims {
            let run: Stored<AgentRun> = Lookup::get(&storage, &scope, claim.lease.run).await.unwrap();
            assert_eq!((run.status, run.crash_count), (RunStatus::Queued, 1), "round {round}");
        }
        // They are worked to their ends by others.
        let mut ended = 0;
        while ended < claims.len() {
            for again in storage.claim(&worker(), 10, LONG).await.unwrap() {
                let demands = vec![demand(&budget, &again.lease, 7, 10), demand(&runs, &again.lease, 0, 1)];
                assert_eq!(storage.hold(&again.lease, demands).await.unwrap(), Admission::Admitted);
                storage.settle(&again.lease, settlement(Outcome::Cancelled)).await.unwrap();
                ended += 1;
            }
        }
        expected += i64::try_from(claims.len()).unwrap();
        assert_eq!(counter(&storage, &scope, runs.id).await.spent.get(), expected, "runs that ended");
    }
    assert_eq!(texts(storage.connection(), RESERVATIONS).await, ["0"]);
    no_drift(&storage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_settlement_at_once_counts_once() {
    let Some(fresh) = database().await else { return };
    let storages = [open(&fresh).await, open(&fresh).await, open(&fresh).await];
    let storage = &storages[0];
    let (scope, projects) = tenant(storage, "thrice").await;
    let budget = budget(storage, &scope, LIMIT).await;
    let lease = claims(storage, &scope, &projects, 1).await[0].lease;
    let hold = |storage: PgStorage, used, ahead| {
        let demands = vec![demand(&budget, &lease, used, ahead)];
        tokio::spawn(async move { storage.hold(&lease, demands).await.unwrap() })
    };
    // Twice in each process, so that two of one attempt are in one batch.
    for (used, ahead) in [(0, 500), (300, 500), (400, 0)] {
        let calls = storages.iter().chain(&storages).map(|storage| hold(storage.clone(), used, ahead));
        for answer in join_all(calls).await {
            assert_eq!(answer.unwrap(), Admission::Admitted);
        }
    }
    let ends = storages.iter().map(|storage| {
        let storage = storage.clone();
        tokio::spawn(async move { storage.settle(&lease, settlement(Outcome::Cancelled)).await.is_ok() })
    });
    let ended = join_all(ends).await.into_iter().filter(|ended| *ended.as_ref().unwrap()).count();
    assert_eq!(ended, 1);
    let counter = counter(storage, &scope, budget.id).await;
    assert_eq!((counter.spent.get(), counter.held.get()), (400, 0));
    no_drift(storage).await;
}

#[tokio::test]
async fn the_ledger_is_only_ever_added_to() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, projects) = tenant(&storage, "ledger").await;
    let budget = budget(&storage, &scope, LIMIT).await;
    let lease = claims(&storage, &scope, &projects, 1).await[0].lease;
    storage.hold(&lease, vec![demand(&budget, &lease, 5, 10)]).await.unwrap();
    let changed =
        storage.connection().execute_unprepared("UPDATE budget_entries SET spent = spent + 1").await;
    assert!(changed.unwrap_err().to_string().contains("only ever added to"));
    no_drift(&storage).await;
}

#[tokio::test]
async fn what_nobody_holds_a_lease_for_is_swept() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, projects) = tenant(&storage, "swept").await;
    let budget = budget(&storage, &scope, LIMIT).await;
    let leases = claims(&storage, &scope, &projects, 2).await;
    for claim in &leases {
        storage.hold(&claim.lease, vec![demand(&budget, &claim.lease, 5, 10)]).await.unwrap();
    }
    // Repaired by hand, and not well: one run is said to be worked, the other one to wait.
    let repair = format!(
        "DELETE FROM run_leases; UPDATE agent_runs SET status = 'queued' WHERE id = {}",
        leases[0].lease.run
    );
    storage.connection().execute_unprepared(&repair).await.unwrap();
    storage.sweep().await.unwrap();
    let held = async || counter(&storage, &scope, budget.id).await.held.get();
    assert_eq!(held().await, 10);
    assert_eq!(storage.reclaim().await.unwrap(), 1);
    assert_eq!(held().await, 0);
    assert_eq!(texts(storage.connection(), RESERVATIONS).await, ["0"]);
    no_drift(&storage).await;
}

const ATTEMPTS: usize = 4;
const BUDGETS: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    Hold(usize, Vec<(i64, i64)>),
    Settle(usize),
    HandBack(usize),
    Limit(usize, i64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let amounts = || prop::collection::vec((0..40_i64, 0..40_i64), BUDGETS);
    let op = prop_oneof![
        8 => (0..ATTEMPTS, amounts()).prop_map(|(attempt, amounts)| Op::Hold(attempt, amounts)),
        1 => (0..ATTEMPTS).prop_map(Op::Settle),
        1 => (0..ATTEMPTS).prop_map(Op::HandBack),
        1 => (0..BUDGETS, 0..150_i64).prop_map(|(budget, limit)| Op::Limit(budget, limit)),
    ];
    prop::collection::vec(op, 1..30)
}

fn some_budgets() -> impl Strategy<Value = Vec<Budget>> {
    let one =
        (0..150_i64, prop::option::of(0..150_i64), prop::bool::weighted(0.8), prop::bool::weighted(0.9));
    prop::collection::vec(one, BUDGETS).prop_map(|all| {
        let periods = [BudgetPeriod::Daily, BudgetPeriod::Monthly, BudgetPeriod::Run];
        let of =
            |((limit, soft, hard, enabled), period): ((i64, Option<i64>, bool, bool), BudgetPeriod)| Budget {
                soft_limit: soft.map(|soft| Amount::new(soft.min(limit))),
                enforce_hard_stop: hard,
                enabled,
                ..Budget::new(BudgetSubject::Tenant, period, DOLLARS, Amount::new(limit))
            };
        all.into_iter().zip(periods).map(of).collect()
    })
}

/// A storage with budgets and runs at work under them.
struct World {
    storage: Arc<dyn Storage>,
    scope: Scope,
    budgets: Vec<Stored<Budget>>,
    leases: Vec<Lease>,
}

impl World {
    async fn new(storage: Arc<dyn Storage>, slug: &str, budgets: Vec<Budget>) -> Self {
        let (scope, projects) = tenant(&*storage, slug).await;
        let mut stored = Vec::new();
        for budget in budgets {
            stored.push(storage.insert(&scope, budget).await.unwrap());
        }
        let claims = claims(&*storage, &scope, &projects, ATTEMPTS).await;
        let leases = claims.into_iter().map(|claim| claim.lease).collect();
        Self { storage, scope, budgets: stored, leases }
    }

    /// What comes of an operation, in words that do not hang on ids.
    async fn does(&mut self, op: &Op) -> String {
        match op {
            Op::Hold(attempt, amounts) => {
                let lease = self.leases[*attempt];
                let demands = self.budgets.iter().zip(amounts);
                let demands = demands.map(|(budget, (used, ahead))| demand(budget, &lease, *used, *ahead));
                match self.storage.hold(&lease, demands.collect()).await {
                    Ok(Admission::Admitted) => "admitted".into(),
                    Ok(Admission::Refused(no)) => {
                        let at = self.budgets.iter().position(|budget| budget.id == no.budget).unwrap();
                        format!("{at} has {} {} of {}, not {}", no.spent, no.held, no.limit, no.asked)
                    }
                    Err(error) => error.kind().to_string(),
                }
            }
            Op::Settle(attempt) => {
                let ended = self.storage.settle(&self.leases[*attempt], settlement(Outcome::Cancelled)).await;
                format!("{:?}", ended.map(|run| run.status).map_err(|error| error.kind()))
            }
            Op::HandBack(attempt) => {
                let back = lime_core::ports::Handback::released();
                let back = self.storage.hand_back(&self.leases[*attempt], back).await;
                format!("{:?}", back.map(|run| run.status).map_err(|error| error.kind()))
            }
            Op::Limit(budget, limit) => {
                let budget = &mut self.budgets[*budget];
                budget.value.limit = Amount::new(*limit);
                budget.value.soft_limit = budget.soft_limit.map(|soft| soft.min(Amount::new(*limit)));
                *budget = self.storage.update(&self.scope, budget).await.unwrap();
                "set".into()
            }
        }
    }

    async fn stands(&self) -> Vec<(usize, usize, BudgetCounter)> {
        let standings = self.storage.standings(&self.scope).await.unwrap();
        let run = |key: &str| self.leases.iter().position(|lease| key == format!("run-{}", lease.run));
        standings
            .into_iter()
            .map(|standing| {
                let budget = self.budgets.iter().position(|budget| budget.id == standing.budget.id).unwrap();
                (budget, run(&standing.window.key).unwrap_or(ATTEMPTS), standing.counter)
            })
            .collect()
    }

    async fn warnings(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for lease in &self.leases {
            let log = self.storage.read(&self.scope, lease.run, 0, 1_000).await.unwrap();
            assert!(log.iter().zip(1..).all(|(event, seq)| event.seq == seq), "the log has a gap");
            let is_warning = |event: &AgentEvent| matches!(event, AgentEvent::Message { text, .. } if text.contains("Budget warning"));
            counts.push(log.iter().filter(|event| is_warning(&event.event)).count());
        }
        counts
    }
}

#[test]
fn the_database_does_what_the_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some((fresh, storage)) = runtime.block_on(async {
        let fresh = database().await?;
        let storage = open(&fresh).await;
        Some((fresh, storage))
    }) else {
        return;
    };
    let count = std::cell::Cell::new(0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    });
    let done = runner.run(&(some_budgets(), ops()), |(budgets, ops)| {
        count.set(count.get() + 1);
        let slug = format!("world-{}", count.get());
        runtime.block_on(async {
            let mut model = World::new(Arc::new(MemoryStorage::default()), &slug, budgets.clone()).await;
            let mut world = World::new(Arc::new(storage.clone()), &slug, budgets).await;
            for (at, op) in ops.iter().enumerate() {
                let (expected, done) = (model.does(op).await, world.does(op).await);
                prop_assert_eq!(done, expected, "{} {:?}", at, op);
                prop_assert_eq!(world.stands().await, model.stands().await, "{} {:?}", at, op);
            }
            prop_assert_eq!(world.warnings().await, model.warnings().await);
            // What others have put back must not be taken in the next one.
            for run in &world.leases {
                let _ = world.storage.request(&world.scope, run.run, lime_core::ports::Request::Cancel).await;
                let _ = world.storage.settle(run, settlement(Outcome::Cancelled)).await;
            }
            prop_assert_eq!(texts(storage.connection(), DRIFT).await, [""; 0]);
            Ok(())
        })
    });
    drop(fresh);
    done.unwrap();
}
