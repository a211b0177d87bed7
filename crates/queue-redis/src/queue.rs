use std::time::Duration;

use async_trait::async_trait;
use lime_core::ports::{Claim, Claimant, Handback, Queue, QueueDepth, Request, Settlement, Signals};
use lime_core::runs::{AgentRun, Lease, RunInput};
use lime_core::{Id, Result, Scope, Stored};
use tokio::time::sleep;

use crate::kind::Kind;
use crate::storage::RedisQueue;

/// How long one waits for a wake-up, before it is time to look in any case.
const IDLE: Duration = Duration::from_secs(2);
/// How often a worker asks again when another was quicker to take what was meant for it.
const ASK_AGAIN: usize = 3;

impl<S: Queue + ?Sized> RedisQueue<S> {
    /// Takes leases out of the line of the claimant's kind; nothing if Redis or the relays are not there.
    async fn take_from_line(
        &self,
        kind: &Kind,
        claimant: &Claimant,
        max: usize,
        lease: Duration,
    ) -> Option<Vec<Lease>> {
        let fleet = &self.fleet;
        if fleet.link.is_down() {
            fleet.desk.be_alone(true);
            return None;
        }
        let line = fleet.line(kind, &claimant.worker);
        let take = async |max| match line.take(max).await {
            Ok(leases) => Some(leases),
            Err(error) => {
                tracing::debug!(error = %error.report(), "nothing is taken from the line");
                fleet.desk.be_alone(true);
                None
            }
        };
        let mut leases = take(max).await?;
        for _ in 0..ASK_AGAIN {
            if !leases.is_empty() {
                break;
            }
            match fleet.ask(kind, max, lease).await? {
                0 => break,
                pushed => leases = take(pushed.min(max)).await?,
            }
        }
        fleet.want(kind, &claimant.worker, max - leases.len(), lease);
        Some(leases)
    }

    /// Is done with leases, in a task of its own: that they are begun or gone is written already.
    fn done_with(&self, leases: &[Lease]) {
        for line in self.fleet.lines().into_iter().filter(|line| line.holds_any(leases)) {
            let leases = leases.to_vec();
            tokio::spawn(async move {
                if let Err(error) = line.ack(&leases).await {
                    tracing::debug!(error = %error.report(), "leases are still in the line, and found begun later");
                }
            });
        }
    }
}

#[async_trait]
impl<S: Queue + ?Sized> Queue for RedisQueue<S> {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        self.inner.submit(scope, run).await
    }

    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>> {
        self.inner.submit_all(scope, runs).await
    }

    /// A lease that comes by Redis is good for [`hand_over`](crate::RedisOptions::hand_over) at most, until its
    /// attempt begins.
    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>> {
        let Some(kind) = Kind::of(&claimant.providers) else { return Ok(Vec::new()) };
        let on_the_way = lease.min(self.fleet.options.hand_over);
        // Nobody looks besides for one who looks for itself.
        self.fleet.want(&kind, &claimant.worker, 0, on_the_way);
        if max == 0 {
            return Ok(Vec::new());
        }
        match self.take_from_line(&kind, claimant, max, on_the_way).await {
            Some(leases) => Ok(leases),
            None => self.inner.take(claimant, max, lease).await,
        }
    }

    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>> {
        loop {
            let leases = self.take(claimant, max, lease).await?;
            if leases.is_empty() {
                return Ok(Vec::new());
            }
            let claims = self.start(claimant, &leases, lease).await?;
            // What was cancelled on the way to us is not all that waits.
            if !claims.is_empty() {
                return Ok(claims);
            }
        }
    }

    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>> {
        let claims = self.inner.start(claimant, leases, lease).await?;
        self.done_with(leases);
        for claim in &claims {
            self.fleet.sign(claim.lease.run);
        }
        Ok(claims)
    }

    async fn finish(&self, leases: &[Lease]) -> Result<usize> {
        let finished = self.inner.finish(leases).await?;
        self.done_with(leases);
        Ok(finished)
    }

    async fn sweep(&self) -> Result<usize> {
        self.inner.sweep().await
    }

    async fn reclaim(&self) -> Result<usize> {
        self.inner.reclaim().await
    }

    async fn queued(&self) {
        let mut waiting = self.fleet.wait();
        tokio::select! {
            () = waiting.woken(|| self.inner.queued()) => {}
            () = sleep(IDLE) => {}
        }
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        self.inner.heartbeat(lease, extend).await
    }

    async fn signalled(&self, lease: &Lease) {
        self.inner.signalled(lease).await;
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        let run = self.inner.settle(lease, settlement).await?;
        self.fleet.sign(lease.run);
        Ok(run)
    }

    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>> {
        let run = self.inner.hand_back(lease, handback).await?;
        self.fleet.sign(lease.run);
        Ok(run)
    }

    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>> {
        let stored = self.inner.request(scope, run, request).await?;
        self.fleet.sign(run);
        Ok(stored)
    }

    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>> {
        self.inner.say(scope, run, text).await
    }

    async fn depth(&self) -> Result<QueueDepth> {
        self.inner.depth().await
    }
}
