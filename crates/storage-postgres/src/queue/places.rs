//! The places in the line by themselves: given up, given anew, counted.

use lime_core::identity::Tenant;
use lime_core::ports::QueueDepth;
use lime_core::runs::{AgentRun, Lease, RunStatus};
use lime_core::{Id, Result, Topic};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use tracing::Instrument;

use super::arrays;
use crate::PgStorage;
use crate::batch::{Batcher, together};
use crate::error::unnamed;
use crate::fence::words;
use crate::storage::{Base, sql};

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

async fn finish(base: &Base, calls: &[Vec<Lease>]) -> Result<Vec<usize>> {
    let statement = "WITH place AS MATERIALIZED (
            SELECT place.run_id FROM UNNEST((SELECT $1), $2, $3) AS lease (tenant_id, run_id, token)
            CROSS JOIN run_queue AS place
            WHERE place.tenant_id = lease.tenant_id AND place.run_id = lease.run_id AND place.token = lease.token
              AND NOT place.started AND place.lease_expires_at > clock_timestamp()
            ORDER BY place.run_id FOR UPDATE OF place
        )
        DELETE FROM run_queue WHERE run_id = ANY (ARRAY(SELECT run_id FROM place)) RETURNING run_id";
    let rows = base.db.query_all_raw(sql(statement, arrays(calls.iter().flatten()))).await;
    let rows = rows.map_err(|error| unnamed(FINISH, &error))?;
    let gone = rows.iter().map(|row| row.try_get::<i64>("", "run_id")).collect::<Result<Vec<_>, _>>();
    let mut gone: std::collections::HashSet<i64> =
        gone.map_err(|error| unnamed(FINISH, &error))?.into_iter().collect();
    // Each is counted for one of those who had its lease.
    let of_one = |leases: &Vec<Lease>| leases.iter().filter(|lease| gone.remove(&lease.run.raw())).count();
    Ok(calls.iter().map(of_one).collect())
}

/// Gives runs that have not ended a place in the line, where they have none; gives how many.
///
/// - One that a worker is said to have gets a lease that has run out: it is put back as if the worker was lost.
/// - The runs' rows are locked, so that none ends meanwhile.
pub(super) async fn place(
    db: &impl ConnectionTrait,
    operation: &'static str,
    only: Option<(Id<Tenant>, Id<AgentRun>)>,
) -> Result<usize> {
    let alive = words(RunStatus::ALL.iter().copied().filter(|status| !status.is_final()));
    // Tenant by tenant, by the index that begins with it.
    let (tenants, these) = match only {
        Some(_) => ("tenants.id = $1", "run.id = $2"),
        None => ("TRUE", "TRUE"),
    };
    let statement = format!(
        "WITH lost AS MATERIALIZED (
             SELECT run.* FROM tenants CROSS JOIN LATERAL (
                 SELECT * FROM agent_runs AS run
                 WHERE run.tenant_id = tenants.id AND run.status IN ({alive}) AND {these}
                   AND NOT EXISTS (SELECT FROM run_queue AS place WHERE place.run_id = run.id)
                 FOR NO KEY UPDATE SKIP LOCKED
             ) AS run
             WHERE {tenants}
         )
         INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, last_seq, inputs, state,
                                due_at, token, started, lease_expires_at)
         SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, priority, last_seq,
                (SELECT count(*) FROM run_inputs AS input
                 WHERE input.tenant_id = lost.tenant_id AND input.run_id = lost.id),
                CASE status WHEN 'queued' THEN CASE WHEN run_at > now() THEN 1 ELSE 0 END WHEN 'paused' THEN 3 ELSE 2 END,
                CASE status WHEN 'queued' THEN CASE WHEN run_at > now() THEN run_at END WHEN 'paused' THEN NULL ELSE now() END,
                CASE WHEN status NOT IN ('queued', 'paused') THEN attempt_id END,
                status NOT IN ('queued', 'paused'),
                CASE WHEN status NOT IN ('queued', 'paused') THEN now() END
         FROM lost
         ON CONFLICT (run_id) DO NOTHING"
    );
    let values = only.map(|(tenant, run)| [tenant.raw().into(), run.raw().into()]);
    let placed = db.execute_raw(sql(statement, values.into_iter().flatten())).await;
    let placed = placed.map_err(|error| unnamed(operation, &error))?;
    Ok(usize::try_from(placed.rows_affected()).unwrap_or(usize::MAX))
}

pub(super) async fn sweep(storage: &PgStorage) -> Result<usize> {
    const OPERATION: &str = "queue.sweep";
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_queue");
    let placed = place(storage.connection(), OPERATION, None).instrument(span).await?;
    if placed > 0 {
        storage.news().wake(Topic::Queue);
    }
    Ok(placed)
}

pub(super) async fn depth(storage: &PgStorage) -> Result<QueueDepth> {
    const OPERATION: &str = "queue.depth";
    let statement = "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
        place AS (
            SELECT CASE WHEN state = 1 AND due_at <= now THEN 0 ELSE state END AS state,
                   now - coalesce(due_at, queued_at) AS waited
            FROM run_queue, clock
        )
        SELECT state::int, count(*) AS runs, (extract(epoch FROM max(waited)) * 1000)::bigint AS waited_ms
        FROM place GROUP BY 1";
    let span = tracing::debug_span!("storage", operation = OPERATION, table = "run_queue");
    let rows = storage.connection().query_all_raw(sql(statement, [])).instrument(span).await;
    let rows = rows.map_err(|error| unnamed(OPERATION, &error))?;
    let mut depth = QueueDepth::default();
    for row in &rows {
        let (state, runs, waited_ms) = counted(row).map_err(|error| unnamed(OPERATION, &error))?;
        match state {
            0 => (depth.ready, depth.oldest_ready_ms) = (runs, waited_ms),
            1 => depth.scheduled = runs,
            2 => depth.leased = runs,
            _ => depth.paused = runs,
        }
    }
    Ok(depth)
}

fn counted(row: &QueryResult) -> Result<(i32, u64, u64), DbErr> {
    let (runs, waited_ms): (i64, i64) = (row.try_get("", "runs")?, row.try_get("", "waited_ms")?);
    let positive = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok((row.try_get("", "state")?, positive(runs), positive(waited_ms)))
}
