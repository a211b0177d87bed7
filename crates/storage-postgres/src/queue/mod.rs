//! The queue, which is the table of runs itself.

mod claim;
mod held;

use std::time::Duration;

use async_trait::async_trait;
use lime_core::ports::{Claim, Claimant, Progress, Queue, Settlement, Signals};
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, Lease, RunSignal, RunStatus};
use lime_core::{Entity, Error, Id, Result, Scope, Stored};
use sea_orm::{ConnectionTrait, Value};
use tracing::Instrument;

use self::held::{Held, end_attempt, lock};
use crate::error::unnamed;
use crate::events::Batch;
use crate::fence::{self, LEASED, key};
use crate::storage::{commit, span, sql};
use crate::{PgStorage, nul, store};

/// A length of time for `* interval '1 ms'`; what does not fit is as good as for ever: a year.
fn millis(length: Duration) -> Value {
    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;
    i64::try_from(length.as_millis()).map_or(YEAR_MS, |ms| ms.min(YEAR_MS)).into()
}

/// The lock on a run's row that a change of it takes: those who only refer to the run do not wait for it.
const LOCK: &str = "FOR NO KEY UPDATE";

/// The run of a lease that still holds, locked until the transaction ends.
async fn leased(db: &impl ConnectionTrait, lease: &Lease, operation: &'static str) -> Result<Held> {
    let found = lock(db, operation, &format!("{} {LOCK}", *LEASED), key(lease, [])).await?.pop();
    found.ok_or_else(|| Error::stale_lease(operation, lease))?
}

