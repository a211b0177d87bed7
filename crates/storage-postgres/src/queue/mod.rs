//! The line of runs that wait for workers, and those that workers have: a run that has not ended has one narrow row,
//! its place, in `run_queue` while it waits and in `run_leases` while a worker has it.

mod beat;
mod dust;
mod end;
mod held;
mod places;
mod request;
mod say;
mod start;
mod submit;
mod take;

use std::fmt;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::ports::{Claim, Claimant, Handback, Queue, QueueDepth, Request, Settlement, Signals};
use lime_core::runs::{AgentRun, Lease, RunInput};
use lime_core::{Id, LiveHub, Result, Scope, Stored, Topic};
use sea_orm::Value;

use self::dust::Dust;
use self::end::Ending;
use crate::PgStorage;
use crate::batch::Batcher;
use crate::storage::Base;

/// A length of time in milliseconds; what does not fit is as good as for ever: a year.
fn millis(length: Duration) -> i64 {
    const YEAR_MS: i64 = 365 * 24 * 60 * 60 * 1000;
    i64::try_from(length.as_millis()).map_or(YEAR_MS, |ms| ms.min(YEAR_MS))
}

/// Leases as the arrays that `UNNEST` takes apart again: tenants, runs, tokens.
///
/// - Statements have the first of their arrays behind a `SELECT`, so that the planner cannot see how long it is: it
///   then makes one plan for all lengths and keeps it, instead of a new one with each call.
fn arrays<'a>(leases: impl Iterator<Item = &'a Lease>) -> [Value; 3] {
    let leases: Vec<_> = leases.collect();
    let column = |of: fn(&Lease) -> i64| leases.iter().copied().map(of).collect::<Vec<i64>>().into();
    [column(|lease| lease.tenant.raw()), column(|lease| lease.run.raw()), column(|lease| lease.attempt.raw())]
}

/// Where the calls of many callers become one statement and one flush to disk.
pub(crate) struct Lines {
    submits: Batcher<submit::Draft, Stored<AgentRun>>,
    starts: Batcher<start::Start, Vec<Claim>>,
    finishes: Batcher<Vec<Lease>, usize>,
    beats: Batcher<beat::Beat, Signals>,
    endings: Batcher<Ending, Stored<AgentRun>>,
    /// The tenant that the last run was taken of.
    last_tenant: AtomicI64,
    dust: Dust,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl Lines {
    pub(crate) fn new(base: &Base) -> Self {
        Self {
            submits: submit::batcher(base),
            starts: start::batcher(base),
            finishes: places::finisher(base),
            beats: beat::batcher(base),
            endings: end::batcher(base),
            last_tenant: AtomicI64::new(0),
            dust: Dust::default(),
        }
    }
}

#[async_trait]
impl Queue for PgStorage {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        submit::one(self, scope, run).await
    }

    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>> {
        submit::all(self, scope, runs).await
    }

    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>> {
        take::take(self, claimant, max, lease).await
    }

    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let worker = claimant.worker.clone();
        self.queue().starts.call(start::Start { worker, leases: leases.to_vec(), lease }).await
    }

    async fn finish(&self, leases: &[Lease]) -> Result<usize> {
        if leases.is_empty() { Ok(0) } else { self.queue().finishes.call(leases.to_vec()).await }
    }

    async fn sweep(&self) -> Result<usize> {
        places::sweep(self).await
    }

    async fn reclaim(&self) -> Result<usize> {
        take::reclaim(self).await
    }

    async fn queued(&self) {
        self.listen();
        LiveHub::follow(self.clone(), Topic::Queue).changed().await;
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        self.queue().beats.call(beat::Beat { lease: *lease, extend }).await
    }

    async fn signalled(&self, lease: &Lease) {
        self.listen();
        LiveHub::follow(self.clone(), Topic::Signals(lease.run)).changed().await;
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        self.queue().endings.call(Ending::Settled(*lease, Box::new(settlement))).await
    }

    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>> {
        self.queue().endings.call(Ending::HandedBack(*lease, Box::new(handback))).await
    }

    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>> {
        request::request(self, scope, run, request).await
    }

    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>> {
        say::say(self, scope, run, text).await
    }

    async fn depth(&self) -> Result<QueueDepth> {
        places::depth(self).await
    }
}
