use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;

use super::MemoryStorage;
use super::life::{News, after};
use super::line::{At, Held};
use crate::live::Topic;
use crate::ports::{
    Claim, Claimant, Handback, HandbackReason, Queue, QueueDepth, Request, Settlement, Signals,
};
use crate::runs::{AgentRun, AttemptEnd, Lease, RunAttempt, RunInput, RunStatus};
use crate::{Error, ErrorKind, Id, LiveHub, Result, Scope, Stored};

/// The longest that a provider's word on when to come back is taken at.
const LONGEST_WORD: TimeDelta = TimeDelta::days(1);

#[async_trait]
impl Queue for MemoryStorage {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        let mut stored = self.submit_all(scope, vec![run]).await?;
        Ok(stored.pop().expect("there is an answer for each run"))
    }

    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>> {
        const OPERATION: &str = "queue.submit";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.check_open(OPERATION, scope.tenant())?;
        let runs: Vec<_> = runs.into_iter().map(|run| run.queued(scope)).collect();
        for run in &runs {
            state.check(scope, OPERATION, None, run)?;
        }
        let news = runs.into_iter().map(|run| state.submit(scope, run, now)).collect::<Result<News>>()?;
        let stored = news.iter().map(|(id, _)| state.run(*id).clone()).collect();
        drop(state);
        self.announce(&news);
        Ok(stored)
    }

    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>> {
        let now = self.now();
        let mut state = self.lock();
        let news = state.rescue(now);
        let until = after(now, lease);
        let next = state.next_in_line(&claimant.providers, max, now);
        let mut leases = Vec::with_capacity(next.len());
        for run in next {
            let token = state.table::<RunAttempt>().reserve();
            let tenant = state.line.0[&run].tenant;
            state.line.set(run, At::Leased(Held { token, until, started: false }));
            leases.push(Lease { tenant, run, attempt: token });
        }
        drop(state);
        self.announce(&news);
        Ok(leases)
    }

    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>> {
        let now = self.now();
        let until = after(now, lease);
        let mut state = self.lock();
        let started = leases.iter().filter_map(|lease| state.start(claimant, *lease, until, now));
        let (claims, news): (Vec<_>, News) =
            started.map(|(claim, recorded)| (claim.clone(), (claim.lease.run, recorded))).unzip();
        drop(state);
        self.announce(&news);
        Ok(claims)
    }

    async fn finish(&self, leases: &[Lease]) -> Result<usize> {
        let mut state = self.lock();
        let mut finished = 0;
        for lease in leases {
            let held = state.line.held(lease.run);
            if held.is_some_and(|held| held.token == lease.attempt && !held.started) {
                state.line.0.remove(&lease.run);
                finished += 1;
            }
        }
        Ok(finished)
    }

    async fn sweep(&self) -> Result<usize> {
        let now = self.now();
        let mut state = self.lock();
        let queued: Vec<_> = state
            .table::<AgentRun>()
            .rows
            .values()
            .filter(|row| row.stored.status == RunStatus::Queued)
            .map(|row| (row.stored.id, row.tenant, row.stored.run_at.unwrap_or(now).max(now)))
            .collect();
        let lost: Vec<_> = queued.into_iter().filter(|(run, ..)| !state.line.0.contains_key(run)).collect();
        for (run, tenant, from) in &lost {
            state.line.put(*run, *tenant, At::Waiting(*from));
        }
        drop(state);
        self.0.hub.wake(Topic::Queue);
        Ok(lost.len())
    }

    async fn reclaim(&self) -> Result<usize> {
        let now = self.now();
        let news = self.lock().rescue(now);
        self.announce(&news);
        Ok(news.len())
    }

    async fn queued(&self) {
        LiveHub::follow(self.clone(), Topic::Queue).changed().await;
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        let now = self.now();
        let mut state = self.lock();
        let run = state.leased(lease, "queue.heartbeat", now)?;
        let (cancel, pause) = (run.cancel_requested_at.is_some(), run.pause_requested_at.is_some());
        let held = Held { token: lease.attempt, until: after(now, extend), started: true };
        state.line.set(lease.run, At::Leased(held));
        let inputs =
            state.table::<RunInput>().rows.values().filter(|row| row.stored.run_id == lease.run).count();
        let inputs = i32::try_from(inputs).unwrap_or(i32::MAX);
        if let Some(attempt) = state.table::<RunAttempt>().rows.get_mut(&lease.attempt) {
            attempt.stored.value.heartbeat_at = now;
        }
        Ok(Signals { cancel, pause, inputs })
    }

    async fn signalled(&self, lease: &Lease) {
        LiveHub::follow(self.clone(), Topic::Signals(lease.run)).changed().await;
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        let now = self.now();
        let mut state = self.lock();
        state.leased(lease, "queue.settle", now)?;
        state.end_attempt(lease.run, settlement.outcome.attempt_end(), None, now);
        let recorded = state.close(lease.run, settlement, now);
        let run = state.run(lease.run).clone();
        drop(state);
        self.announce(&vec![(lease.run, recorded)]);
        Ok(run)
    }

    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>> {
        let now = self.now();
        let mut state = self.lock();
        let run = state.leased(lease, "queue.hand_back", now)?;
        run.value.add(handback.usage, &handback.tool_calls);
        let (from, end, error) = match handback.why {
            HandbackReason::Released => (now, AttemptEnd::Released, None),
            HandbackReason::Retry { failure, pause } => {
                run.value.failure_count += 1;
                let word = failure.retry_at.unwrap_or(now).min(now + LONGEST_WORD);
                let from = after(now, pause).max(word);
                run.value.run_at = Some(from);
                (from, AttemptEnd::Failed, Some(failure.message))
            }
        };
        let detail = error.as_ref().map(|error| format!("tried again later: {error}"));
        let mut recorded = state.record(lease.run, handback.events, now);
        state.end_attempt(lease.run, end, error, now);
        recorded.extend(state.put_down(lease.run, from, detail.as_deref(), now));
        let run = state.run(lease.run).clone();
        drop(state);
        self.announce(&vec![(lease.run, recorded)]);
        Ok(run)
    }

    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>> {
        let now = self.now();
        const OPERATION: &str = "queue.request";
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.row(scope, OPERATION, run)?;
        let recorded = state.request(run, request, now)?;
        let stored = state.run(run).clone();
        drop(state);
        self.announce(&vec![(run, recorded)]);
        self.0.hub.wake(Topic::Signals(run));
        Ok(stored)
    }

    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>> {
        const OPERATION: &str = "queue.say";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        let status = state.row(scope, OPERATION, run)?.stored.status;
        let user_id = scope.user();
        let input = RunInput { run_id: run, user_id, text, attempt_id: None, delivered_at: None };
        state.check(scope, OPERATION, None, &input)?;
        if status.is_final() {
            let message = format!("the run is {status} and hears nothing; follow it up with another run");
            return Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("run", run));
        }
        let stored = state.table().push(scope.tenant(), now, input);
        drop(state);
        self.0.hub.wake(Topic::Signals(run));
        Ok(stored)
    }

    async fn depth(&self) -> Result<QueueDepth> {
        let now = self.now();
        let state = self.lock();
        Ok(state.line.depth(now, |tenant| state.is_deleted(tenant)))
    }
}
