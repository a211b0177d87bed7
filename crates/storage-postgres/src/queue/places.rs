//! The places in the line by themselves: given up, given anew, counted.

use std::collections::HashSet;
use std::sync::LazyLock;

use lime_core::identity::Tenant;
use lime_core::ports::QueueDepth;
use lime_core::runs::{AgentRun, Lease, RunStatus};
use lime_core::{Id, Result, Topic};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use tracing::Instrument;

use super::arrays;
use crate::PgStorage;
use crate::batch::{Batcher, together};
use crate::connections::Transaction;
use crate::error::unnamed;
use crate::fence::{self, words};
use crate::storage::{Base, commit, sql};

/// The most places of several callers that one statement gives up, beside those of the last one.
const MOST: usize = 1_000;

const FINISH: &str = "queue.finish";

/// Gives places up for many callers at once.
pub(super) fn finisher(base: &Base) -> Batcher<Vec<Lease>, usize> {
    let of_all = base.clone();
    Batcher::weighed(FINISH, MOST, MOST, Vec::len, base.in_flight, move |calls: Vec<Vec<Lease>>| {
        let base = of_all.clone();
        async move {
            let finished = together(&calls, |calls| {
                let base = base.clone();
                Box::pin(async move { finish(&base, calls).await })
            });
            finished.await
        }
    })
}

static FINISH_STATEMENT: LazyLock<String> = LazyLock::new(|| {
    let condition = "NOT place.started AND place.expires_at > clock_timestamp()";
    format!(
        "WITH held AS MATERIALIZED (
             SELECT place.run_id FROM UNNEST((SELECT $1), $2, $3) AS given (tenant_id, run_id, token) {}
         ), gone AS (
             DELETE FROM run_leases WHERE run_id = ANY (ARRAY(SELECT held.run_id FROM held)) RETURNING run_id
         )
         SELECT array_agg(run_id) AS runs FROM gone",
        fence::places("place.run_id", condition, "FOR UPDATE")
    )
});

async fn finish(base: &Base, calls: &[Vec<Lease>]) -> Result<Vec<usize>> {
    let mut leases: Vec<&Lease> = calls.iter().flatten().collect();
    leases.sort_unstable_by_key(|lease| lease.run);
    let row = base.db.query_one_raw(sql(FINISH_STATEMENT.as_str(), arrays(leases.into_iter()))).await;
    let gone = row.and_then(|row| row.map_or(Ok(None), |row| row.try_get::<Option<Vec<i64>>>("", "runs")));
    let gone = gone.map_err(|error| unnamed(FINISH, &error))?.unwrap_or_default();
    // Each is counted for one of those who had its lease.
    let mut gone: HashSet<i64> = gone.into_iter().collect();
    let of_one = |leases: &Vec<Lease>| leases.iter().filter(|lease| gone.remove(&lease.run.raw())).count();
    Ok(calls.iter().map(of_one).collect())
}

/// Gives runs that have not ended a place in the line, where they have none; gives how many.
///
/// - One that a worker is said to have gets a lease that has run out: it is put back as if the worker was lost.
/// - The runs' rows are locked, so that none ends meanwhile and nobody else gives it a place. Whether one has a place is
///   looked at again once it is locked, in a statement that sees what others did until then: no index of the two tables
///   could refuse a second one.
pub(super) async fn place(
    db: &Transaction,
    operation: &'static str,
    only: Option<(Id<Tenant>, Id<AgentRun>)>,
) -> Result<usize> {
    let alive = words(RunStatus::ALL.iter().copied().filter(|status| !status.is_final()));
    let lost = format!(
        "run.status IN ({alive}) AND NOT EXISTS (SELECT FROM run_queue AS place WHERE place.run_id = run.id)
         AND NOT EXISTS (SELECT FROM run_leases AS place WHERE place.run_id = run.id)"
    );
    // Tenant by tenant, by the index that begins with it.
    let (tenants, these) = match only {
        Some(_) => ("tenants.id = $1", "run.id = $2"),
        None => ("TRUE", "TRUE"),
    };
    let lock = format!(
        "SELECT run.id FROM tenants CROSS JOIN LATERAL (
             SELECT run.id FROM agent_runs AS run WHERE run.tenant_id = tenants.id AND {lost} AND {these}
             FOR NO KEY UPDATE SKIP LOCKED
         ) AS run
         WHERE {tenants}"
    );
    let values = only.map(|(tenant, run)| [tenant.raw().into(), run.raw().into()]);
    let locked = db.query_all_raw(sql(lock, values.into_iter().flatten())).await;
    let locked = locked.and_then(|rows| rows.iter().map(|row| row.try_get::<i64>("", "id")).collect());
    let locked: Vec<i64> = locked.map_err(|error| unnamed(operation, &error))?;
    if locked.is_empty() {
        return Ok(0);
    }
    let insert = format!(
        "WITH lost AS MATERIALIZED (
             SELECT run.*, run.status IN ('queued', 'paused') AS is_waiting,
                    run.status = 'queued' AND coalesce(run.run_at > now(), false) AS is_scheduled,
                    (SELECT count(*) FROM run_inputs AS input
                     WHERE input.tenant_id = run.tenant_id AND input.run_id = run.id) AS inputs
             FROM agent_runs AS run WHERE run.id = ANY ($1) AND {lost}
         ), placed AS (
             INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, last_seq, inputs, state,
                                    due_at)
             SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, priority, last_seq, inputs,
                    CASE WHEN status = 'paused' THEN 2 WHEN is_scheduled THEN 1 ELSE 0 END,
                    CASE WHEN is_scheduled THEN run_at END
             FROM lost WHERE is_waiting
         ), leased AS (
             INSERT INTO run_leases (run_id, tenant_id, project_id, agent_id, provider, priority, last_seq, inputs, token,
                                     started, queued_at, expires_at, due_at)
             SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, priority, last_seq, inputs, attempt_id,
                    true, now(), now(), now()
             FROM lost WHERE NOT is_waiting
         )
         SELECT count(*) AS runs FROM lost"
    );
    let placed = db.query_one_raw(sql(insert, [locked.into()])).await;
    let placed = placed.and_then(|row| row.map_or(Ok(0), |row| row.try_get::<i64>("", "runs")));
    let placed = placed.map_err(|error| unnamed(operation, &error))?;
    Ok(usize::try_from(placed).unwrap_or(usize::MAX))
}

