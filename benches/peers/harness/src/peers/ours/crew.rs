//! Handlers with a line of their own before them: runs are taken out of the queue many at a time, worked one at a time
//! by each handler, and acknowledged many at a time while the next ones are worked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use lime_core::ports::{Claimant, Queue, Settlement};
use lime_core::runs::{Lease, Outcome as Ending};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::site::LEASE;
use crate::Outcome;
use crate::peer::Handled;

/// How many runs are taken at a time at most.
const TAKES: usize = 1_000;
/// More are taken while fewer than these are at work: as many again as the projects may have at once.
const FEW: usize = 1_001;
/// Acknowledgements under way at once.
const ACKNOWLEDGERS: usize = 2;
/// An idle crew looks at the queue so often, told or not.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a handler does: counts, or says when it ran.
#[derive(Debug, Clone)]
pub(crate) enum Tell {
    Count(Handled),
    When(mpsc::UnboundedSender<Instant>),
}

/// What is done with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Its place in the queue is taken and given up, which is what other queues do with a job.
    Place,
    /// It is begun as an attempt and ended: its row, its attempt and its log are written too.
    Run,
}

/// What a crew shares.
struct Shared<Q: ?Sized> {
    depth: Depth,
    claimant: Claimant,
    queue: Arc<Q>,
    tell: Tell,
    waiting: Line,
    done: Line,
    /// How many are taken and not yet acknowledged.
    at_work: AtomicUsize,
    /// As many permits as runs wait.
    work: Semaphore,
    /// There is room for more.
    room: Notify,
    /// Something can be acknowledged.
    handled: Notify,
}

#[derive(Default)]
struct Line(Mutex<VecDeque<Lease>>);

impl Line {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to work; the crew ends when this is dropped, or with its first error.
pub(crate) fn work<Q: Queue + ?Sized + 'static>(
    queue: Arc<Q>,
    claimant: Claimant,
    concurrency: usize,
    depth: Depth,
    tell: Tell,
) -> JoinSet<Outcome<()>> {
    let shared = Arc::new(Shared {
        depth,
        claimant,
        queue,
        tell,
        waiting: Line::default(),
        done: Line::default(),
        at_work: AtomicUsize::new(0),
        work: Semaphore::new(0),
        room: Notify::new(),
        handled: Notify::new(),
    });
    let mut crew = JoinSet::new();
    crew.spawn(fetch(shared.clone()));
    for _ in 0..concurrency {
        crew.spawn(handle(shared.clone()));
    }
    for _ in 0..ACKNOWLEDGERS {
        crew.spawn(acknowledge(shared.clone()));
    }
    crew
}

async fn fetch<Q: Queue + ?Sized>(shared: Arc<Shared<Q>>) -> Outcome<()> {
    loop {
        if shared.at_work.load(Ordering::Relaxed) >= FEW {
            shared.room.notified().await;
            continue;
        }
        // Listens before it looks, so that nothing is queued unheard in between.
        let mut queued = shared.queue.queued();
        let is_rung = futures_util::poll!(&mut queued).is_ready();
        let leases = match shared.depth {
            Depth::Place => shared.queue.take(&shared.claimant, TAKES, LEASE).await?,
            Depth::Run => {
                let claims = shared.queue.claim(&shared.claimant, TAKES, LEASE).await?;
                claims.into_iter().map(|claim| claim.lease).collect()
            }
        };
        if leases.is_empty() && !is_rung {
            // Told or not, and not before a place is free again that was at its limit.
            tokio::select! {
                () = queued => {}
                () = shared.room.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            continue;
        }
        let count = leases.len();
        shared.at_work.fetch_add(count, Ordering::Relaxed);
        shared.waiting.lock().extend(leases);
        shared.work.add_permits(count);
    }
}

async fn handle<Q: Queue + ?Sized>(shared: Arc<Shared<Q>>) -> Outcome<()> {
    loop {
        shared.work.acquire().await?.forget();
        let lease = shared.waiting.lock().pop_front();
        let Some(lease) = lease else { continue };
        match &shared.tell {
            Tell::Count(handled) => handled.one(),
            // Nobody listens once the last sample is taken.
            Tell::When(runs) => drop(runs.send(Instant::now())),
        }
        shared.done.lock().push_back(lease);
        shared.handled.notify_one();
    }
}

async fn acknowledge<Q: Queue + ?Sized>(shared: Arc<Shared<Q>>) -> Outcome<()> {
    loop {
        let done: Vec<Lease> = shared.done.lock().drain(..).collect();
        if done.is_empty() {
            shared.handled.notified().await;
            continue;
        }
        match shared.depth {
            Depth::Place => {
                shared.queue.finish(&done).await?;
            }
            Depth::Run => {
                let well = || Settlement::new(Ending::Succeeded { summary: None });
                try_join_all(done.iter().map(|lease| shared.queue.settle(lease, well()))).await?;
            }
        }
        shared.at_work.fetch_sub(done.len(), Ordering::Relaxed);
        shared.room.notify_one();
    }
}
