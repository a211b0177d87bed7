use std::sync::LazyLock;
use std::time::Duration;

use lime_core::ports::{Claim, Claimant};
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, Lease, RunSignal, RunStatus};
use lime_core::{Error, ErrorKind, Id, Result};
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult};

use super::held::{end_attempt, lock};
use super::{LOCK, millis};
use crate::error::unnamed;
use crate::events::payload;
use crate::fence::{LEASED_STATES, words};
use crate::storage::sql;
use crate::store::read;
use crate::tables::agent_run::Model;

/// How many lost runs one claim takes back; the next claim goes on.
const RESCUE_LIMIT: usize = 100;

/// Takes back what lost workers held; gives the runs.
pub(super) async fn rescue(db: &impl ConnectionTrait, operation: &'static str) -> Result<Vec<Id<AgentRun>>> {
    let lost = format!(
        "status IN ({}) AND lease_expires_at <= clock_timestamp()
         ORDER BY id LIMIT {RESCUE_LIMIT} {LOCK} SKIP LOCKED",
        *LEASED_STATES
    );
    let mut rescued = Vec::new();
    for mut held in lock(db, operation, &lost, []).await?.into_iter().filter_map(readable) {
        let events = match held.run.value.lose_worker() {
            Some(end) => held.close(operation, end)?,
            None => held.put_down(operation, RunSignal::HandBack, Some("the worker was lost"))?,
        };
        let run = held.save(db, operation, events).await?;
        end_attempt(db, operation, &run, AttemptEnd::Lost, Some("the lease ran out")).await?;
        tracing::warn!(run = %run.id, crashes = run.crash_count, status = %run.status, "a worker was lost with its run");
        rescued.push(run.id);
    }
    Ok(rescued)
}

/// What can be read: a run that another version has written must not keep all others from being worked.
fn readable<T>(found: Result<T>) -> Option<T> {
    found
        .inspect_err(
            |error| tracing::error!(%error, "a run is left aside; it needs another version, or an operator"),
        )
        .ok()
}

/// Leases the runs that wait longest: attempt, state, lease and event of each in one statement.
///
/// - A run that another claim is just taking is passed over, so claims neither wait for each other nor share.
static TAKE: LazyLock<String> = LazyLock::new(|| {
    let waiting = words(RunSignal::Claim.sources());
    let running = RunStatus::Running;
    format!(
        "WITH waiting AS (
             SELECT tenant_id, id, attempt_count FROM agent_runs WHERE status IN ({waiting}) AND provider = ANY($6)
             ORDER BY id LIMIT $1 {LOCK} SKIP LOCKED
         ), attempts AS (
             INSERT INTO run_attempts (tenant_id, run_id, number, worker, heartbeat_at)
             SELECT tenant_id, id, attempt_count + 1, $2, clock_timestamp() FROM waiting
             RETURNING tenant_id, run_id, id, number
         ), taken AS (
             UPDATE agent_runs AS run
             SET status = '{running}', attempt_id = attempts.id, attempt_count = attempts.number,
                 lease_expires_at = clock_timestamp() + $3 * interval '1 millisecond',
                 started_at = coalesce(run.started_at, clock_timestamp()),
                 last_seq = run.last_seq + 1, version = run.version + 1, updated_at = clock_timestamp()
             FROM attempts
             WHERE run.tenant_id = attempts.tenant_id AND run.id = attempts.run_id AND run.status IN ({waiting})
             RETURNING run.*
         ), logged AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
             SELECT tenant_id, id, attempt_id, last_seq, clock_timestamp(), $4, $5::jsonb FROM taken
         )
         SELECT * FROM taken ORDER BY id"
    )
});

pub(super) async fn take(
    db: &impl ConnectionTrait,
    operation: &'static str,
    claimant: &Claimant,
    max: usize,
    lease: Duration,
) -> Result<Vec<Claim>> {
    let event = AgentEvent::status(RunStatus::Running, None);
    let providers: Vec<String> = claimant.providers.iter().map(|id| id.as_str().to_owned()).collect();
    let values = [
        i64::try_from(max).unwrap_or(i64::MAX).into(),
        claimant.worker.as_str().into(),
        millis(lease),
        event.type_name().into(),
        payload(&event).into(),
        providers.into(),
    ];
    let rows = db.query_all_raw(sql(TAKE.as_str(), values)).await;
    let rows = rows.map_err(|error| unnamed(operation, &error))?;
    let claimed = |row: &QueryResult| {
        let model = Model::from_query_result(row, "").map_err(|error| unnamed(operation, &error))?;
        claim(operation, model)
    };
    Ok(rows.iter().map(claimed).filter_map(readable).collect())
}

fn claim(operation: &'static str, model: Model) -> Result<Claim> {
    let tenant = Id::new(model.tenant_id);
    let run = read::<AgentRun>(operation, model)?;
    let (Some(attempt), Some(expires_at)) = (run.attempt_id, run.lease_expires_at) else {
        let message = "a claimed run has no lease";
        return Err(Error::new(ErrorKind::Corrupt, operation, message).with("run", run.id));
    };
    let lease = Lease { tenant, run: run.id, attempt };
    Ok(Claim { lease, attempt_number: run.attempt_count, expires_at, run })
}
