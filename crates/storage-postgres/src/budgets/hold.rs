//! What attempts use and hold, for many of them in one statement.

use std::collections::BTreeMap;

use lime_core::governance::{Amount, Budget, BudgetExceeded, SoftLimitPassed};
use lime_core::ports::{Admission, BudgetDemand};
use lime_core::runs::{AgentEvent, Lease};
use lime_core::{Entity, Error, ErrorKind, Id, Lookup, Result, Scope, Stored};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use crate::PgStorage;
use crate::batch::{Batcher, together};
use crate::error::unnamed;
use crate::events::{self, Batch, Place};
use crate::fence::{HELD, key};
use crate::storage::{Base, commit, span, sql};

const OPERATION: &str = "budgets.hold";
/// The most attempts in one statement, whose counters are locked for as long as it takes.
const MOST: usize = 128;

/// Where the calls of many attempts become one statement and one flush to disk.
pub(crate) type Holder = Batcher<Hold, Held>;

/// What an attempt asks of budgets.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    lease: Lease,
    demands: Vec<BudgetDemand>,
}

/// What budgets say to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// In the order of the demands, those on budgets that are not there left out.
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    /// Which of the demands, from 0.
    demand: usize,
    refuses: bool,
    asked: i64,
    spent: i64,
    held: i64,
    limit: i64,
    /// The soft limit, where it is passed and nobody was warned yet.
    warns_above: Option<i64>,
}

pub(crate) fn holder(base: &Base) -> Holder {
    let of_all = base.clone();
    Batcher::new(OPERATION, MOST, base.in_flight, move |holds: Vec<Hold>| {
        let base = of_all.clone();
        async move {
            // Two calls of one attempt in one statement are refused by the database, and done one after the other then.
            let held = together(&holds, |holds| {
                let base = base.clone();
                Box::pin(async move { hold_all(&base, holds).await })
            });
            let stale = |hold: &Hold| Error::stale_lease(OPERATION, &hold.lease);
            let held = held.await.into_iter().zip(&holds);
            held.map(|(held, hold)| held.and_then(|held| held.ok_or_else(|| stale(hold)))).collect()
        }
    })
}

/// The answers to each; none, to one whose lease is lost.
async fn hold_all(base: &Base, holds: &[Hold]) -> Result<Vec<Option<Held>>> {
    let mut sorted: Vec<(usize, &Hold)> = holds.iter().enumerate().collect();
    sorted.sort_by_key(|(_, hold)| (hold.lease.run, hold.lease.attempt));
    let (mut tenants, mut runs, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    let (mut leases, mut budgets, mut windows) = (Vec::new(), Vec::new(), Vec::new());
    let (mut used, mut ahead) = (Vec::new(), Vec::new());
    // Which demand of which hold has a number.
    let mut numbers = Vec::new();
    for ((place, hold), lease) in sorted.iter().zip(1_i64..) {
        tenants.push(hold.lease.tenant.raw());
        runs.push(hold.lease.run.raw());
        tokens.push(hold.lease.attempt.raw());
        for (at, demand) in hold.demands.iter().enumerate() {
            leases.push(lease);
            budgets.push(demand.budget.raw());
            windows.push(demand.window.key.clone());
            used.push(demand.used.get());
            ahead.push(demand.ahead.get());
            numbers.push((*place, at));
        }
    }
    let statement = "SELECT * FROM budgets_hold($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = [
        tenants.into(),
        runs.into(),
        tokens.into(),
        leases.into(),
        budgets.into(),
        windows.into(),
        used.into(),
        ahead.into(),
    ];
    let rows = base.db.query_all_raw(sql(statement, values)).await;
    let rows = rows.map_err(|error| unnamed(OPERATION, &error))?;
    let mut held: Vec<Option<Held>> = vec![None; holds.len()];
    for row in &rows {
        let (lease, answer) = answer(row).map_err(|error| unnamed(OPERATION, &error))?;
        let Some(place) = at(&sorted, lease).map(|(place, _)| *place) else { continue };
        let held = held[place].get_or_insert_default();
        if let Some((number, mut answer)) = answer
            && let Some((_, demand)) = at(&numbers, number)
        {
            answer.demand = *demand;
            held.answers.push(answer);
        }
    }
    Ok(held)
}

/// What has a number from SQL's `WITH ORDINALITY`, from 1.
fn at<T>(all: &[T], number: i64) -> Option<&T> {
    all.get(usize::try_from(number.checked_sub(1)?).ok()?)
}

/// The number of a lease that holds, and the answer to one of its demands with that one's number.
fn answer(row: &QueryResult) -> Result<(i64, Option<(i64, Answer)>), DbErr> {
    let lease = row.try_get("", "lease")?;
    let Some(demand) = row.try_get::<Option<i64>>("", "demand")? else { return Ok((lease, None)) };
    let answer = Answer {
        demand: 0,
        refuses: row.try_get("", "refuses")?,
        asked: row.try_get("", "asked")?,
        spent: row.try_get("", "spent_now")?,
        held: row.try_get("", "held_now")?,
        limit: row.try_get("", "limit_now")?,
        warns_above: row.try_get("", "warns_above")?,
    };
    Ok((lease, Some((demand, answer))))
}

