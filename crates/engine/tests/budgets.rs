//! What runs hold and use of budgets, and when these stop them.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lime_core::governance::{
    Amount, Budget, BudgetCounter, BudgetEntry, BudgetPeriod, BudgetSubject, BudgetUnit, Currency,
    ModelPrice, PriceTable, Reservation, ReservationStatus, UnknownPrice,
};
use lime_core::ports::Budgets;
use lime_core::runs::{
    AgentEvent, AgentRun, AttemptEnd, Constraints, FailureKind, MessageRole, RunStatus, StopReason, Usage,
};
use lime_core::{Lookup, Micros, Store, Stored};
use lime_engine::{Worker, WorkerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use support::agent::says;
use support::watched::Fault;
use support::{Act, Ground, Play, Scene, said, stop, told, until};

/// What one call costs at most.
const CALL: i64 = 1_000_000;
const DOLLARS: BudgetUnit = BudgetUnit::Money(Currency::USD);

/// One model whose tokens cost a micro each, and whose calls have a million of them at most.
fn prices() -> PriceTable {
    let million = Micros(1_000_000);
    let price = ModelPrice {
        input: million,
        cached_input: million,
        cache_write: None,
        output: million,
        max_input_tokens: Some(600_000),
        max_output_tokens: Some(400_000),
    };
    PriceTable {
        as_of: "2026-11-22".parse().unwrap(),
        models: BTreeMap::from([("priced".to_owned(), price)]),
        per_usd: BTreeMap::new(),
    }
}

async fn scene(plays: impl IntoIterator<Item = Play>) -> Scene {
    let ground = Ground::default();
    let on = ground.clone();
    Scene::with(plays, ground, |builder| builder.repos(on.clone()).workspaces(on).prices(prices())).await
}

fn used(tokens: u64, turns: u32) -> Act {
    let usage = Usage { turns, input_tokens: tokens, ..Usage::default() };
    Act::Event(AgentEvent::Usage(usage))
}

/// The agent says which model it asks.
fn is(model: &str) -> Act {
    Act::Event(AgentEvent::Session { session_id: "s".into(), model: Some(model.into()) })
}

/// A session that has used this in the end.
fn play(acts: impl IntoIterator<Item = Act>, tokens: u64) -> Play {
    let usage = Usage { turns: 1, input_tokens: tokens, ..Usage::default() };
    Play { usage, ..Play::of(acts) }
}

trait BudgetScene {
    fn a_priced_run(&self) -> AgentRun;
    async fn budget(&self, limit: i64) -> Stored<Budget>;
    async fn counter(&self, budget: &Stored<Budget>) -> BudgetCounter;
    async fn stands(&self, budget: &Stored<Budget>) -> (i64, i64);
}

impl BudgetScene for Scene {
    fn a_priced_run(&self) -> AgentRun {
        AgentRun { model: Some("priced".into()), ..self.a_run() }
    }

    async fn budget(&self, limit: i64) -> Stored<Budget> {
        let budget = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Monthly, DOLLARS, Amount::new(limit));
        self.storage.insert(&self.scope, budget).await.unwrap()
    }

    async fn counter(&self, budget: &Stored<Budget>) -> BudgetCounter {
        let standings = self.storage.standings(&self.scope).await.unwrap();
        standings.iter().find(|standing| standing.budget.id == budget.id).unwrap().counter
    }

    /// What is spent and held.
    async fn stands(&self, budget: &Stored<Budget>) -> (i64, i64) {
        let counter = self.counter(budget).await;
        (counter.spent.get(), counter.held.get())
    }
}

#[tokio::test]
async fn a_run_holds_one_call_ahead_and_pays_what_it_used() {
    let (one, two) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let acts = [Act::Gate(one.clone()), used(300_000, 1), Act::Gate(two.clone()), Act::Write];
    let scene = scene([play(acts, 500_000)]).await;
    let budget = scene.budget(10 * CALL).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let worker = scene.worker();
    until("its first call is covered", async || scene.stands(&budget).await == (0, CALL)).await;
    one.notify_one();
    until("the next one is, too", async || scene.stands(&budget).await == (300_000, CALL)).await;
    two.notify_one();
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (500_000, 0), "by its last word");
    stop(worker).await;
    let entries = scene.all::<BudgetEntry>().await.into_iter().map(|entry| entry.posting);
    let told = Reservation::replay(entries);
    assert_eq!((told.status(), told.used().get()), (ReservationStatus::Closed, 500_000));
}

