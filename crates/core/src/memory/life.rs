//! The lives of runs: how each change of a state is made, and told to the log.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::line::{At, Held};
use super::{MemoryStorage, State};
use crate::governance::{Approval, ApprovalStatus};
use crate::identity::Tenant;
use crate::live::Topic;
use crate::ports::{Claim, Claimant, Settlement};
use crate::runs::{
    AgentEvent, AgentRun, AttemptEnd, Lease, Outcome, RunAttempt, RunEvent, RunSignal, RunStatus,
};
use crate::{Error, Id, Result, Scope, Stored};

/// What was appended to which run, to be announced once the lock is let go.
pub(super) type News = Vec<(Id<AgentRun>, Vec<RunEvent>)>;

/// A time so much later; the end of time, if it is later than that.
pub(super) fn after(now: DateTime<Utc>, length: Duration) -> DateTime<Utc> {
    let length = TimeDelta::from_std(length).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl State {
    /// The run of a lease that still holds.
    pub(super) fn leased(
        &mut self,
        lease: &Lease,
        operation: &'static str,
        now: DateTime<Utc>,
    ) -> Result<&mut Stored<AgentRun>> {
        let held = self.line.held(lease.run);
        self.table::<AgentRun>()
            .rows
            .get_mut(&lease.run)
            .filter(|row| row.tenant == lease.tenant)
            .filter(|_| {
                held.is_some_and(|held| held.started && held.token == lease.attempt && held.until > now)
            })
            .map(|row| &mut row.stored)
            .ok_or_else(|| Error::stale_lease(operation, lease))
    }

    pub(super) fn run(&mut self, id: Id<AgentRun>) -> &mut Stored<AgentRun> {
        let row = self.table::<AgentRun>().rows.get_mut(&id);
        &mut row.expect("the caller has just found the run, under the same lock").stored
    }

    pub(super) fn end_attempt(
        &mut self,
        id: Id<AgentRun>,
        end: AttemptEnd,
        error: Option<String>,
        now: DateTime<Utc>,
    ) {
        let attempt = self.run(id).attempt_id;
        let attempt = attempt.and_then(|attempt| self.table::<RunAttempt>().rows.get_mut(&attempt));
        if let Some(attempt) = attempt.filter(|attempt| attempt.stored.outcome.is_none()) {
            attempt.stored.value.outcome = Some(end);
            attempt.stored.value.error = error;
            attempt.stored.value.ended_at = Some(now);
            attempt.stored.version += 1;
            attempt.stored.updated_at = now;
        }
    }

    /// Changes the state as the state machine says, and tells the log.
    pub(super) fn signal(
        &mut self,
        id: Id<AgentRun>,
        signal: RunSignal,
        detail: Option<&str>,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let run = self.run(id);
        let status = run.status.after(signal).expect("the caller has checked the state, under the same lock");
        run.value.status = status;
        run.version += 1;
        run.updated_at = now;
        let attempt = run.attempt_id;
        if status.is_final() {
            run.value.ended_at = Some(now);
            self.line.0.remove(&id);
            self.void_questions(id, now);
        }
        if let (false, Some(attempt)) = (status.is_worked(), attempt) {
            let lease = Lease { tenant: self.tenant_of(id), run: id, attempt };
            self.free_budgets(&lease, status.is_final(), now);
        }
        self.record_status(id, status, detail, now)
    }

    /// Tells the log of a state; the run knows the position.
    pub(super) fn record_status(
        &mut self,
        id: Id<AgentRun>,
        status: RunStatus,
        detail: Option<&str>,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let recorded = self.record(id, vec![AgentEvent::status(status, detail)], now);
        let last_seq = recorded.last().map(|last| last.seq);
        let run = self.run(id);
        run.value.last_seq = last_seq.unwrap_or(run.last_seq);
        recorded
    }

    fn void_questions(&mut self, run: Id<AgentRun>, now: DateTime<Utc>) {
        let questions = self.table::<Approval>().rows.values_mut().map(|row| &mut row.stored);
        for open in questions.filter(|open| open.run_id == run && open.status == ApprovalStatus::Pending) {
            open.value.status = ApprovalStatus::Void;
            open.version += 1;
            open.updated_at = now;
        }
    }

    pub(super) fn close(
        &mut self,
        id: Id<AgentRun>,
        settlement: Settlement,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let signal = settlement.outcome.signal();
        let mut recorded = Vec::new();
        let run = self.run(id);
        if run.status == RunStatus::WaitingApproval && run.status.after(signal).is_err() {
            // With its end its questions are void, so it does not wait any more.
            self.void_questions(id, now);
            recorded = self.signal(id, RunSignal::Answer, None, now);
        }
        let run = self.run(id);
        let found = run.status;
        run.value.settle(&settlement);
        run.value.status = found;
        recorded.extend(self.record(id, settlement.events, now));
        recorded.extend(self.signal(id, signal, None, now));
        recorded
    }

    /// Cancels a run that nobody works any more.
    pub(super) fn cancel(&mut self, id: Id<AgentRun>, now: DateTime<Utc>) -> Vec<RunEvent> {
        self.run(id).value.stop_reason = Some((&Outcome::Cancelled).into());
        self.signal(id, RunSignal::Cancel, None, now)
    }

    /// Puts a run down that has no worker any more: cancelled or paused if that was asked for, else queued.
    pub(super) fn put_down(
        &mut self,
        id: Id<AgentRun>,
        from: DateTime<Utc>,
        detail: Option<&str>,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let run = self.run(id);
        if run.cancel_requested_at.is_some() {
            self.cancel(id, now)
        } else if run.pause_requested_at.is_some() {
            self.line.set(id, At::Paused);
            self.signal(id, RunSignal::Pause, None, now)
        } else {
            self.line.set(id, At::Waiting(from));
            self.signal(id, RunSignal::HandBack, detail, now)
        }
    }

    /// Takes back what lost workers held.
    pub(super) fn rescue(&mut self, now: DateTime<Utc>) -> News {
        let lost: Vec<_> = self
            .line
            .0
            .iter()
            .filter_map(|(id, place)| match place.at {
                At::Leased(held) if held.until <= now => Some((*id, held)),
                At::Leased(_) | At::Waiting(_) | At::Paused => None,
            })
            .collect();
        let mut news = News::new();
        for (id, held) in lost {
            if !held.started {
                self.line.set(id, At::Waiting(now));
                continue;
            }
            self.end_attempt(id, AttemptEnd::Lost, Some("the lease ran out".into()), now);
            let began = AgentEvent::status(RunStatus::Running, None);
            let said_nothing =
                self.events.get(&id).and_then(|log| log.last()).is_some_and(|last| last.event == began);
            let recorded = match self.run(id).value.lose_worker(said_nothing) {
                Some(end) => self.close(id, end, now),
                None => self.put_down(id, now, Some("the worker was lost"), now),
            };
            news.push((id, recorded));
        }
        news
    }

    pub(super) fn start(
        &mut self,
        claimant: &Claimant,
        lease: Lease,
        until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<(Claim, Vec<RunEvent>)> {
        let held = self.line.held(lease.run)?;
        let ours = held.token == lease.attempt && !held.started && held.until > now;
        let run = self.table::<AgentRun>().rows.get(&lease.run).filter(|row| row.tenant == lease.tenant)?;
        if !ours || run.stored.cancel_requested_at.is_some() || run.stored.pause_requested_at.is_some() {
            return None;
        }
        let number = run.stored.attempt_count + 1;
        let attempt = RunAttempt {
            run_id: lease.run,
            number,
            worker: claimant.worker.as_str().to_owned(),
            heartbeat_at: now,
            outcome: None,
            error: None,
            ended_at: None,
        };
        self.table().push_as(lease.attempt, lease.tenant, now, attempt);
        self.line.set(lease.run, At::Leased(Held { until, started: true, ..held }));
        let run = self.run(lease.run);
        run.value.attempt_id = Some(lease.attempt);
        run.value.attempt_count = number;
        run.value.run_at = None;
        run.value.started_at.get_or_insert(now);
        let recorded = self.signal(lease.run, RunSignal::Claim, None, now);
        let run = self.run(lease.run).clone();
        Some((Claim { lease, run, attempt_number: number, expires_at: until }, recorded))
    }

    /// Stores a run, or finds the one that has its unique key.
    pub(super) fn submit(
        &mut self,
        scope: &Scope,
        run: AgentRun,
        now: DateTime<Utc>,
    ) -> Result<(Id<AgentRun>, Vec<RunEvent>)> {
        const OPERATION: &str = "queue.submit";
        self.check(scope, OPERATION, None, &run)?;
        if let Some(live) = self.with_key(scope.tenant(), run.unique_key.as_deref()) {
            return Ok((live, Vec::new()));
        }
        let from = run.run_at.unwrap_or(now).max(now);
        let id = self.table().push(scope.tenant(), now, run).id;
        self.line.put(id, scope.tenant(), At::Waiting(from));
        let recorded = self.record_status(id, RunStatus::Queued, None, now);
        Ok((id, recorded))
    }

    /// The run of a tenant that has a unique key and has not ended.
    pub(super) fn with_key(&mut self, tenant: Id<Tenant>, key: Option<&str>) -> Option<Id<AgentRun>> {
        let key = key?;
        let mut rows = self.table::<AgentRun>().rows.values();
        let live = rows.find(|row| {
            row.tenant == tenant
                && row.stored.unique_key.as_deref() == Some(key)
                && !row.stored.status.is_final()
        });
        live.map(|row| row.stored.id)
    }
}

impl MemoryStorage {
    /// Tells followers and workers what has happened; the lock must be free.
    pub(super) fn announce(&self, news: &News) {
        for (run, events) in news {
            self.0.hub.recorded(*run, events);
            // A run that is put down or ends may be one to take, or makes room for one.
            let stirs = |event: &RunEvent| match event.event {
                AgentEvent::Status { status, .. } => match status {
                    RunStatus::Running | RunStatus::WaitingApproval => false,
                    RunStatus::Queued
                    | RunStatus::Paused
                    | RunStatus::Succeeded
                    | RunStatus::Failed
                    | RunStatus::Cancelled => true,
                },
                _ => false,
            };
            if events.iter().any(stirs) {
                self.0.hub.wake(Topic::Queue);
            }
        }
    }
}
