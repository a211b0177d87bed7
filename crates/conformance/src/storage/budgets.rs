//! Behaviour of [`Budgets`](lime_core::ports::Budgets): admission, use, and what becomes of both with the lease.

use std::time::SystemTime;

use futures_util::future::join_all;
use lime_core::governance::{
    Amount, Budget, BudgetCounter, BudgetEntry, BudgetExceeded, BudgetPeriod, BudgetSubject, BudgetUnit,
    BudgetWindow, Currency, EntryKind, Reservation, ReservationStatus, TimeZone,
};
use lime_core::ports::{Admission, BudgetDemand, Claim, Handback, Request};
use lime_core::runs::{AgentEvent, AgentRun, Lease, Outcome, RunStatus};
use lime_core::{ErrorKind, Id, LookupExt, Query, Stored};

use crate::scene::{
    BRIEF, LONG, SHORT, Scene, Subject, claim, eventually, outlast, run_out, settlement, worker,
};

const DOLLARS: BudgetUnit = BudgetUnit::Money(Currency::USD);

/// A budget of the tenant for this month.
async fn budget(storage: &Subject, scene: &Scene, limit: i64) -> Stored<Budget> {
    let budget = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Monthly, DOLLARS, Amount::new(limit));
    storage.insert(&scene.scope, budget).await.unwrap()
}

fn window(budget: &Stored<Budget>, run: Id<AgentRun>) -> BudgetWindow {
    budget.period.window(SystemTime::now().into(), TimeZone::UTC, run)
}

fn demand(budget: &Stored<Budget>, lease: &Lease, used: i64, ahead: i64) -> BudgetDemand {
    let window = window(budget, lease.run);
    BudgetDemand { budget: budget.id, window, used: Amount::new(used), ahead: Amount::new(ahead) }
}

/// Uses and holds this much of one budget; gives the refusal, if it is one.
async fn hold(
    storage: &Subject,
    budget: &Stored<Budget>,
    lease: &Lease,
    used: i64,
    ahead: i64,
) -> Option<BudgetExceeded> {
    refusal(storage.hold(lease, vec![demand(budget, lease, used, ahead)]).await.unwrap())
}

fn refusal(admission: Admission) -> Option<BudgetExceeded> {
    match admission {
        Admission::Admitted => None,
        Admission::Refused(refusal) => Some(*refusal),
    }
}

/// What is spent and held of a budget now.
async fn stands(storage: &Subject, scene: &Scene, budget: &Stored<Budget>) -> (i64, i64) {
    let counter = counter(storage, scene, budget).await;
    (counter.spent.get(), counter.held.get())
}

async fn counter(storage: &Subject, scene: &Scene, budget: &Stored<Budget>) -> BudgetCounter {
    let standings = storage.standings(&scene.scope).await.unwrap();
    standings.iter().find(|standing| standing.budget.id == budget.id).expect("it is there").counter
}

/// The ledger of a budget, whose sums are its counter.
async fn ledger(storage: &Subject, scene: &Scene, budget: &Stored<Budget>) -> Vec<BudgetEntry> {
    let query = Query::all().filter(BudgetEntry::BUDGET_ID.eq(budget.id));
    let entries = (**storage).all(&scene.scope, query).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| entry.value).collect();
    let sums = entries
        .iter()
        .fold((0, 0), |(spent, held), entry| (spent + entry.posting.spent, held + entry.posting.held));
    if budget.period != BudgetPeriod::Run {
        assert_eq!(sums, stands(storage, scene, budget).await, "the ledger is not the counter: {entries:?}");
    }
    entries
}

fn warnings(events: &[AgentEvent]) -> usize {
    let is_warning = |event: &&AgentEvent| matches!(event, AgentEvent::Message { text, .. } if text.contains("Budget warning"));
    events.iter().filter(is_warning).count()
}