#[tokio::test]
async fn a_run_with_a_cap_holds_all_of_it_from_the_start() {
    let gate = Arc::new(Notify::new());
    let scene = scene([play([Act::Gate(gate.clone())], 100_000)]).await;
    let budget = scene.budget(10 * CALL).await;
    let constraints = Constraints { max_cost_cents: Some(40), ..Constraints::default() };
    let run = scene.submit(AgentRun { constraints, ..scene.a_priced_run() }).await;
    let worker = scene.worker();
    until("its cap is held", async || scene.stands(&budget).await == (0, 400_000)).await;
    gate.notify_one();
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (100_000, 0));
    stop(worker).await;
}

#[tokio::test]
async fn a_run_that_a_budget_does_not_admit_fails_before_its_agent_begins() {
    let scene = scene([Play::work()]).await;
    let budget = scene.budget(CALL - 1).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let (run, log) = scene.work(run).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::MaxBudget)));
    assert_eq!((scene.agent.starts(), run.attempt_count), (0, 1));
    let told = told(&log);
    let (_, end) =
        budget.period.window(run.created_at, lime_core::governance::TimeZone::UTC, run.id).span.unwrap();
    for part in [
        format!("the monthly budget {} of tenant", budget.id),
        "has 1.0000 USD left of 1.0000 USD, and 1.0000 USD may be needed: raise its limit".into(),
        format!("wait until {}", end.format("%Y-%m-%dT%H:%M:%SZ")),
    ] {
        assert!(told.contains(&part), "{part} is not in {told}");
    }
    assert_eq!(scene.stands(&budget).await, (0, 0));
}

#[tokio::test]
async fn what_is_used_beyond_what_is_held_blocks_the_next_call_and_stops_the_agent() {
    let scene = scene([play([used(1_200_000, 1), Act::Hang], 1_250_000)]).await;
    let budget = scene.budget(CALL * 3 / 2).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let begun = Instant::now();
    let (run, log) = scene.work(run).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::MaxBudget)));
    assert!(told(&log).contains("A budget stops this run: the monthly budget"), "{}", told(&log));
    assert_eq!(scene.agent.alive(), 0);
    assert_eq!(scene.stands(&budget).await, (1_250_000, 0), "all of it is recorded");
}

#[tokio::test]
async fn an_agent_that_has_come_to_its_end_needs_no_further_call() {
    let scene = scene([play([used(1_200_000, 1), Act::Write], 1_200_000)]).await;
    let budget = scene.budget(CALL * 3 / 2).await;
    let run = scene.submit(scene.a_priced_run()).await;
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (1_200_000, 0));
}

#[tokio::test]
async fn a_limit_that_is_lowered_stops_the_agent_within_seconds() {
    let scene = scene([play([Act::Hang], 0)]).await;
    let mut budget = scene.budget(2 * CALL).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let worker = scene.worker();
    until("it works", async || scene.agent.starts() == 1).await;
    budget.value.limit = Amount::new(CALL / 2);
    scene.storage.update(&scene.scope, &budget).await.unwrap();
    let lowered = Instant::now();
    let run = scene.end(run).await;
    assert!(lowered.elapsed() < Duration::from_secs(5), "{:?}", lowered.elapsed());
    assert_eq!(run.stop_reason, Some(StopReason::MaxBudget));
    assert_eq!(scene.stands(&budget).await, (0, 0));
    stop(worker).await;
}

