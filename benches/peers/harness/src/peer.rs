//! What is measured of every peer, and how: the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{Barrier, Notify, mpsc};

use crate::Outcome;

/// Jobs in one call, where they are enqueued in batches.
pub(crate) const BATCH: usize = 500;
/// After this long a drain is stopped, and what was done until then counts.
pub(crate) const DRAIN_LIMIT: Duration = Duration::from_secs(20);
/// How long the system is left idle before the next job is enqueued.
pub(crate) const IDLE: Duration = Duration::from_millis(25);
/// How many single jobs are picked up first that don't count: they pay for connections and plans.
pub(crate) const WARM: u64 = 5;
/// How long one job may take to be picked up before the measurement fails.
const PICKUP_LIMIT: Duration = Duration::from_secs(10);
/// How long a worker may take to stop before it is aborted.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(3);

/// A job queue beside ours, set up at its best.
///
/// - Each measurement starts on an empty queue, with connections that are open.
/// - `None` is the answer of a peer that has no such thing.
#[async_trait]
pub(crate) trait Peer: Send + Sync {
    /// As tables and `--only` call it.
    fn name(&self) -> &'static str;

    /// How it is set up, for the reader of the tables.
    fn setup(&self) -> String;

    /// Jobs a second that are durably enqueued, one at a time by each producer, for a while.
    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>>;

    /// Jobs a second that are durably enqueued by one producer in calls of [`BATCH`], for a while.
    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>>;

    /// Jobs a second from the start of a worker until the last of the jobs is durably acknowledged.
    ///
    /// - At most `concurrency` handlers run at a time; they do nothing.
    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>>;

    /// How long each of some single jobs took on an idle system, from the call that enqueues it until its handler runs.
    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>>;
}

/// Lets producers enqueue until the time is up, each waiting for one call before the next; gives calls a second.
///
/// - Each makes one call that does not count first, so that its connection is open and its statement prepared.
pub(crate) async fn producing<F, Fut>(producers: usize, span: Duration, enqueue: F) -> Outcome<f64>
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Outcome<()>> + Send,
{
    let ready = Arc::new(Barrier::new(producers));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..producers {
        let (ready, enqueue) = (ready.clone(), enqueue.clone());
        running.spawn(async move {
            let warm = enqueue(0).await;
            ready.wait().await;
            warm?;
            let began = Instant::now();
            let mut calls = 0_u64;
            while began.elapsed() < span {
                calls += 1;
                enqueue(calls).await?;
            }
            Outcome::Ok((calls, began.elapsed()))
        });
    }
    let (mut calls, mut longest) = (0, Duration::ZERO);
    while let Some(done) = running.join_next().await {
        let (of_one, took) = done??;
        calls += of_one;
        longest = longest.max(took);
    }
    Ok(rate(calls, longest))
}

/// Counts what handlers have done, and wakes who waits for all of it.
#[derive(Debug, Clone)]
pub(crate) struct Handled(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    goal: u64,
    handled: AtomicU64,
    reached: Notify,
}

impl Handled {
    pub(crate) fn until(goal: u64) -> Self {
        Self(Arc::new(Counts { goal, handled: AtomicU64::new(0), reached: Notify::new() }))
    }

    /// One more.
    pub(crate) fn one(&self) {
        self.many(1);
    }

    /// So many more.
    pub(crate) fn many(&self, more: u64) {
        let before = self.0.handled.fetch_add(more, Ordering::Relaxed);
        if before < self.0.goal && before + more >= self.0.goal {
            self.0.reached.notify_one();
        }
    }

    /// Waits until all is handled or the limit of a drain is over; then until nothing is `left` to acknowledge, and
    /// gives jobs a second.
    pub(crate) async fn drained<Fut>(&self, began: Instant, left: impl Fn() -> Fut) -> Outcome<f64>
    where
        Fut: Future<Output = Outcome<u64>>,
    {
        let limit = tokio::time::Instant::from_std(began + DRAIN_LIMIT);
        let _ = tokio::time::timeout_at(limit, self.0.reached.notified()).await;
        loop {
            let (left, took) = (left().await?, began.elapsed());
            if left == 0 || took >= DRAIN_LIMIT {
                return Ok(rate(self.0.goal.saturating_sub(left), took));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Enqueues single jobs on an idle system; `runs` says when each one's handler ran.
pub(crate) async fn picking_up<Fut>(
    samples: u32,
    runs: &mut mpsc::UnboundedReceiver<Instant>,
    mut enqueue: impl FnMut(u64) -> Fut,
) -> Outcome<Vec<Duration>>
where
    Fut: Future<Output = Outcome<()>>,
{
    let mut took = Vec::new();
    for job in 0..WARM + u64::from(samples) {
        tokio::time::sleep(IDLE).await;
        let began = Instant::now();
        enqueue(job).await?;
        let ran = tokio::time::timeout(PICKUP_LIMIT, runs.recv()).await;
        let ran = ran.map_err(|_| "a job was not picked up within 10 s")?.ok_or("the worker has ended")?;
        if job >= WARM {
            took.push(ran.saturating_duration_since(began));
        }
    }
    Ok(took)
}

/// So many in a time, a second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = count as f64;
    count / took.as_secs_f64().max(1e-9)
}