/// `Store<Budget>`: a budget comes back as it was; one per subject, period and unit.
pub async fn a_budget_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let euro = BudgetUnit::Money(Currency::parse("EUR").unwrap());
    let full = Budget {
        soft_limit: Some(Amount::new(8)),
        enforce_hard_stop: false,
        enabled: false,
        ..Budget::new(BudgetSubject::Project(scene.project.id), BudgetPeriod::Daily, euro, Amount::new(9))
    };
    let of_agent =
        Budget::new(BudgetSubject::Agent(Id::new(7)), BudgetPeriod::Run, BudgetUnit::Tokens, Amount::MAX);
    let runs = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Weekly, BudgetUnit::Runs, Amount::ZERO);
    super::entities::round_trip(&storage, &scene.scope, [full.clone(), of_agent, runs]).await;
    let again = Budget { unit: DOLLARS, ..full.clone() };
    let error = storage.insert(&scene.scope, again).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "one in money, whatever the currency");
    let above = Budget { soft_limit: Some(Amount::new(10)), unit: BudgetUnit::Runs, ..full };
    assert_eq!(storage.insert(&scene.scope, above).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// `budgets_in_force`: those that are enabled, of this tenant only, with its time zone.
pub async fn what_is_in_force_is_the_tenants(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let zone = TimeZone::parse("Europe/Berlin").unwrap();
    let mut tenant = storage.tenant(scene.scope.tenant()).await.unwrap();
    tenant.value.time_zone = zone;
    let tenant = storage.update_tenant(&tenant).await.unwrap();
    assert_eq!(tenant.time_zone, zone);
    let ours = budget(&storage, &scene, 10).await;
    budget(&storage, &other, 20).await;
    let off = Budget {
        enabled: false,
        ..Budget::new(BudgetSubject::Tenant, BudgetPeriod::Daily, DOLLARS, Amount::new(1))
    };
    storage.insert(&scene.scope, off).await.unwrap();
    let found = storage.budgets_in_force(&scene.scope).await.unwrap();
    assert_eq!((found.zone, found.budgets), (zone, vec![ours]));
    let nobody = Scene::new(&storage).await;
    let found = storage.budgets_in_force(&nobody.scope).await.unwrap();
    assert_eq!((found.zone, found.budgets), (TimeZone::UTC, vec![]));
}

/// `hold`: what is missing of the level is held, used and settled by totals; to say it again adds nothing.
pub async fn what_is_held_is_a_level_and_what_is_used_a_total(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 100).await;
    let lease = scene.running(&storage).await.lease;
    for _ in 0..3 {
        assert_eq!(hold(&storage, &budget, &lease, 0, 30).await, None);
        assert_eq!(stands(&storage, &scene, &budget).await, (0, 30));
    }
    for _ in 0..3 {
        assert_eq!(hold(&storage, &budget, &lease, 20, 30).await, None);
        assert_eq!(stands(&storage, &scene, &budget).await, (20, 30));
    }
    assert_eq!(hold(&storage, &budget, &lease, 10, 5).await, None);
    assert_eq!(stands(&storage, &scene, &budget).await, (20, 30), "neither falls");
    assert_eq!(hold(&storage, &budget, &lease, 60, 0).await, None);
    assert_eq!(stands(&storage, &scene, &budget).await, (60, 0), "also beyond what was held");
    storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(stands(&storage, &scene, &budget).await, (60, 0));
    let postings: Vec<_> =
        ledger(&storage, &scene, &budget).await.into_iter().map(|entry| entry.posting).collect();
    let kinds: Vec<_> = postings.iter().map(|posting| posting.kind).collect();
    use EntryKind::{Release, Reserve, Settle};
    assert_eq!(kinds, [Reserve, Settle, Reserve, Settle, Release]);
    let told = Reservation::replay(postings);
    assert_eq!(
        (told.status(), told.used(), told.over()),
        (ReservationStatus::Closed, Amount::new(60), Amount::new(10))
    );
}

/// `hold`: refused beyond the limit with what there is and until when, and then nothing is held of any.
pub async fn all_budgets_admit_or_none(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let wide = budget(&storage, &scene, 100).await;
    let narrow = Budget {
        enforce_hard_stop: true,
        ..Budget::new(BudgetSubject::Project(scene.project.id), BudgetPeriod::Daily, DOLLARS, Amount::new(10))
    };
    let narrow = storage.insert(&scene.scope, narrow).await.unwrap();
    let lease = scene.running(&storage).await.lease;
    let both = |used, ahead| vec![demand(&narrow, &lease, used, ahead), demand(&wide, &lease, used, ahead)];
    let refused = refusal(storage.hold(&lease, both(0, 11)).await.unwrap()).expect("it is refused");
    assert_eq!((refused.budget, refused.subject), (narrow.id, narrow.subject));
    assert_eq!((refused.limit.get(), refused.spent.get(), refused.asked.get()), (10, 0, 11));
    assert_eq!(refused.ends_at, window(&narrow, lease.run).span.map(|(_, end)| end));
    assert_eq!(stands(&storage, &scene, &wide).await, (0, 0));
    assert!(ledger(&storage, &scene, &wide).await.is_empty());

    assert_eq!(refusal(storage.hold(&lease, both(0, 10)).await.unwrap()), None);
    let refused = refusal(storage.hold(&lease, both(4, 10)).await.unwrap()).expect("it is refused");
    assert_eq!(refused.budget, narrow.id);
    assert_eq!(stands(&storage, &scene, &narrow).await, (4, 6), "what was used is recorded all the same");
    assert_eq!(stands(&storage, &scene, &wide).await, (4, 6));
    let refused = refusal(storage.hold(&lease, both(120, 0)).await.unwrap()).expect("it is refused");
    assert_eq!(refused.budget, wide.id.min(narrow.id), "both refuse");
    ledger(&storage, &scene, &narrow).await;
}

