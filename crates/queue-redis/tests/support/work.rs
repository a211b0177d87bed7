//! Runs to work, and workers that work them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use lime_conformance::scene::{LONG, Scene, settlement, succeeded, worker};
use lime_core::memory::MemoryStorage;
use lime_core::ports::{Claim, Claimant, Queue, WorkerName};
use lime_core::runs::{AgentRun, RunStatus};
use lime_core::{Id, Lookup, Query};
use lime_queue_redis::RedisQueue;
use tokio::task::JoinHandle;

use super::eventually;

pub type Memory = RedisQueue<MemoryStorage>;

/// The line of the workers that have both providers.
pub const LINE: &str = "line:my-own_2+replay";

pub fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::default())
}

pub async fn scene(storage: &Arc<MemoryStorage>) -> Scene {
    Scene::new(&(storage.clone() as _)).await
}

pub async fn submit(queue: &Memory, scene: &Scene, count: usize) -> HashSet<Id<AgentRun>> {
    let runs = (0..count).map(|_| scene.a_run()).collect();
    queue.submit_all(&scene.scope, runs).await.unwrap().into_iter().map(|run| run.id).collect()
}

pub fn named(name: &str) -> Claimant {
    Claimant { worker: WorkerName::parse(name).unwrap(), ..worker() }
}

/// A worker that takes up to `room` runs at once and works each for a moment, until it is aborted.
pub fn work(queue: &Memory, name: &str, room: usize) -> JoinHandle<()> {
    let (queue, claimant) = (queue.clone(), named(name));
    tokio::spawn(async move {
        loop {
            // Listens before it looks, so that nothing is queued unheard in between.
            let mut queued = queue.queued();
            let heard = (&mut queued).now_or_never().is_some();
            let claims = queue.claim(&claimant, room, LONG).await.unwrap();
            if claims.is_empty() && !heard {
                queued.await;
            } else {
                drop(queued);
            }
            for claim in claims {
                end(&queue, &claim).await;
            }
        }
    })
}

pub async fn end(queue: &Memory, claim: &Claim) {
    tokio::time::sleep(Duration::from_millis(1)).await;
    queue.settle(&claim.lease, settlement(succeeded())).await.unwrap();
}

/// Waits until all runs have succeeded, each at its first attempt.
pub async fn all_end(storage: &MemoryStorage, scene: &Scene, runs: &HashSet<Id<AgentRun>>) {
    let query = || Query::<AgentRun>::all().limit(Query::<AgentRun>::MAX_LIMIT);
    let found = eventually("all runs have ended", async || {
        let found = storage.list(&scene.scope, &query()).await.unwrap().items;
        found.iter().all(|run| run.status == RunStatus::Succeeded).then_some(found)
    })
    .await;
    assert_eq!(found.iter().map(|run| run.id).collect::<HashSet<_>>(), *runs);
    for run in found {
        assert_eq!((run.attempt_count, run.crash_count), (1, 0), "run {} was begun twice", run.id);
    }
}
