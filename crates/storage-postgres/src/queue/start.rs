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
use crate::fence::{self, words};
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
    let condition = format!(
        "NOT place.started AND place.expires_at > clock_timestamp()
         AND EXISTS (SELECT FROM agent_runs AS run WHERE run.id = given.run_id AND run.status IN ({waiting}))"
    );
    format!(
        "WITH held AS MATERIALIZED (
             SELECT place.*, given.worker, clock_timestamp() AS now,
                    clock_timestamp() + given.length * interval '1 ms' AS ends
             FROM UNNEST((SELECT $1), $2, $3, $4, $5) AS given (tenant_id, run_id, token, worker, length) {}
         ), begun AS (
             {}
         ), attempt AS (
             INSERT INTO run_attempts (id, tenant_id, run_id, number, worker, heartbeat_at)
             SELECT held.token, held.tenant_id, held.run_id, run.attempt_count + 1, held.worker, held.now
             FROM held CROSS JOIN LATERAL (SELECT attempt_count FROM agent_runs WHERE id = held.run_id) AS run
         ), told AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
             SELECT tenant_id, run_id, token, last_seq + 1, now, $6, $7::jsonb FROM held
         )
         UPDATE agent_runs AS run
         SET status = '{running}', attempt_id = held.token, attempt_count = run.attempt_count + 1, run_at = NULL,
             started_at = coalesce(run.started_at, held.now), last_seq = held.last_seq + 1,
             version = run.version + 1, updated_at = held.now
         FROM held WHERE run.id = held.run_id
         RETURNING run.*, held.now AS begun_at, held.ends AS lease_ends",
        fence::places("place.*", &condition, "FOR NO KEY UPDATE"),
        fence::change(
            "held",
            &[
                ("started", "TRUE"),
                ("last_seq", "last_seq + 1"),
                ("expires_at", "ends"),
                ("due_at", "least(due_at, ends)")
            ]
        )
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
    let mut sorted: Vec<(&Lease, &Start)> =
        starts.iter().flat_map(|start| start.leases.iter().map(move |lease| (lease, start))).collect();
    sorted.sort_by_key(|(lease, _)| (lease.run, lease.attempt, lease.tenant));
    // The first of those who have the same lease begins it.
    sorted.dedup_by_key(|(lease, _)| **lease);
    let of_each = || sorted.iter().map(|(_, start)| start);
    let running = AgentEvent::status(RunStatus::Running, None);
    let values = arrays(sorted.iter().map(|(lease, _)| *lease)).into_iter().chain([
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