#[async_trait]
impl Queue for PgStorage {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        const OPERATION: &str = "queue.submit";
        let mut run = run.queued();
        run.validate().map_err(|invalid| invalid.refused(OPERATION, AgentRun::NAME))?;
        let (this, scope) = (self.clone(), scope.clone());
        let span = span(OPERATION, scope.tenant(), AgentRun::TABLE);
        let work = async move {
            let tx = this.begin(OPERATION).await?;
            fence::hold(&tx, &scope, OPERATION).await?;
            let queued = Batch::of([AgentEvent::status(RunStatus::Queued, None)]);
            run.last_seq = queued.len();
            let stored = store::insert(&tx, &scope, OPERATION, run).await?;
            let logged = queued.insert(&tx, scope.tenant(), &stored, stored.id).await;
            logged.map_err(|error| unnamed(OPERATION, &error))?;
            commit(OPERATION, tx).await?;
            Ok(stored)
        };
        self.detached(OPERATION, span, work).await
    }

    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>> {
        const OPERATION: &str = "queue.claim";
        let (this, claimant) = (self.clone(), claimant.clone());
        let span = tracing::debug_span!("storage", operation = OPERATION, table = AgentRun::TABLE);
        let work = async move {
            let tx = this.begin(OPERATION).await?;
            let rescued = claim::rescue(&tx, OPERATION).await?;
            let claims = claim::take(&tx, OPERATION, &claimant, max, lease).await?;
            commit(OPERATION, tx).await?;
            let taken = claims.iter().map(|claim| claim.lease.run);
            rescued.into_iter().chain(taken).for_each(|run| this.hub().recorded(run));
            Ok(claims)
        };
        self.detached(OPERATION, span, work).await
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        const OPERATION: &str = "queue.heartbeat";
        let statement = format!(
            "WITH leased AS (
                 UPDATE agent_runs SET lease_expires_at = clock_timestamp() + $4 * interval '1 millisecond'
                 WHERE {} RETURNING tenant_id, attempt_id, cancel_requested_at
             ), beat AS (
                 UPDATE run_attempts AS attempt SET heartbeat_at = clock_timestamp() FROM leased
                 WHERE attempt.tenant_id = leased.tenant_id AND attempt.id = leased.attempt_id
             )
             SELECT cancel_requested_at IS NOT NULL AS cancel FROM leased",
            *LEASED
        );
        let row = self
            .connection()
            .query_one_raw(sql(statement, key(lease, [millis(extend)])))
            .instrument(span(OPERATION, lease.tenant, AgentRun::TABLE))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?
            .ok_or_else(|| Error::stale_lease(OPERATION, lease))?;
        let cancel = row.try_get("", "cancel").map_err(|error| unnamed(OPERATION, &error))?;
        Ok(Signals { cancel })
    }

    async fn progress(&self, lease: &Lease, progress: Progress) -> Result<()> {
        const OPERATION: &str = "queue.progress";
        let Progress { provider_session_id, instructions, branch, model } = progress;
        let instructions = instructions.map(|instructions| {
            serde_json::to_value(instructions).expect("instructions are plain values with text keys")
        });
        let statement = format!(
            "UPDATE agent_runs
             SET provider_session_id = coalesce($4, provider_session_id),
                 instructions_json = coalesce($5, instructions_json),
                 branch = coalesce($6, branch),
                 model = coalesce($7, model),
                 version = version + 1,
                 updated_at = clock_timestamp()
             WHERE {}",
            *LEASED
        );
        let provider_session_id = provider_session_id.map(nul::text);
        let instructions = instructions.map(nul::json);
        let more = [provider_session_id.into(), instructions.into(), branch.into(), model.into()];
        let done = self
            .connection()
            .execute_raw(sql(statement, key(lease, more)))
            .instrument(span(OPERATION, lease.tenant, AgentRun::TABLE))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?;
        if done.rows_affected() == 0 { Err(Error::stale_lease(OPERATION, lease)) } else { Ok(()) }
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        const OPERATION: &str = "queue.settle";
        let (this, lease) = (self.clone(), *lease);
        let work = async move {
            let tx = this.begin(OPERATION).await?;
            let mut held = leased(&tx, &lease, OPERATION).await?;
            let end = settlement.outcome.attempt_end();
            let events = held.close(OPERATION, settlement)?;
            let run = held.save(&tx, OPERATION, events).await?;
            end_attempt(&tx, OPERATION, &run, end, None).await?;
            commit(OPERATION, tx).await?;
            this.hub().recorded(lease.run);
            Ok(run)
        };
        self.detached(OPERATION, span(OPERATION, lease.tenant, AgentRun::TABLE), work).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        const OPERATION: &str = "queue.release";
        let (this, lease) = (self.clone(), *lease);
        let work = async move {
            let tx = this.begin(OPERATION).await?;
            let mut held = leased(&tx, &lease, OPERATION).await?;
            let cancelled = held.run.cancel_requested_at.is_some();
            let signal = if cancelled { RunSignal::Cancel } else { RunSignal::HandBack };
            let events = held.put_down(OPERATION, signal, None)?;
            let run = held.save(&tx, OPERATION, events).await?;
            end_attempt(&tx, OPERATION, &run, AttemptEnd::Released, None).await?;
            commit(OPERATION, tx).await?;
            this.hub().recorded(lease.run);
            Ok(())
        };
        self.detached(OPERATION, span(OPERATION, lease.tenant, AgentRun::TABLE), work).await
    }

    async fn request_cancel(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        const OPERATION: &str = "queue.request_cancel";
        let (this, tenant) = (self.clone(), scope.tenant());
        let work = async move {
            let tx = this.begin(OPERATION).await?;
            let values = [tenant.raw().into(), run.raw().into()];
            let found =
                lock(&tx, OPERATION, &format!("tenant_id = $1 AND id = $2 {LOCK}"), values).await?.pop();
            let mut held = found.ok_or_else(|| Error::not_found(OPERATION, AgentRun::NAME, run))??;
            let asked = held.run.cancel_requested_at.is_some();
            if held.run.status.is_final() || (asked && held.run.lease_expires_at.is_some()) {
                return Ok(held.run);
            }
            held.run.value.cancel_requested_at.get_or_insert(held.now);
            let events = match held.run.lease_expires_at {
                Some(_) => Batch::of([]),
                None => held.put_down(OPERATION, RunSignal::Cancel, None)?,
            };
            let stored = held.save(&tx, OPERATION, events).await?;
            commit(OPERATION, tx).await?;
            this.hub().recorded(run);
            Ok(stored)
        };
        self.detached(OPERATION, span(OPERATION, scope.tenant(), AgentRun::TABLE), work).await
    }
}