/// `hold`: who asks for nothing must find something left; a limit that does not stop admits all, and warns at itself.
pub async fn a_limit_that_stops_nothing_only_warns(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = budget(&storage, &scene, 0).await;
    let lease = scene.running(&storage).await.lease;
    assert!(hold(&storage, &full, &lease, 0, 0).await.is_some());
    let mut open = full.clone();
    open.value.enforce_hard_stop = false;
    let open = storage.update(&scene.scope, &open).await.unwrap();
    assert_eq!(hold(&storage, &open, &lease, 0, 0).await, None);
    assert_eq!(warnings(&scene.events(&storage, lease.run).await), 0);
    assert_eq!(hold(&storage, &open, &lease, 5, 1).await, None);
    assert_eq!(hold(&storage, &open, &lease, 9, 1).await, None);
    assert_eq!(warnings(&scene.events(&storage, lease.run).await), 1);
    let mut off = open.clone();
    off.value.enforce_hard_stop = true;
    off.value.enabled = false;
    let off = storage.update(&scene.scope, &off).await.unwrap();
    assert_eq!(hold(&storage, &off, &lease, 20, 1).await, None, "it is disabled");
    assert_eq!(stands(&storage, &scene, &off).await, (20, 1), "and counts");
    storage.delete(&scene.scope, &off).await.unwrap();
    assert_eq!(hold(&storage, &off, &lease, 30, 1).await, None, "it is gone");
    storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `hold`: a soft limit is told once a period, whoever passes it, and it stays told when less is held again.
pub async fn a_soft_limit_warns_once_a_period(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let mut soft = budget(&storage, &scene, 100).await;
    soft.value.soft_limit = Some(Amount::new(40));
    let soft = storage.update(&scene.scope, &soft).await.unwrap();
    let one = scene.running(&storage).await.lease;
    let two = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &soft, &one, 0, 40).await, None);
    assert!(!counter(&storage, &scene, &soft).await.warned, "it is reached and not passed");
    assert_eq!(hold(&storage, &soft, &two, 0, 1).await, None);
    assert!(counter(&storage, &scene, &soft).await.warned);
    storage.settle(&one, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(hold(&storage, &soft, &two, 50, 10).await, None);
    let events = scene.events(&storage, two.run).await;
    assert_eq!((warnings(&scene.events(&storage, one.run).await), warnings(&events)), (0, 1), "{events:?}");
    scene.log(&storage, two.run).await;
    let heard = AgentEvent::Log { text: "goes on".into() };
    storage.append(&two, vec![heard].into()).await.unwrap();
    scene.log(&storage, two.run).await;
}

/// `hold`: a limit that is lowered below what is spent and held stops who holds it; what is spent beyond it does, too.
pub async fn a_lowered_limit_refuses_who_holds(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 100).await;
    let (one, two) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    assert_eq!(hold(&storage, &budget, &one, 0, 40).await, None);
    assert_eq!(hold(&storage, &budget, &two, 10, 40).await, None);
    assert_eq!(hold(&storage, &budget, &one, 0, 40).await, None);
    let mut lower = budget.clone();
    lower.value.limit = Amount::new(89);
    let lower = storage.update(&scene.scope, &lower).await.unwrap();
    let refused = hold(&storage, &lower, &one, 0, 40).await.expect("it is refused");
    assert_eq!((refused.limit.get(), refused.asked.get()), (89, 0));
    storage.settle(&two, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(hold(&storage, &lower, &one, 0, 40).await, None, "it fits again");
    assert!(hold(&storage, &lower, &one, 80, 0).await.is_some(), "more is spent than the limit");
    ledger(&storage, &scene, &lower).await;
}