#[tokio::test]
async fn a_run_that_nobody_can_price_is_refused_unless_the_project_admits_it() {
    let scene = scene([play([used(70, 1)], 70)]).await;
    let budget = scene.budget(CALL).await;
    let (run, log) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.stop_reason, Some(StopReason::MaxBudget));
    let told = told(&log);
    assert!(told.contains("nobody knows what the provider's default model costs"), "{told}");
    assert!(told.contains("put its price into the table, or let the project admit unknown prices"), "{told}");
    assert_eq!(scene.agent.starts(), 0);

    let mut project = scene.project.clone();
    project.value.config.unknown_price = UnknownPrice::Admit;
    scene.storage.update(&scene.scope, &project).await.unwrap();
    let (run, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (0, 0), "nobody knows what it cost");
    let scene = scene_of_admitting([play([is("priced"), used(70, 1)], 70)]).await;
    let budget = scene.budget(CALL).await;
    let (run, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (70, 0), "its agent said which model it is");
}

#[tokio::test]
async fn an_agent_that_asks_a_model_that_nobody_can_price_is_stopped() {
    let scene = scene([play([is("other"), used(70, 1), Act::Hang], 70)]).await;
    let budget = scene.budget(2 * CALL).await;
    let (run, log) = scene.work(scene.submit(scene.a_priced_run()).await).await;
    assert_eq!(run.stop_reason, Some(StopReason::MaxBudget));
    assert!(told(&log).contains("nobody knows what the model `other` costs"), "{}", told(&log));
    assert_eq!(scene.stands(&budget).await, (0, 0));
}

async fn scene_of_admitting(plays: impl IntoIterator<Item = Play>) -> Scene {
    let scene = scene(plays).await;
    let mut project = scene.project.clone();
    project.value.config.unknown_price = UnknownPrice::Admit;
    scene.storage.update(&scene.scope, &project).await.unwrap();
    scene
}

#[tokio::test]
async fn a_soft_limit_is_told_once_in_a_period() {
    let scene = scene([play([used(CALL.unsigned_abs(), 1), Act::Write], CALL.unsigned_abs())]).await;
    let mut budget = scene.budget(20 * CALL).await;
    budget.value.soft_limit = Some(Amount::new(3 * CALL));
    let budget = scene.storage.update(&scene.scope, &budget).await.unwrap();
    let mut warned = Vec::new();
    for _ in 0..5 {
        let (run, log) = scene.work(scene.submit(scene.a_priced_run()).await).await;
        assert_eq!(run.status, RunStatus::Succeeded);
        let words = said(&log, MessageRole::System).join("\n");
        warned.push(words.matches("Budget warning").count());
    }
    assert_eq!(warned, [0, 0, 1, 0, 0]);
    assert!(scene.counter(&budget).await.warned);
}

#[tokio::test]
async fn attempts_that_fail_and_are_tried_again_settle_what_they_used() {
    let first = Play {
        outcome: Play::failed(FailureKind::Network).outcome,
        ..play([is("priced"), used(100_000, 1)], 200_000)
    };
    let scene = scene([first, play([Act::Write], 300_000)]).await;
    let budget = scene.budget(10 * CALL).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let worker = scene.worker();
    until("it failed", async || scene.ends().await.first() == Some(&Some(AttemptEnd::Failed))).await;
    assert_eq!(scene.stands(&budget).await, (200_000, 0));
    scene.hands.forward(Duration::from_secs(600));
    let ended = scene.end(run).await;
    assert_eq!(ended.status, RunStatus::Succeeded, "{}", told(&scene.log(run).await));
    assert_eq!(scene.stands(&budget).await, (500_000, 0));
    stop(worker).await;
}

#[tokio::test]
async fn a_worker_that_is_killed_leaves_what_was_used_and_holds_nothing() {
    let scene =
        scene([play([says("at work"), used(250_000, 1), Act::Hang], 0), play([Act::Write], 100_000)]).await;
    let budget = scene.budget(10 * CALL).await;
    let run = scene.submit(scene.a_priced_run()).await;
    let doomed = scene.doomed_worker();
    until("it has used something", async || scene.stands(&budget).await == (250_000, CALL)).await;
    doomed.abort();
    let _ = doomed.await;
    scene.hands.forward(WorkerConfig::default().lease * 2);
    let worker = scene.worker();
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (350_000, 0));
    stop(worker).await;
}

