//! How runs are taken out of the line, and put back when their worker was lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use lime_core::Result;
use lime_core::ports::Claimant;
use lime_core::runs::{AgentRun, AttemptEnd, Lease};
use lime_core::{Entity, Id};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::held::{self, Held, Then, Which};
use super::{arrays, millis};
use crate::PgStorage;
use crate::error::unnamed;
use crate::storage::{Base, commit, sql};

const OPERATION: &str = "queue.take";

/// What `run_queue_take` gives: leases, or runs whose workers were lost.
#[derive(Debug, Default)]
struct Taken {
    leases: Vec<Lease>,
    lost: Vec<i64>,
}

fn taken(row: &QueryResult) -> Result<Taken, DbErr> {
    let ids = |name: &str| row.try_get::<Option<Vec<i64>>>("", name).map(Option::unwrap_or_default);
    let (tenants, runs, attempts) = (ids("tenants")?, ids("runs")?, ids("attempts")?);
    let leases = tenants.into_iter().zip(runs).zip(attempts);
    let lease = |((tenant, run), attempt)| Lease {
        tenant: Id::new(tenant),
        run: Id::new(run),
        attempt: Id::new(attempt),
    };
    Ok(Taken { leases: leases.map(lease).collect(), lost: ids("lost")? })
}

pub(super) async fn take(
    storage: &PgStorage,
    claimant: &Claimant,
    max: usize,
    lease: Duration,
) -> Result<Vec<Lease>> {
    if max == 0 || claimant.providers.is_empty() {
        return Ok(Vec::new());
    }
    let (this, claimant) = (storage.clone(), claimant.clone());
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_queue");
    let (caller, answer) = tokio::sync::oneshot::channel();
    let work = async move {
        let result = take_or_rescue(&this, &claimant, max, lease).await;
        if let Err(Ok(leases)) = caller.send(result) {
            // Nobody waits for them any more.
            if let Err(error) = put_back(this.base(), &leases).await {
                tracing::warn!(%error, "runs that nobody waited for go back when their leases run out");
            }
        }
        Ok(())
    };
    storage.detached(OPERATION, span, work).await?;
    answer.await.unwrap_or_else(|_| Ok(Vec::new()))
}

async fn take_or_rescue(
    storage: &PgStorage,
    claimant: &Claimant,
    max: usize,
    lease: Duration,
) -> Result<Vec<Lease>> {
    let base = storage.base();
    let last_tenant = &storage.queue().last_tenant;
    let providers: Vec<String> = claimant.providers.iter().map(|id| id.as_str().to_owned()).collect();
    let mut is_rescued = false;
    loop {
        let values = [
            providers.clone().into(),
            i32::try_from(max).unwrap_or(i32::MAX).into(),
            millis(lease).into(),
            last_tenant.load(Ordering::Relaxed).into(),
            is_rescued.into(),
        ];
        let statement = "SELECT tenants, runs, attempts, lost FROM run_queue_take($1, $2, $3, $4, $5)";
        let row = base.db.query_one_raw(sql(statement, values)).await;
        let taken = row.and_then(|row| row.map_or_else(|| Ok(Taken::default()), |row| taken(&row)));
        let Taken { leases, lost } = taken.map_err(|error| unnamed(OPERATION, &error))?;
        if lost.is_empty() {
            if let Some(last) = leases.last() {
                last_tenant.store(last.tenant.raw(), Ordering::Relaxed);
                storage.queue().dust.settle(base, leases.len());
            }
            return Ok(leases);
        }
        rescue(base, lost).await?;
        is_rescued = true;
    }
}

/// Puts runs back whose attempts have not begun.
async fn put_back(base: &Base, leases: &[Lease]) -> Result<()> {
    if leases.is_empty() {
        return Ok(());
    }
    let statement = "WITH place AS MATERIALIZED (
            SELECT place.run_id FROM UNNEST((SELECT $1), $2, $3) AS lease (tenant_id, run_id, token)
            JOIN run_leases AS place USING (tenant_id, run_id, token)
            WHERE NOT place.started
            ORDER BY place.run_id FOR UPDATE OF place
        ), gone AS (
            DELETE FROM run_leases WHERE run_id = ANY (ARRAY(SELECT run_id FROM place)) RETURNING *
        )
        INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs)
        SELECT run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs FROM gone";
    let put = base.db.execute_raw(sql(statement, arrays(leases.iter()))).await;
    put.map_err(|error| unnamed(OPERATION, &error))?;
    base.news.wake(lime_core::Topic::Queue);
    Ok(())
}

/// Takes back what lost workers held; gives how many runs.
async fn rescue(base: &Base, lost: Vec<i64>) -> Result<usize> {
    const OPERATION: &str = "queue.rescue";
    let tx = base.begin(OPERATION).await?;
    let condition = "place.run_id = ANY ($1) AND place.started AND place.expires_at <= clock_timestamp()";
    let which = Which { table: "run_leases", given: None, condition, skip_locked: true };
    let found = held::lock(&tx, OPERATION, which, [lost.into()]).await?;
    let mut saved = Vec::new();
    for (run, held) in found {
        match held.and_then(|held| lose(OPERATION, held)) {
            Ok(held) => saved.push(held),
            Err(error) => {
                tracing::error!(%error, %run, "a lost run is left aside; it needs another version, or an operator");
                // It must not keep all others from being worked.
                let later = "UPDATE run_leases SET due_at = clock_timestamp() + interval '1 minute' WHERE run_id = $1";
                let put_off = tx.execute_raw(sql(later, [run.raw().into()])).await;
                put_off.map_err(|error| unnamed(OPERATION, &error))?;
            }
        }
    }
    let saved = held::save(&tx, OPERATION, saved).await?;
    commit(OPERATION, tx).await?;
    for run in &saved {
        let (id, crashes, status) = (run.stored.id, run.stored.crash_count, run.stored.status);
        tracing::warn!(run = %id, crashes, %status, "a worker was lost with its {}", AgentRun::NAME);
    }
    held::tell(base, &saved);
    Ok(saved.len())
}

/// Takes back what lost workers held, without taking anything.
pub(super) async fn reclaim(storage: &PgStorage) -> Result<usize> {
    const OPERATION: &str = "queue.reclaim";
    let base = storage.base().clone();
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_leases");
    let work = async move {
        let statement = "SELECT run_id FROM run_leases
            WHERE due_at <= clock_timestamp() AND started AND expires_at <= clock_timestamp()
            ORDER BY due_at LIMIT 100";
        let rows = base.db.query_all_raw(sql(statement, [])).await;
        let lost = rows.and_then(|rows| rows.iter().map(|row| row.try_get("", "run_id")).collect());
        let lost: Vec<i64> = lost.map_err(|error| unnamed(OPERATION, &error))?;
        if lost.is_empty() { Ok(0) } else { rescue(&base, lost).await }
    };
    storage.detached(OPERATION, span, work).await
}

fn lose(operation: &'static str, mut held: Held) -> Result<Held> {
    let end = held.run.value.lose_worker(held.said_nothing);
    held.end_attempt(AttemptEnd::Lost, Some("the lease ran out".into()));
    match end {
        Some(end) => held.close(operation, end)?,
        None => held.put_down(operation, Then::Waits(None), Some("the worker was lost".into()))?,
    }
    Ok(held)
}