/// `hold`: however many ask at once, what is held never passes the limit, and as many are admitted as fit.
pub async fn concurrent_admissions_never_pass_the_limit(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 1_000).await;
    let mut leases = Vec::new();
    for at in 0..4 {
        let project = scene.another_project(&storage, &format!("P{at}"), 10).await;
        for _ in 0..8 {
            let run = AgentRun { project_id: project.id, ..scene.a_run() };
            let run = storage.submit(&scene.scope, run).await.unwrap();
            leases.push(claim(&storage, run.id, LONG).await.lease);
        }
    }
    let asked = join_all(leases.iter().map(|lease| {
        let (storage, budget, lease) = (storage.clone(), budget.clone(), *lease);
        tokio::spawn(async move { hold(&storage, &budget, &lease, 0, 60).await })
    }));
    let answers: Vec<_> = asked.await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers.iter().filter(|answer| answer.is_none()).count(), 16, "{answers:?}");
    assert_eq!(stands(&storage, &scene, &budget).await, (0, 960));
    let ended = join_all(leases.iter().map(|lease| storage.settle(lease, settlement(Outcome::Cancelled))));
    ended.await.into_iter().for_each(|ended| drop(ended.unwrap()));
    assert_eq!(stands(&storage, &scene, &budget).await, (0, 0));
    ledger(&storage, &scene, &budget).await;
}

/// The settlement and the hand-back free what is held, once; a lease that is lost holds nothing and can hold nothing.
pub async fn what_is_held_goes_with_the_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 100).await;
    let settled = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &budget, &settled, 7, 30).await, None);
    for _ in 0..3 {
        let _ = storage.settle(&settled, settlement(Outcome::Cancelled)).await;
        assert_eq!(stands(&storage, &scene, &budget).await, (7, 0));
        let late = storage.hold(&settled, vec![demand(&budget, &settled, 50, 1)]).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::StaleLease);
    }
    let back = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &budget, &back, 3, 30).await, None);
    storage.hand_back(&back, Handback::released()).await.unwrap();
    assert_eq!(stands(&storage, &scene, &budget).await, (10, 0));
    let again = claim(&storage, back.run, LONG).await.lease;
    assert_eq!(hold(&storage, &budget, &again, 3, 5).await, None);
    assert_eq!(stands(&storage, &scene, &budget).await, (13, 5), "each attempt uses its own");
    storage.settle(&again, settlement(Outcome::Cancelled)).await.unwrap();
    ledger(&storage, &scene, &budget).await;
}

/// `reclaim`: what a lost worker held is free as soon as anybody looks, its run waits again, and what it used stays.
pub async fn what_a_lost_worker_held_is_freed(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 100).await;
    let lost = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &budget, &lost, 5, 30).await, None);
    run_out(&storage, &lost).await;
    let late = storage.hold(&lost, vec![demand(&budget, &lost, 6, 30)]).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::StaleLease);
    assert_eq!(stands(&storage, &scene, &budget).await, (5, 30));
    assert_eq!(storage.reclaim().await.unwrap(), 1);
    assert_eq!(stands(&storage, &scene, &budget).await, (5, 0));
    assert_eq!(scene.run(&storage, lost.run).await.status, RunStatus::Queued);
    assert_eq!(storage.reclaim().await.unwrap(), 0);

    let again = claim(&storage, lost.run, LONG).await.lease;
    assert_eq!(hold(&storage, &budget, &again, 0, 30).await, None);
    run_out(&storage, &again).await;
    eventually("another worker takes it", async || storage.claim(&worker(), 1, LONG).await.unwrap().pop())
        .await;
    assert_eq!(stands(&storage, &scene, &budget).await, (5, 0), "taking takes back, too");
    ledger(&storage, &scene, &budget).await;
}

/// `reclaim`: leaves alone what still has its lease.
pub async fn what_is_worked_is_not_taken_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    let Claim { lease, .. } = claim(&storage, run.id, BRIEF).await;
    storage.heartbeat(&lease, LONG).await.unwrap();
    outlast(SHORT).await;
    assert_eq!(storage.reclaim().await.unwrap(), 0);
    storage.heartbeat(&lease, LONG).await.unwrap();
}

