use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::{MemoryStorage, State};
use crate::ports::{Claim, Claimant, Progress, Queue, Settlement, Signals, WorkerName};
use crate::runs::{AgentEvent, AgentRun, AttemptEnd, Lease, Outcome, RunAttempt, RunSignal, RunStatus};
use crate::{Error, Id, Result, Scope, Stored};

fn after(now: DateTime<Utc>, lease: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(lease).unwrap_or(TimeDelta::days(365))
}

impl State {
    /// The run of a lease that still holds.
    pub(super) fn leased(
        &mut self,
        lease: &Lease,
        operation: &'static str,
        now: DateTime<Utc>,
    ) -> Result<&mut Stored<AgentRun>> {
        self.table::<AgentRun>()
            .rows
            .get_mut(&lease.run)
            .filter(|row| row.tenant == lease.tenant)
            .map(|row| &mut row.stored)
            .filter(|run| {
                matches!(run.status, RunStatus::Running | RunStatus::WaitingApproval)
                    && run.attempt_id == Some(lease.attempt)
                    && run.lease_expires_at.is_some_and(|end| end > now)
            })
            .ok_or_else(|| Error::stale_lease(operation, lease))
    }

    fn run(&mut self, id: Id<AgentRun>) -> &mut Stored<AgentRun> {
        let row = self.table::<AgentRun>().rows.get_mut(&id);
        &mut row.expect("the caller has just found the run, under the same lock").stored
    }

    fn end_attempt(&mut self, id: Id<AgentRun>, end: AttemptEnd, error: Option<String>, now: DateTime<Utc>) {
        let run = self.run(id);
        run.value.lease_expires_at = None;
        run.version += 1;
        run.updated_at = now;
        let attempt = run.attempt_id.and_then(|attempt| self.table::<RunAttempt>().rows.get_mut(&attempt));
        if let Some(attempt) = attempt {
            attempt.stored.value.outcome = Some(end);
            attempt.stored.value.error = error;
            attempt.stored.value.ended_at = Some(now);
            attempt.stored.version += 1;
            attempt.stored.updated_at = now;
        }
    }

    fn signal(&mut self, id: Id<AgentRun>, signal: RunSignal, now: DateTime<Utc>) {
        let run = self.run(id);
        run.value.status =
            run.status.after(signal).expect("the caller has checked the state, under the same lock");
        run.version += 1;
        run.updated_at = now;
    }

    fn close(&mut self, id: Id<AgentRun>, settlement: Settlement, now: DateTime<Utc>) {
        let run = self.run(id);
        run.value.settle(&settlement);
        run.value.ended_at = Some(now);
        let closing = AgentEvent::status(run.status, None);
        self.record(id, settlement.events.into_iter().chain([closing]).collect(), now);
    }

    fn cancel_or_requeue(&mut self, id: Id<AgentRun>, signal: RunSignal, now: DateTime<Utc>) {
        self.signal(id, signal, now);
        let run = self.run(id);
        if run.status.is_final() {
            run.value.stop_reason = Some((&Outcome::Cancelled).into());
            run.value.ended_at = Some(now);
        }
        let event = AgentEvent::status(run.status, None);
        self.record(id, vec![event], now);
    }

    /// Takes back what lost workers held.
    fn rescue(&mut self, now: DateTime<Utc>) -> Vec<Id<AgentRun>> {
        let lost: Vec<_> = self
            .table::<AgentRun>()
            .rows
            .values()
            .filter(|row| row.stored.lease_expires_at.is_some_and(|end| end <= now))
            .map(|row| row.stored.id)
            .collect();
        for &id in &lost {
            match self.run(id).value.lose_worker() {
                Some(end) => self.close(id, end, now),
                None => {
                    self.signal(id, RunSignal::HandBack, now);
                    let queued = AgentEvent::status(RunStatus::Queued, Some("the worker was lost"));
                    self.record(id, vec![queued], now);
                }
            }
            self.end_attempt(id, AttemptEnd::Lost, Some("the lease ran out".into()), now);
        }
        lost
    }

