use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use lime_core::ports::{Claim, Claimant, Handback, Storage};
use lime_core::runs::{Lease, RunAttempt};
use lime_core::{Error, ErrorKind, Lookup, Result, Retry, Scope, Stored};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::Factory;
use crate::asked::{Asked, Stop};
use crate::attempt::Attempt;
use crate::config::WorkerConfig;
use crate::patience::{Backoff, persist};
use crate::shelf::Shelf;

/// The longest that a worker leaves a storage alone that fails.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// When a worker looks again that does not listen.
const UNHEARD: Duration = Duration::from_millis(50);
/// How long a worker whose runs end one after another waits, so as to claim for several of them at once.
const GATHER: Duration = Duration::from_millis(20);
/// Of how many runs one has to have ended before it claims without such a wait.
const GATHER_OF: usize = 4;

/// Leases runs and works them, until it is told to stop.
#[derive(Debug)]
pub struct Worker {
    factory: Factory,
    config: Arc<WorkerConfig>,
    claimant: Claimant,
    /// Held by the one run at a time whose worker was lost before.
    suspects: Arc<Mutex<()>>,
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

/// What a call of the storage gives, if it does so in time.
async fn in_time<T>(length: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(length, call).await.unwrap_or_else(|_| {
        let message = "the storage has not answered for a lease";
        Err(Error::new(ErrorKind::Timeout, "worker.claim", message).retry(Retry::After(None)))
    })
}

/// Gives a run back that was not worked, if it is ours.
async fn give_back(storage: &dyn Storage, lease: &Lease) {
    match persist(|| storage.hand_back(lease, Handback::released())).await {
        Err(error) if error.kind() != ErrorKind::StaleLease => {
            tracing::warn!(run = %lease.run, %error, "a run could not be handed back; its lease will run out");
        }
        Ok(_) | Err(_) => {}
    }
}

/// What a panic said.
fn words(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(said) => *said,
        Err(panic) => panic.downcast_ref::<&str>().copied().unwrap_or("nothing that can be shown").to_owned(),
    }
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
        config.check(OPERATION)?;
        let providers = factory.parts.providers.keys().cloned().collect();
        let claimant = Claimant { worker: config.name.clone(), providers };
        Ok(Self { factory: factory.clone(), config: Arc::new(config), claimant, suspects: Arc::default() })
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
        let work = async {
            tokio::select! {
                () = self.work(&drain, &hand_back) => {}
                () = self.sweep() => {}
                () = self.reclaim() => {}
            }
        };
        work.instrument(span).await;
    }

    async fn work(&self, drain: &CancellationToken, hand_back: &CancellationToken) {
        let mut attempts = JoinSet::new();
        let mut trouble = self.trouble();
        while !drain.is_cancelled() && !hand_back.is_cancelled() {
            while attempts.try_join_next().is_some() {}
            let room = self.config.concurrency.saturating_sub(attempts.len());
            if room < self.enough() && !attempts.is_empty() {
                self.gather(&mut attempts, room, drain, hand_back).await;
                if drain.is_cancelled() || hand_back.is_cancelled() {
                    break;
                }
            }
            let room = self.config.concurrency.saturating_sub(attempts.len());
            // Listens before it looks, so that nothing is queued unheard in between.
            let mut queued = self.factory.storage().queued();
            let heard = (&mut queued).now_or_never().is_some();
            let (found, rest) = match self.claim(room, drain).await {
                Ok(claims) => {
                    trouble = self.trouble();
                    let found = claims.len();
                    self.begin(claims, &mut attempts, drain, hand_back).await;
                    (found, None)
                }
                Err(error) => {
                    tracing::warn!(error = %error.report(), "no claim");
                    (0, Some(trouble.pause()))
                }
            };
            if found == room {
                continue;
            }
            // What was heard already came before the look, but now nobody listens.
            let poll = if heard { self.config.poll.min(UNHEARD) } else { self.config.poll };
            let resting = sleep(rest.unwrap_or(poll));
            tokio::select! {
                () = drain.cancelled() => {}
                () = hand_back.cancelled() => {}
                () = resting => {}
                () = &mut queued, if rest.is_none() && !heard => {}
                Some(_) = attempts.join_next(), if rest.is_none() => {}
            }
        }
        while attempts.join_next().await.is_some() {}
    }

    fn trouble(&self) -> Backoff {
        Backoff::new(self.config.poll, LONGEST_REST)
    }

    /// How many runs a claim is worth at once, when most of what it may work is at work.
    fn enough(&self) -> usize {
        (self.config.concurrency / GATHER_OF).max(1)
    }

    /// Waits for runs to end, the first for as long as it takes, more of them for a moment.
    async fn gather(
        &self,
        attempts: &mut JoinSet<()>,
        mut room: usize,
        drain: &CancellationToken,
        hand_back: &CancellationToken,
    ) {
        let mut until = (room > 0).then(|| Instant::now() + GATHER);
        while room < self.enough() {
            let moment = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = drain.cancelled() => return,
                () = hand_back.cancelled() => return,
                () = moment => return,
                ended = attempts.join_next() => {
                    if ended.is_none() {
                        return;
                    }
                    room += 1;
                    until.get_or_insert_with(|| Instant::now() + GATHER);
                }
            }
        }
    }

    /// Takes runs and begins their attempts.
    ///
    /// - What was taken is not let go while the storage is away for a moment. An attempt that was begun without
    ///   anybody learning of it is handed back: it is not a crash.
    /// - Waits for a call of the storage for a lease at most; then nothing that it could give would hold.
    async fn claim(&self, max: usize, drain: &CancellationToken) -> Result<Vec<Claim>> {
        let (storage, lease) = (self.factory.storage(), self.config.lease);
        let leases = in_time(lease, storage.take(&self.claimant, max, lease)).await?;
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let (until, mut backoff, mut tried) = (Instant::now() + lease, Backoff::of_storage(), false);
        let claims = loop {
            let left = until.saturating_duration_since(Instant::now());
            match in_time(left, storage.start(&self.claimant, &leases, lease)).await {
                Err(error) if error.is_retryable() && Instant::now() < until && !drain.is_cancelled() => {
                    tracing::warn!(%error, "the storage does not answer; trying again");
                    tried = true;
                    sleep(backoff.pause()).await;
                }
                claims => break claims?,
            }
        };
        if tried {
            let lost = leases.iter().filter(|lease| !claims.iter().any(|claim| claim.lease == **lease));
            for lease in lost {
                // A fleet's line may have handed it out once more meanwhile, and then another worker has begun it.
                if self.is_ours(lease).await {
                    give_back(storage, lease).await;
                }
            }
        }
        Ok(claims)
    }

    /// Whether the attempt of a lease was begun in this worker's name.
    async fn is_ours(&self, lease: &Lease) -> bool {
        let (storage, scope) = (self.factory.storage(), Scope::system(lease.tenant, "giving a run back"));
        let attempt: Result<Stored<RunAttempt>> =
            persist(|| Lookup::get(storage, &scope, lease.attempt)).await;
        match attempt {
            Ok(attempt) => attempt.worker == self.claimant.worker.as_str(),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(run = %lease.run, %error, "a run may be begun; its lease will run out");
                }
                false
            }
        }
    }

    /// Begins to work what was claimed; once the worker is to stop, gives it back as it is.
    async fn begin(
        &self,
        claims: Vec<Claim>,
        attempts: &mut JoinSet<()>,
        drain: &CancellationToken,
        hand_back: &CancellationToken,
    ) {
        let shelf = Arc::new(Shelf::new(self.factory.parts.clone(), &claims));
        for claim in claims {
            if drain.is_cancelled() || hand_back.is_cancelled() {
                give_back(self.factory.storage(), &claim.lease).await;
            } else {
                attempts.spawn(self.attempt(claim, shelf.clone(), drain.clone(), hand_back.clone()));
            }
        }
    }

    /// Works a run, so that a panic in it is the run's failure and not the worker's end.
    fn attempt(
        &self,
        claim: Claim,
        shelf: Arc<Shelf>,
        drain: CancellationToken,
        hand_back: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (parts, config) = (self.factory.parts.clone(), self.config.clone());
        let suspects = self.suspects.clone();
        let span = tracing::info_span!(
            "attempt", tenant = %claim.lease.tenant, run = %claim.lease.run, attempt = %claim.lease.attempt
        );
        async move {
            let (lease, asked) = (claim.lease, Asked::new());
            let attempt = Attempt::new(parts.clone(), config, shelf, claim, drain, asked.clone(), suspects);
            let mut work = std::pin::pin!(AssertUnwindSafe(attempt.work()).catch_unwind());
            let ended = tokio::select! {
                ended = &mut work => ended,
                () = hand_back.cancelled() => {
                    asked.ask(Stop::HandBack);
                    work.await
                }
            };
            if let Err(panic) = ended {
                Attempt::settle_panic(&parts, lease, &words(panic)).await;
            }
        }
        .instrument(span)
    }

    /// Takes back what lost workers hold, twice in the time of a lease: also while this one has no room to take runs.
    async fn reclaim(&self) {
        loop {
            sleep(self.config.lease.mul_f64((0.5 + fastrand::f64()) / 3.0)).await;
            match self.factory.storage().reclaim().await {
                Ok(0) => {}
                Ok(found) => tracing::warn!(found, "runs of lost workers are back in the line"),
                Err(error) => tracing::warn!(%error, "nothing was taken back from lost workers"),
            }
        }
    }

    /// Looks after runs that have fallen out of the line, from time to time and not together with other workers.
    async fn sweep(&self) {
        loop {
            sleep(self.config.sweep.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            match self.factory.storage().sweep().await {
                Ok(0) => {}
                Ok(found) => tracing::warn!(found, "runs had fallen out of the line, and are back in it"),
                Err(error) => tracing::warn!(%error, "the line was not swept"),
            }
        }
    }
}