/// A budget of runs counts those that end, however they end, and no attempt that is lost or handed back.
pub async fn runs_count_when_they_end(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let runs = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Daily, BudgetUnit::Runs, Amount::new(2));
    let runs = storage.insert(&scene.scope, runs).await.unwrap();
    let lease = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &runs, &lease, 0, 1).await, None);
    storage.hand_back(&lease, Handback::released()).await.unwrap();
    assert_eq!(stands(&storage, &scene, &runs).await, (0, 0));
    let lease = claim(&storage, lease.run, LONG).await.lease;
    assert_eq!(hold(&storage, &runs, &lease, 0, 1).await, None);
    storage.settle(&lease, settlement(crate::scene::failed())).await.unwrap();
    assert_eq!(stands(&storage, &scene, &runs).await, (1, 0));
    let cancelled = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &runs, &cancelled, 0, 1).await, None);
    storage.request(&scene.scope, cancelled.run, Request::Cancel).await.unwrap();
    storage.hand_back(&cancelled, Handback::released()).await.unwrap();
    assert_eq!(stands(&storage, &scene, &runs).await, (2, 0));
    let third = scene.running(&storage).await.lease;
    assert!(hold(&storage, &runs, &third, 0, 1).await.is_some());
    let told = ledger(&storage, &scene, &runs).await;
    let of_cancelled = told.iter().filter(|entry| entry.attempt_id == Some(cancelled.attempt));
    let told = Reservation::replay(of_cancelled.map(|entry| entry.posting));
    assert_eq!((told.status(), told.used()), (ReservationStatus::Closed, Amount::new(1)));
}

/// `standings`: each budget in its period now, and one for each run for every run at work; of this tenant only.
pub async fn standings_tell_each_period(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let monthly = budget(&storage, &scene, 100).await;
    let each = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Run, BudgetUnit::Tokens, Amount::new(50));
    let each = storage.insert(&scene.scope, each).await.unwrap();
    budget(&storage, &other, 1).await;
    let (one, two) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    for (lease, used) in [(&one, 3), (&two, 4)] {
        let demands = vec![demand(&monthly, lease, used, 10), demand(&each, lease, used, 20)];
        assert_eq!(storage.hold(lease, demands).await.unwrap(), Admission::Admitted);
    }
    let standings = storage.standings(&scene.scope).await.unwrap();
    let told: Vec<_> = standings
        .iter()
        .map(|standing| {
            let counter = standing.counter;
            (standing.budget.id, standing.window.clone(), counter.spent.get(), counter.held.get())
        })
        .collect();
    assert_eq!(
        told,
        [
            (monthly.id, window(&monthly, one.run), 7, 20),
            (each.id, window(&each, one.run), 3, 20),
            (each.id, window(&each, two.run), 4, 20),
        ]
    );
    storage.settle(&one, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(storage.standings(&scene.scope).await.unwrap().len(), 2);
}

/// What a run holds that is deleted is free; what it has used stays, in a ledger that no longer names it.
pub async fn a_deleted_run_holds_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let budget = budget(&storage, &scene, 100).await;
    let project = scene.another_project(&storage, "GONE", 10).await;
    let of_project =
        Budget::new(BudgetSubject::Project(project.id), BudgetPeriod::Daily, DOLLARS, Amount::new(50));
    let of_project = storage.insert(&scene.scope, of_project).await.unwrap();
    let run = AgentRun { project_id: project.id, ..scene.a_run() };
    let run = storage.submit(&scene.scope, run).await.unwrap();
    let lease = claim(&storage, run.id, LONG).await.lease;
    let demands = vec![demand(&budget, &lease, 5, 10), demand(&of_project, &lease, 5, 10)];
    assert_eq!(storage.hold(&lease, demands).await.unwrap(), Admission::Admitted);
    storage.delete(&scene.scope, &project).await.unwrap();
    assert_eq!(stands(&storage, &scene, &budget).await, (5, 0));
    let told = ledger(&storage, &scene, &budget).await;
    assert!(told.iter().all(|entry| entry.run_id.is_none() && entry.attempt_id.is_none()), "{told:?}");
}

/// `hold`: budgets of another tenant are not there, and a lease that was never given holds nothing.
pub async fn budgets_of_others_are_not_there(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let theirs = budget(&storage, &other, 100).await;
    let lease = scene.running(&storage).await.lease;
    assert_eq!(hold(&storage, &theirs, &lease, 5, 1_000).await, None, "as if it were deleted");
    assert_eq!(stands(&storage, &other, &theirs).await, (0, 0));
    let forged = crate::scene::forged(&lease);
    let ours = budget(&storage, &scene, 100).await;
    let error = storage.hold(&forged, vec![demand(&ours, &forged, 5, 1)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleLease);
    assert_eq!(stands(&storage, &scene, &ours).await, (0, 0));
}
