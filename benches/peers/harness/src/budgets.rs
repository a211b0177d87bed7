//! Admissions to one budget beside as many to budgets of their own, and whole runs with budgets beside without.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use lime_core::agents::Agent;
use lime_core::governance::{
    Amount, Budget, BudgetPeriod, BudgetSubject, BudgetUnit, BudgetWindow, Currency, TimeZone,
};
use lime_core::ports::{Admission, BudgetDemand, Budgets, Queue};
use lime_core::runs::Lease;
use lime_core::{Id, Store, Stored};
use lime_storage_postgres::PgStorage;

use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::ground::Ground;
use crate::peer::rate;
use crate::peers::ours::{LEASE, Site, claimant};
use crate::report::{Column, Section, Table, Unit};
use crate::runs::{self, MODEL};
use crate::target::{Against, Target};
use crate::{Outcome, say};

const ONE_PROCESS: &str = "in one process";
const FOUR_PROCESSES: &str = "in four processes";
const WHOLE: &str = "whole no-op runs";
const SHARED: &str = "one budget";
const SEPARATE: &str = "64 budgets";
const UNDER: &str = "under budgets";
const WITHOUT: &str = "without";
const TARGETS: [Target; 2] = [
    Target::rate(ONE_PROCESS, SHARED, Against::Peer(SEPARATE), 0.5),
    Target::rate(FOUR_PROCESSES, SHARED, Against::Peer(SEPARATE), 0.5),
];
/// How many runs ask at once.
const RUNS: usize = 64;
/// More than anything here comes to.
const PLENTY: Amount = Amount::new(1_000_000_000_000);

pub(crate) async fn measure(args: &Args, ground: &Ground) -> Outcome<Section> {
    let mut figures = Figures::default();
    figures.introduce(SHARED, format!("{RUNS} runs hold more and more of one budget, each again and again"));
    figures.introduce(SEPARATE, "the same, and each run has a budget of its own".to_owned());
    let (site, whole) = (Site::open(ground).await?, Site::open(ground).await?);
    let under = Site::open(ground).await?;
    let storage = under.storage(false).await?;
    for scope in under.scopes() {
        let dollars = BudgetUnit::Money(Currency::USD);
        let budget = Budget::new(BudgetSubject::Tenant, BudgetPeriod::Monthly, dollars, PLENTY);
        storage.insert(scope, budget).await?;
    }
    storage.close().await;
    figures
        .introduce(UNDER, format!("one worker as in `runs`; each tenant has a budget, the model is {MODEL}"));
    figures.introduce(WITHOUT, "the same without a budget".to_owned());
    for round in 1..=args.rounds {
        for (measure, processes) in [(ONE_PROCESS, 1), (FOUR_PROCESSES, 4)] {
            for (peer, budgets) in [(SHARED, 1), (SEPARATE, RUNS)] {
                ground.calm().await;
                let rate = admissions(&site, processes, budgets, Duration::from_secs(args.seconds)).await?;
                figures.add(measure, peer, rate);
                say::line(&format!("round {round} of {}  {measure}  {peer}  {rate:.0}/s", args.rounds));
            }
        }
        for (peer, site) in [(UNDER, &under), (WITHOUT, &whole)] {
            ground.calm().await;
            let rate = runs::work(site, args.jobs / 4).await?;
            figures.add(WHOLE, peer, rate);
            say::line(&format!("round {round} of {}  {WHOLE}  {peer}  {rate:.0}/s", args.rounds));
        }
    }
    let column =
        |measure| Column { title: measure, measure, statistic: Statistic::Median, unit: Unit::PerSecond };
    Ok(Section {
        title: "budgets".to_owned(),
        tables: vec![
            Table {
                title: "admissions a second".to_owned(),
                columns: vec![column(ONE_PROCESS), column(FOUR_PROCESSES)],
                ours: SHARED,
            },
            Table { title: "runs a second".to_owned(), columns: vec![column(WHOLE)], ours: UNDER },
        ],
        targets: TARGETS.to_vec(),
        figures,
        notes: Vec::new(),
    })
}

/// How many admissions a second, of runs that share so many budgets.
async fn admissions(site: &Site, processes: usize, budgets: usize, length: Duration) -> Outcome<f64> {
    site.empty().await?;
    let mut storages = Vec::new();
    for _ in 0..processes {
        storages.push(site.storage(false).await?);
    }
    let (scope, runs) = site.runs(0, RUNS);
    let mut stored = Vec::new();
    for number in 1..=i64::try_from(budgets)? {
        let subject = BudgetSubject::Agent(Id::<Agent>::new(number));
        let dollars = BudgetUnit::Money(Currency::USD);
        let budget = Budget::new(subject, BudgetPeriod::Monthly, dollars, PLENTY);
        stored.push(storages[0].insert(&scope, budget).await?);
    }
    storages[0].submit_all(&scope, runs).await?;
    let mut leases = Vec::new();
    while leases.len() < RUNS {
        let claims = storages[0].claim(&claimant("asks")?, RUNS, LEASE).await?;
        leases.extend(claims.into_iter().map(|claim| claim.lease));
    }
    let began = Instant::now();
    let asking = leases.into_iter().enumerate().map(|(at, lease)| {
        let (storage, budget) = (storages[at % processes].clone(), stored[at % budgets].clone());
        async move {
            let task = tokio::spawn(ask(storage, lease, budget, began + length));
            task.await?
        }
    });
    let asked: u64 = try_join_all(asking).await?.into_iter().sum();
    let took = began.elapsed();
    for budget in stored {
        storages[0].delete(&scope, &budget).await?;
    }
    for storage in storages {
        storage.close().await;
    }
    Ok(rate(asked, took))
}

/// Holds more and more of a budget; gives how often.
async fn ask(storage: PgStorage, lease: Lease, budget: Stored<Budget>, until: Instant) -> Outcome<u64> {
    let window =
        BudgetWindow { span: None, ..budget.period.window(budget.created_at, TimeZone::UTC, lease.run) };
    let mut asked = 0;
    while Instant::now() < until {
        asked += 1;
        let demand = BudgetDemand {
            budget: budget.id,
            window: window.clone(),
            used: Amount::ZERO,
            ahead: Amount::from(asked),
        };
        if storage.hold(&lease, vec![demand]).await? != Admission::Admitted {
            return Err("a budget with plenty left has refused".into());
        }
    }
    Ok(asked)
}
