//! Ours on Redis: its line alone, which is what carries runs to workers, and for the idle pick-up all of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lime_core::Id;
use lime_core::ports::Queue;
use lime_core::runs::Lease;
use lime_queue_redis::{RedisLine, RedisOptions, RedisQueue};
use lime_storage_postgres::PgStorage;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ours::{Depth, LEASE, Site, Tell, claimant, stop, work};
use crate::Outcome;
use crate::ground::Ground;
use crate::peer::{BATCH, Handled, Peer, picking_up, producing};

/// How many leases one worker takes at a time.
const TAKES: usize = 32;
/// More workers than these only wait for each other.
const WORKERS: usize = 4;

pub(crate) struct OursRedis {
    site: Site,
    redis_url: String,
    prefix: String,
}

impl OursRedis {
    pub(crate) async fn open(ground: &Ground) -> Outcome<Self> {
        let (redis_url, prefix) = (ground.redis_url().to_owned(), format!("{}_ours", ground.prefix()));
        let opened = Self { site: Site::open(ground).await?, redis_url, prefix };
        opened.empty().await?;
        Ok(opened)
    }

    fn key(&self) -> String {
        format!("{}:measured", self.prefix)
    }

    fn line(&self, worker: usize) -> Outcome<RedisLine> {
        Ok(RedisLine::open(&self.redis_url, self.key(), format!("worker {worker}"))?)
    }

    async fn empty(&self) -> Outcome<()> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd("DEL").arg(self.key()).exec_async(&mut connection).await?;
        Ok(())
    }

    /// A process of the fleet.
    async fn process(&self) -> Outcome<(PgStorage, RedisQueue<PgStorage>)> {
        let storage = self.site.storage(true).await?;
        let options = RedisOptions { prefix: self.prefix.clone(), ..RedisOptions::default() };
        Ok((storage.clone(), RedisQueue::new(Arc::new(storage), &self.redis_url, options)?))
    }
}

fn leases(from: u64, count: u64) -> Outcome<Vec<Lease>> {
    let lease = |number: u64| {
        let number = i64::try_from(number)?;
        Ok(Lease { tenant: Id::new(1), run: Id::new(number), attempt: Id::new(number) })
    };
    (from..from + count).map(lease).collect()
}

async fn take_all(line: RedisLine, handled: Handled) -> Outcome<()> {
    loop {
        let taken = line.take(TAKES).await?;
        if taken.is_empty() {
            return Ok(());
        }
        let done = line.ack(&taken).await?;
        handled.many(done as u64);
    }
}

#[async_trait]
impl Peer for OursRedis {
    fn name(&self) -> &'static str {
        crate::roster::OURS_REDIS
    }

    fn setup(&self) -> String {
        format!(
            "the line of the Redis adapter on the Redis given, {TAKES} leases at a time, up to {WORKERS} workers; in \
             the idle pick-up submit, relay and take over PostgreSQL and Redis"
        )
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        self.empty().await?;
        let line = Arc::new(self.line(0)?);
        let rate = producing(producers, span, move |number| {
            let line = line.clone();
            async move { Ok(line.push(&leases(number + 1, 1)?, LEASE).await?) }
        });
        Ok(Some(rate.await?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        self.empty().await?;
        let line = Arc::new(self.line(0)?);
        let rate = producing(1, span, move |_| {
            let line = line.clone();
            async move { Ok(line.push(&leases(1, BATCH as u64)?, LEASE).await?) }
        });
        Ok(Some(rate.await? * 500.0))
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        self.empty().await?;
        let line = self.line(0)?;
        for from in (0..jobs).step_by(2000) {
            line.push(&leases(from + 1, 2000.min(jobs - from))?, LEASE).await?;
        }
        let mut lines = Vec::new();
        for worker in 0..concurrency.min(WORKERS) {
            let line = self.line(worker + 1)?;
            // Nothing is taken, but a connection made.
            line.ack(&[]).await?;
            lines.push(line);
        }
        let handled = Handled::until(jobs);
        let mut working = JoinSet::new();
        let began = Instant::now();
        for line in lines {
            working.spawn(take_all(line, handled.clone()));
        }
        // What is acknowledged is done.
        let rate = handled.drained(began, || async { Ok(0) }).await?;
        working.join_all().await.into_iter().collect::<Outcome<()>>()?;
        Ok(Some(rate))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        self.site.empty().await?;
        let ((storage, server), (other, worker)) = (self.process().await?, self.process().await?);
        let mut relaying = JoinSet::new();
        let relay = server.clone();
        relaying.spawn(async move { relay.relay().await });
        let (tell, mut runs) = mpsc::unbounded_channel();
        let crew = work(Arc::new(worker), claimant("idler")?, 8, Depth::Place, Tell::When(tell));
        // The relay finds its duty, and the worker the relay.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let latencies = picking_up(samples, &mut runs, |turn| {
            let (scope, run) = self.site.run(turn);
            let server = server.clone();
            async move {
                server.submit(&scope, run).await?;
                Ok(())
            }
        });
        let latencies = latencies.await;
        stop(crew).await?;
        relaying.shutdown().await;
        storage.close().await;
        other.close().await;
        Ok(Some(latencies?))
    }
}