pub(super) async fn hold(
    storage: &PgStorage,
    lease: &Lease,
    demands: Vec<BudgetDemand>,
) -> Result<Admission> {
    let held = storage.budgets().call(Hold { lease: *lease, demands: demands.clone() }).await?;
    let scope = Scope::system(lease.tenant, "asking budgets");
    let mut budgets: BTreeMap<Id<Budget>, Stored<Budget>> = BTreeMap::new();
    for answer in held.answers.iter().filter(|answer| answer.refuses || answer.warns_above.is_some()) {
        match Lookup::get(storage, &scope, demands[answer.demand].budget).await {
            Ok(budget) => _ = budgets.insert(budget.id, budget),
            // It was deleted meanwhile, and limits nothing any more.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for answer in &held.answers {
        if let (Some(above), demand) = (answer.warns_above, &demands[answer.demand])
            && let Some(budget) = budgets.get(&demand.budget)
            && let Err(error) = warn(storage, lease, budget, demand, above).await
        {
            // Whoever moves the counter next finds that nobody was warned.
            tracing::warn!(%error, budget = %budget.id, "a soft limit is passed, and nobody could be told");
        }
    }
    let refusals = held.answers.iter().filter(|answer| answer.refuses);
    let refusals = refusals.filter_map(|answer| {
        let demand = &demands[answer.demand];
        Some(exceeded(budgets.get(&demand.budget)?, demand, answer))
    });
    Ok(match refusals.min_by_key(|refusal| refusal.budget) {
        Some(refusal) => Admission::Refused(Box::new(refusal)),
        None => Admission::Admitted,
    })
}

fn exceeded(budget: &Stored<Budget>, demand: &BudgetDemand, answer: &Answer) -> BudgetExceeded {
    BudgetExceeded {
        budget: budget.id,
        subject: budget.subject,
        period: budget.period,
        unit: budget.unit,
        window: demand.window.key.clone(),
        ends_at: demand.window.span.map(|(_, end)| end),
        limit: Amount::new(answer.limit),
        spent: Amount::new(answer.spent),
        held: Amount::new(answer.held),
        asked: Amount::new(answer.asked),
    }
}

/// Tells in the log of the run that a soft limit is passed, if nobody has told it in this period.
async fn warn(
    storage: &PgStorage,
    lease: &Lease,
    budget: &Stored<Budget>,
    demand: &BudgetDemand,
    above: i64,
) -> Result<()> {
    const OPERATION: &str = "budgets.warn";
    let (base, lease, budget) = (storage.base().clone(), *lease, budget.clone());
    let window = demand.window.key.clone();
    let work = async move {
        let tx = base.begin(OPERATION).await?;
        let place = format!(
            "SELECT place.last_seq FROM run_leases AS place
             WHERE place.tenant_id = $1 AND place.run_id = $2 AND place.token = $3 AND {HELD} FOR NO KEY UPDATE"
        );
        let failed = |error: DbErr| unnamed(OPERATION, &error);
        let place = tx.query_one_raw(sql(place, key(&lease, []))).await.map_err(failed)?;
        let place = place.ok_or_else(|| Error::stale_lease(OPERATION, &lease))?;
        let after: i64 = place.try_get("", "last_seq").map_err(failed)?;
        let mark = "UPDATE budget_counters SET warned = TRUE, updated_at = clock_timestamp()
            WHERE tenant_id = $1 AND budget_id = $2 AND \"window\" = $3 AND NOT warned
              AND spent::numeric + held > $4
            RETURNING least(spent::numeric + held, 9223372036854775807)::BIGINT AS committed";
        let values = [lease.tenant.raw().into(), budget.id.raw().into(), window.clone().into(), above.into()];
        let Some(marked) = tx.query_one_raw(sql(mark, values)).await.map_err(failed)? else {
            return commit(OPERATION, tx).await;
        };
        let passed = SoftLimitPassed {
            budget: budget.id,
            subject: budget.subject,
            period: budget.period,
            unit: budget.unit,
            window,
            above: Amount::new(above),
            committed: Amount::new(marked.try_get("", "committed").map_err(failed)?),
        };
        tracing::warn!(%passed, "a soft limit is passed");
        let Lease { tenant, run, attempt } = lease;
        let place = Place { tenant, run, attempt: Some(attempt.raw()), after };
        let batch = Batch::of([AgentEvent::system(passed.told())]);
        let moved = "UPDATE run_leases SET last_seq = last_seq + $2 WHERE run_id = $1";
        tx.execute_raw(sql(moved, [run.raw().into(), batch.len().into()])).await.map_err(failed)?;
        let recorded = events::record(&tx, vec![(place, batch)]).await.map_err(failed)?;
        commit(OPERATION, tx).await?;
        for (run, events) in recorded {
            base.news.recorded(run, &events);
        }
        Ok(())
    };
    storage.detached(OPERATION, span(OPERATION, lease.tenant, Budget::TABLE), work).await
}
