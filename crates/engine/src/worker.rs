use std::sync::{Arc, PoisonError};
use std::time::Duration;

use lime_core::ports::{Claim, Claimant};
use lime_core::{Error, ErrorKind, Result};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::Factory;
use crate::attempt::Attempt;
use crate::config::WorkerConfig;
use crate::heartbeat::{Stop, StopWish};

/// Leases runs and works them, until it is told to stop.
#[derive(Debug)]
pub struct Worker {
    factory: Factory,
    config: Arc<WorkerConfig>,
    claimant: Claimant,
}

/// A worker at work in a task of its own.
///
/// - Dropping it lets the worker go on; [`stop`](RunningWorker::stop) ends it.
#[derive(Debug)]
pub struct RunningWorker {
    task: JoinHandle<()>,
    drain: CancellationToken,
    hand_back: CancellationToken,
}

impl RunningWorker {
    /// Stops the worker: it claims nothing more, lets its runs end for as long as `grace`, and hands back the rest.
    ///
    /// - When it returns, no agent of this worker is left.
    pub async fn stop(self, grace: Duration) -> Result<()> {
        self.drain.cancel();
        let mut task = self.task;
        let ended = match tokio::time::timeout(grace, &mut task).await {
            Ok(ended) => ended,
            Err(_) => {
                self.hand_back.cancel();
                task.await
            }
        };
        ended.map_err(|error| {
            Error::new(ErrorKind::Unexpected, "worker.stop", "the worker ended badly").because(error)
        })
    }
}

impl Worker {
    /// A worker of this factory; it takes runs of the factory's providers only.
    ///
    /// - Fails with `Invalid` if the factory was given no workspaces or no provider, or the configuration contradicts itself.
    pub fn new(factory: &Factory, config: WorkerConfig) -> Result<Self> {
        const OPERATION: &str = "worker.new";
        if factory.parts.workspaces.is_none() {
            return Err(Error::invalid(OPERATION, "a worker needs a factory with workspaces"));
        }
        if factory.parts.providers.is_empty() {
            return Err(Error::invalid(
                OPERATION,
                "a worker needs a factory with a provider, or it finds no work",
            ));
        }
        if config.concurrency == 0 {
            return Err(Error::invalid(OPERATION, "the concurrency must be 1 or more"));
        }
        if config.heartbeat.is_zero() || config.heartbeat > config.lease / 3 {
            return Err(Error::invalid(
                OPERATION,
                "the heartbeat must be above 0 and at most a third of the lease",
            ));
        }
        let providers = factory.parts.providers.keys().cloned().collect();
        let claimant = Claimant { worker: config.name.clone(), providers };
        Ok(Self { factory: factory.clone(), config: Arc::new(config), claimant })
    }

    /// Starts to work in a task of its own.
    #[must_use]
    pub fn spawn(self) -> RunningWorker {
        let (drain, hand_back) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(self.run(drain.clone(), hand_back.clone()));
        RunningWorker { task, drain, hand_back }
    }

    /// Works until it is told to stop and its runs have ended.
    ///
    /// - After `drain` it claims nothing more; after `hand_back` it gives back what it has.
    pub async fn run(self, drain: CancellationToken, hand_back: CancellationToken) {
        let span = tracing::info_span!("worker", name = self.config.name.as_str());
        self.work(drain, hand_back).instrument(span).await;
    }

    async fn work(self, drain: CancellationToken, hand_back: CancellationToken) {
        let mut attempts = JoinSet::new();
        while !drain.is_cancelled() && !hand_back.is_cancelled() {
            let parts = self.factory.parts.clone();
            let submitted = parts.submitted.notified();
            tokio::pin!(submitted);
            // Listens before it looks, so that nothing is submitted unheard in between.
            submitted.as_mut().enable();
            let room = self.config.concurrency - attempts.len();
            let claims = if room == 0 { Vec::new() } else { self.claim(room).await };
            if !claims.is_empty() {
                for claim in claims {
                    attempts.spawn(self.attempt(claim, hand_back.clone()));
                }
                continue;
            }
            tokio::select! {
                () = drain.cancelled() => {}
                () = hand_back.cancelled() => {}
                () = &mut submitted, if room > 0 => {}
                () = tokio::time::sleep(self.config.poll), if room > 0 => {}
                Some(_) = attempts.join_next() => {}
            }
            while attempts.try_join_next().is_some() {}
        }
        while attempts.join_next().await.is_some() {}
    }

    async fn claim(&self, max: usize) -> Vec<Claim> {
        match self.factory.storage().claim(&self.claimant, max, self.config.lease).await {
            Ok(claims) => claims,
            Err(error) => {
                tracing::warn!(error = %error.report(), "no claim");
                Vec::new()
            }
        }
    }

    /// Works a run in a task of its own, so that a panic in it is the run's failure and not the worker's end.
    fn attempt(&self, claim: Claim, hand_back: CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let (parts, config) = (self.factory.parts.clone(), self.config.clone());
        let span = tracing::info_span!(
            "attempt", tenant = %claim.lease.tenant, run = %claim.lease.run, attempt = %claim.lease.attempt
        );
        async move {
            let (run, lease) = (claim.lease.run, claim.lease);
            let cancelled = CancellationToken::new();
            parts.working.lock().unwrap_or_else(PoisonError::into_inner).insert(run, cancelled.clone());
            let wish = StopWish::new();
            let work = Attempt::new(parts.clone(), config, claim, cancelled, wish.clone()).work();
            let mut work = tokio::spawn(work.instrument(tracing::Span::current()));
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = hand_back.cancelled() => {
                    wish.ask(Stop::HandBack);
                    work.await
                }
            };
            if let Err(error) = ended {
                Attempt::settle_panic(&parts, lease, &error).await;
            }
            parts.working.lock().unwrap_or_else(PoisonError::into_inner).remove(&run);
        }
        .instrument(span)
    }
}