/// Frees what attempts hold of budgets that have no lease any more; there are none unless somebody repaired by hand.
async fn free_forgotten(db: &Transaction) -> Result<(), DbErr> {
    let statement = "SELECT budgets_free(array_agg(tenant_id), array_agg(attempt_id), array_agg(FALSE), TRUE)
        FROM (
            SELECT DISTINCT holding.tenant_id, holding.attempt_id FROM budget_reservations AS holding
            WHERE NOT EXISTS (SELECT FROM run_leases AS place
                              WHERE place.run_id = holding.run_id AND place.token = holding.attempt_id)
        ) AS forgotten HAVING count(*) > 0";
    db.execute_raw(sql(statement, [])).await.map(|_| ())
}

pub(super) async fn sweep(storage: &PgStorage) -> Result<usize> {
    const OPERATION: &str = "queue.sweep";
    let base = storage.base().clone();
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_queue");
    let work = async move {
        let tx = base.begin(OPERATION).await?;
        let placed = place(&tx, OPERATION, None).await?;
        free_forgotten(&tx).await.map_err(|error| unnamed(OPERATION, &error))?;
        commit(OPERATION, tx).await?;
        if placed > 0 {
            base.news.wake(Topic::Queue);
        }
        Ok(placed)
    };
    storage.detached(OPERATION, span, work).await
}

pub(super) async fn depth(storage: &PgStorage) -> Result<QueueDepth> {
    const OPERATION: &str = "queue.depth";
    let statement = "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
        place AS (
            SELECT CASE WHEN state = 1 AND due_at <= now THEN 0 ELSE state END AS state,
                   now - coalesce(due_at, queued_at) AS waited
            FROM run_queue, clock
            WHERE tenant_id <> ALL (ARRAY(SELECT id FROM tenants WHERE deleted_at IS NOT NULL))
        )
        SELECT state::int, count(*) AS runs, (extract(epoch FROM max(waited)) * 1000)::bigint AS waited_ms
        FROM place GROUP BY 1
        UNION ALL
        SELECT 3, count(*), 0 FROM run_leases";
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_queue");
    let rows = storage.connection().query_all_raw(sql(statement, [])).instrument(span).await;
    let rows = rows.map_err(|error| unnamed(OPERATION, &error))?;
    let mut depth = QueueDepth::default();
    for row in &rows {
        let (state, runs, waited_ms) = counted(row).map_err(|error| unnamed(OPERATION, &error))?;
        match state {
            0 => (depth.ready, depth.oldest_ready_ms) = (runs, waited_ms),
            1 => depth.scheduled = runs,
            2 => depth.paused = runs,
            _ => depth.leased = runs,
        }
    }
    Ok(depth)
}

fn counted(row: &QueryResult) -> Result<(i32, u64, u64), DbErr> {
    let (runs, waited_ms): (i64, i64) = (row.try_get("", "runs")?, row.try_get("", "waited_ms")?);
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok((row.try_get("", "state")?, positive(runs), positive(waited_ms)))
}