#[tokio::test]
async fn a_worker_without_room_frees_what_a_lost_one_held() {
    let scene = scene([play([says("at work"), Act::Hang], 0)]).await;
    let budget = scene.budget(10 * CALL).await;
    let lease = Duration::from_millis(900);
    let config = || WorkerConfig { lease, heartbeat: lease / 5, concurrency: 1, ..WorkerConfig::default() };
    let busy = scene.submit(scene.a_priced_run()).await;
    let worker = scene.worker_with(config());
    until("the first is at work", async || scene.stands(&budget).await == (0, CALL)).await;
    let lost = scene.submit(scene.a_priced_run()).await;
    let doomed = Worker::new(&scene.factory, config()).unwrap();
    let doomed = tokio::spawn(doomed.run(CancellationToken::new(), CancellationToken::new()));
    until("the second is, too", async || scene.stands(&budget).await == (0, 2 * CALL)).await;
    doomed.abort();
    let died = Instant::now();
    let _ = doomed.await;
    until("its money is free", async || scene.stands(&budget).await == (0, CALL)).await;
    assert!(died.elapsed() < 2 * lease, "{:?}", died.elapsed());
    assert_eq!(scene.run(lost).await.status, RunStatus::Queued, "nobody has room for it");
    assert_eq!(scene.run(busy).await.status, RunStatus::Running);
    worker.stop(Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_lost_counts_nothing_twice() {
    let scene = scene([play([used(250_000, 1), Act::Write], 250_000)]).await;
    let budget = scene.budget(10 * CALL).await;
    for fault in [Fault::After, Fault::Before, Fault::After] {
        scene.watched.fail("hold", fault);
    }
    let run = scene.submit(scene.a_priced_run()).await;
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
    assert_eq!(scene.stands(&budget).await, (250_000, 0));
}

#[tokio::test]
async fn runs_that_no_budget_means_ask_nothing() {
    let scene = scene([play([used(250_000, 1), Act::Write], 250_000)]).await;
    let run = scene.submit_one().await;
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
    let calls = scene.watched.calls();
    assert_eq!(calls.iter().filter(|call| *call == "budgets_in_force").count(), 1);
    assert!(!calls.contains(&"hold".to_owned()), "{calls:?}");

    let other = lime_core::planning::Project::new("Other", "OTHER");
    let other = scene.storage.insert(&scene.scope, other).await.unwrap();
    let theirs = Budget::new(BudgetSubject::Project(other.id), BudgetPeriod::Daily, DOLLARS, Amount::ZERO);
    scene.storage.insert(&scene.scope, theirs).await.unwrap();
    let run = scene.submit_one().await;
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
    assert!(!scene.watched.calls().contains(&"hold".to_owned()));
}

#[tokio::test]
async fn budgets_of_runs_and_of_tokens_count_too() {
    let scene = scene([play([used(30, 1), Act::Write], 50)]).await;
    let runs = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Daily, BudgetUnit::Runs, Amount::new(2));
    let runs = scene.storage.insert(&scene.scope, runs).await.unwrap();
    let tokens = BudgetSubject::Project(scene.project.id);
    let tokens = Budget::new(tokens, BudgetPeriod::Weekly, BudgetUnit::Tokens, Amount::new(3 * CALL));
    let tokens = scene.storage.insert(&scene.scope, tokens).await.unwrap();
    for ended in [RunStatus::Succeeded, RunStatus::Succeeded, RunStatus::Failed] {
        let (run, _) = scene.work(scene.submit(scene.a_priced_run()).await).await;
        assert_eq!(run.status, ended);
    }
    assert_eq!(scene.stands(&runs).await, (2, 0));
    assert_eq!(scene.stands(&tokens).await, (100, 0));
    let last: Stored<Budget> = Lookup::get(&scene.storage, &scene.scope, tokens.id).await.unwrap();
    assert_eq!(last, tokens);
}
