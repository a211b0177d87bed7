//! How attempts begin.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use lime_core::ports::{Claim, WorkerName};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunEvent, RunSignal, RunStatus};
use lime_core::{Id, Result};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult};

use super::{arrays, millis};
use crate::batch::{Batcher, together};
use crate::error::unnamed;
use crate::events::payload;
use crate::fence::words;
use crate::storage::{Base, sql};
use crate::store::read;
use crate::tables::agent_run::Model;

const OPERATION: &str = "queue.start";
/// The most leases of several callers that one statement begins, beside those of the last one.
const MOST: usize = 256;

/// A worker's leases to begin.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) worker: WorkerName,
    pub(super) leases: Vec<Lease>,
    pub(super) lease: Duration,
}

/// Begins the attempts of leases that still hold: attempt, state, event and the longer lease of each.
///
/// - What was cancelled or paused meanwhile has lost its lease by that.
static BEGIN: LazyLock<String> = LazyLock::new(|| {
    let (waiting, running) = (words(RunSignal::Claim.sources()), RunStatus::Running);
    format!(
        "WITH held AS MATERIALIZED (
             SELECT place.run_id, run.attempt_count + 1 AS number, lease.worker,
                    clock_timestamp() AS now, clock_timestamp() + lease.length * interval '1 ms' AS ends
             FROM UNNEST((SELECT $1), $2, $3, $4, $5) AS lease (tenant_id, run_id, token, worker, length)
             CROSS JOIN run_queue AS place JOIN agent_runs AS run ON run.id = place.run_id
             WHERE place.tenant_id = lease.tenant_id AND place.run_id = lease.run_id AND place.token = lease.token
               AND NOT place.started AND place.lease_expires_at > clock_timestamp()
               AND run.status IN ({waiting})
             ORDER BY place.run_id FOR NO KEY UPDATE OF place
         ), begun AS (
             UPDATE run_queue AS place
             SET started = TRUE, last_seq = place.last_seq + 1, lease_expires_at = held.ends,
                 due_at = least(place.due_at, held.ends)
             FROM held WHERE place.run_id = held.run_id
             RETURNING place.tenant_id, place.run_id, place.token, place.last_seq, held.number, held.worker, held.now,
                       held.ends
         ), attempt AS (
             INSERT INTO run_attempts (id, tenant_id, run_id, number, worker, heartbeat_at)
             SELECT token, tenant_id, run_id, number, worker, now FROM begun
         ), told AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
             SELECT tenant_id, run_id, token, last_seq, now, $6, $7::jsonb FROM begun
         )
         UPDATE agent_runs AS run
         SET status = '{running}', attempt_id = begun.token, attempt_count = begun.number, run_at = NULL,
             started_at = coalesce(run.started_at, begun.now), last_seq = begun.last_seq,
             version = run.version + 1, updated_at = begun.now
         FROM begun WHERE run.id = begun.run_id
         RETURNING run.*, begun.now AS begun_at, begun.ends AS lease_ends"
    )
});

/// Brings the calls of many callers together.
pub(super) fn batcher(base: &Base) -> Batcher<Start, Vec<Claim>> {
    let of_all = base.clone();
    let weight = |start: &Start| start.leases.len();
    Batcher::weighed(OPERATION, MOST, MOST, weight, base.in_flight, move |starts: Vec<Start>| {
        let base = of_all.clone();
        async move {
            let started = together(&starts, |starts| {
                let base = base.clone();
                Box::pin(async move { start(&base, starts).await })
            });
            started.await
        }
    })
}

async fn start(base: &Base, starts: &[Start]) -> Result<Vec<Vec<Claim>>> {
    let leases = || starts.iter().flat_map(|start| &start.leases);
    let of_each = || starts.iter().flat_map(|start| start.leases.iter().map(move |_| start));
    let running = AgentEvent::status(RunStatus::Running, None);
    let values = arrays(leases()).into_iter().chain([
        of_each().map(|start| start.worker.as_str().to_owned()).collect::<Vec<_>>().into(),
        of_each().map(|start| millis(start.lease)).collect::<Vec<_>>().into(),
        running.type_name().into(),
        payload(&running).into(),
    ]);
    let rows = base.db.query_all_raw(sql(BEGIN.as_str(), values)).await;
    let rows = rows.map_err(|error| unnamed(OPERATION, &error))?;
    let mut claims = HashMap::with_capacity(rows.len());
    for row in &rows {
        let (model, now, expires_at) = columns(row).map_err(|error| unnamed(OPERATION, &error))?;
        let (id, seq) = (Id::new(model.id), model.last_seq);
        let event = RunEvent { run_id: id, seq, ts: now, event: running.clone() };
        base.news.recorded(id, &[event]);
        if let Some(claim) = claim(model, expires_at) {
            claims.insert(claim.lease, claim);
        }
    }
    let of_one =
        |start: &Start| start.leases.iter().filter_map(|lease| claims.remove(lease)).collect::<Vec<_>>();
    Ok(starts.iter().map(of_one).collect())
}

fn columns(row: &QueryResult) -> Result<(Model, DateTime<Utc>, DateTime<Utc>), DbErr> {
    Ok((Model::from_query_result(row, "")?, row.try_get("", "begun_at")?, row.try_get("", "lease_ends")?))
}

/// What can be read: a run that another version has written must not keep all others from being worked.
fn claim(model: Model, expires_at: DateTime<Utc>) -> Option<Claim> {
    let (tenant, attempt) = (Id::new(model.tenant_id), Id::new(model.attempt_id?));
    let run = read::<AgentRun>(OPERATION, model)
        .inspect_err(
            |error| tracing::error!(%error, "a run is left aside; it needs another version, or an operator"),
        )
        .ok()?;
    let lease = Lease { tenant, run: run.id, attempt };
    Some(Claim { lease, attempt_number: run.attempt_count, expires_at, run })
}