    fn start_attempt(
        &mut self,
        id: Id<AgentRun>,
        worker: &WorkerName,
        ends: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Claim {
        let tenant = self.table::<AgentRun>().rows[&id].tenant;
        let number = self.run(id).attempt_count + 1;
        let attempt = RunAttempt {
            run_id: id,
            number,
            worker: worker.as_str().to_owned(),
            heartbeat_at: now,
            outcome: None,
            error: None,
            ended_at: None,
        };
        let attempt = self.table().push(tenant, now, attempt);
        self.signal(id, RunSignal::Claim, now);
        let run = self.run(id);
        run.value.attempt_id = Some(attempt.id);
        run.value.attempt_count = number;
        run.value.lease_expires_at = Some(ends);
        run.value.started_at.get_or_insert(now);
        self.record(id, vec![AgentEvent::status(RunStatus::Running, None)], now);
        let lease = Lease { tenant, run: id, attempt: attempt.id };
        Claim { lease, run: self.run(id).clone(), attempt_number: number, expires_at: ends }
    }
}

#[async_trait]
impl Queue for MemoryStorage {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        const OPERATION: &str = "queue.submit";
        let now = self.now();
        let mut state = self.lock();
        let run = run.queued();
        state.check_fence(scope, OPERATION, now)?;
        state.check(scope, OPERATION, None, &run)?;
        let id = state.table().push(scope.tenant(), now, run).id;
        state.record(id, vec![AgentEvent::status(RunStatus::Queued, None)], now);
        Ok(state.run(id).clone())
    }

    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>> {
        let now = self.now();
        let mut state = self.lock();
        let mut touched = state.rescue(now);
        let waiting: Vec<_> = state
            .table::<AgentRun>()
            .rows
            .values()
            .filter(|row| row.stored.status == RunStatus::Queued)
            .filter(|row| claimant.providers.contains(&row.stored.provider))
            .map(|row| row.stored.id)
            .take(max)
            .collect();
        touched.extend(&waiting);
        let claims = waiting
            .into_iter()
            .map(|id| state.start_attempt(id, &claimant.worker, after(now, lease), now))
            .collect();
        drop(state);
        touched.into_iter().for_each(|run| self.0.hub.recorded(run));
        Ok(claims)
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        let now = self.now();
        let mut state = self.lock();
        let run = state.leased(lease, "queue.heartbeat", now)?;
        run.value.lease_expires_at = Some(after(now, extend));
        let cancel = run.cancel_requested_at.is_some();
        if let Some(attempt) = state.table::<RunAttempt>().rows.get_mut(&lease.attempt) {
            attempt.stored.value.heartbeat_at = now;
        }
        Ok(Signals { cancel })
    }

    async fn progress(&self, lease: &Lease, progress: Progress) -> Result<()> {
        let now = self.now();
        let mut state = self.lock();
        let run = state.leased(lease, "queue.progress", now)?;
        let Progress { provider_session_id, instructions, branch, model } = progress;
        run.value.provider_session_id = provider_session_id.or(run.value.provider_session_id.take());
        run.value.instructions = instructions.or(run.value.instructions.take());
        run.value.branch = branch.or(run.value.branch.take());
        run.value.model = model.or(run.value.model.take());
        run.version += 1;
        run.updated_at = now;
        Ok(())
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        let now = self.now();
        let mut state = self.lock();
        state.leased(lease, "queue.settle", now)?;
        let end = settlement.outcome.attempt_end();
        state.close(lease.run, settlement, now);
        state.end_attempt(lease.run, end, None, now);
        let run = state.run(lease.run).clone();
        drop(state);
        self.0.hub.recorded(lease.run);
        Ok(run)
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let now = self.now();
        let mut state = self.lock();
        let cancelled = state.leased(lease, "queue.release", now)?.cancel_requested_at.is_some();
        let signal = if cancelled { RunSignal::Cancel } else { RunSignal::HandBack };
        state.cancel_or_requeue(lease.run, signal, now);
        state.end_attempt(lease.run, AttemptEnd::Released, None, now);
        drop(state);
        self.0.hub.recorded(lease.run);
        Ok(())
    }

    async fn request_cancel(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        let now = self.now();
        let mut state = self.lock();
        let stored = &mut state.row(scope, "queue.request_cancel", run)?.stored;
        if stored.status.is_final() {
            return Ok(stored.clone());
        }
        if stored.cancel_requested_at.is_none() {
            stored.value.cancel_requested_at = Some(now);
            stored.version += 1;
            stored.updated_at = now;
        }
        if stored.lease_expires_at.is_none() {
            state.cancel_or_requeue(run, RunSignal::Cancel, now);
        }
        let stored = state.run(run).clone();
        drop(state);
        self.0.hub.recorded(run);
        Ok(stored)
    }
}
