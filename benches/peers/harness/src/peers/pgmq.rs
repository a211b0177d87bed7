//! pgmq, by its SQL alone, which needs no extension on the server.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::ground::{Database, Ground};
use crate::peer::{BATCH, Handled, Peer, picking_up, producing};

/// How long a message that was read is hidden from others, in seconds.
const HIDDEN: i32 = 30;
/// How many messages one read takes.
const READ: i32 = 32;
/// More readers than these only wait for each other.
const READERS: usize = 8;

pub(crate) struct Pgmq {
    database: Database,
}

impl Pgmq {
    pub(crate) async fn open(ground: &Ground) -> Outcome<Self> {
        let opened = Self { database: ground.database().await? };
        let pool = opened.database.pool(1).await?;
        pgmq::PGMQueueExt::new_with_pool(pool.clone()).await.install_sql_from_embedded().await?;
        // Telling of each new message costs its sender, so only the idle queue does.
        sqlx::query("SELECT pgmq.create('jobs'), pgmq.create('idle')").execute(&pool).await?;
        sqlx::query("SELECT pgmq.enable_notify_insert('idle', 0)").execute(&pool).await?;
        Ok(opened)
    }

    async fn empty(&self, connections: usize) -> Outcome<PgPool> {
        let pool = self.database.pool(u32::try_from(connections)?).await?;
        sqlx::query("TRUNCATE pgmq.q_jobs, pgmq.q_idle").execute(&pool).await?;
        Ok(pool)
    }
}

async fn send(pool: &PgPool, queue: &str, id: u64) -> Outcome<()> {
    let send = sqlx::query("SELECT pgmq.send($1, $2)").bind(queue).bind(json!({ "id": id }));
    send.execute(pool).await?;
    Ok(())
}

async fn send_batch(pool: &PgPool, jobs: &[serde_json::Value]) -> Outcome<()> {
    sqlx::query("SELECT pgmq.send_batch('jobs', $1)").bind(jobs).execute(pool).await?;
    Ok(())
}

/// Reads and deletes until nothing is left; gives how many there were in each read.
async fn read_all(pool: PgPool, queue: &'static str, mut done: impl FnMut(u64) + Send) -> Outcome<()> {
    loop {
        let read = sqlx::query_scalar("SELECT msg_id FROM pgmq.read($1, $2, $3)").bind(queue).bind(HIDDEN);
        let ids: Vec<i64> = read.bind(READ).fetch_all(&pool).await?;
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query("SELECT pgmq.delete($1, $2)").bind(queue).bind(&ids).execute(&pool).await?;
        done(ids.len() as u64);
    }
}

#[async_trait]
impl Peer for Pgmq {
    fn name(&self) -> &'static str {
        "pgmq"
    }

    fn setup(&self) -> String {
        format!(
            "pgmq 1.13, installed as SQL; up to {READERS} readers of {READ} at a time that delete what they read; \
             NOTIFY in the idle pick-up alone"
        )
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        let pool = self.empty(producers).await?;
        let rate = producing(producers, span, move |id| {
            let pool = pool.clone();
            async move { send(&pool, "jobs", id).await }
        });
        Ok(Some(rate.await?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        let pool = self.empty(1).await?;
        let jobs: Vec<_> = (0..BATCH).map(|id| json!({ "id": id })).collect();
        let rate = producing(1, span, move |_| {
            let (pool, jobs) = (pool.clone(), jobs.clone());
            async move { send_batch(&pool, &jobs).await }
        });
        Ok(Some(rate.await? * 500.0))
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        let readers = concurrency.min(READERS);
        let pool = self.empty(readers + 1).await?;
        let messages: Vec<_> = (0..jobs).map(|id| json!({ "id": id })).collect();
        for batch in messages.chunks(2000) {
            send_batch(&pool, batch).await?;
        }
        self.database.vacuum(&pool).await?;
        let handled = Handled::until(jobs);
        let mut reading = JoinSet::new();
        let began = Instant::now();
        for _ in 0..readers {
            let handled = handled.clone();
            reading.spawn(read_all(pool.clone(), "jobs", move |more| handled.many(more)));
        }
        let left = || async {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pgmq.q_jobs").fetch_one(&pool).await?;
            Ok(left.unsigned_abs())
        };
        let rate = handled.drained(began, left).await?;
        reading.join_all().await.into_iter().collect::<Outcome<()>>()?;
        Ok(Some(rate))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        let pool = self.empty(3).await?;
        let mut listener = PgListener::connect(&self.database.url).await?;
        listener.listen("pgmq.q_idle.INSERT").await?;
        let (tell, mut runs) = mpsc::unbounded_channel();
        let mut reading = JoinSet::new();
        let reader = pool.clone();
        reading.spawn(async move {
            loop {
                listener.recv().await?;
                // One sample at a time, and nobody listens once the last one is taken.
                let read = sqlx::query_scalar("SELECT msg_id FROM pgmq.read('idle', $1, 1)").bind(HIDDEN);
                let ids: Vec<i64> = read.fetch_all(&reader).await?;
                if !ids.is_empty() {
                    let _ = tell.send(Instant::now());
                    sqlx::query("SELECT pgmq.delete('idle', $1)").bind(&ids).execute(&reader).await?;
                }
                if tell.is_closed() {
                    return Outcome::Ok(());
                }
            }
        });
        let latencies = picking_up(samples, &mut runs, |id| send(&pool, "idle", id)).await;
        reading.shutdown().await;
        Ok(Some(latencies?))
    }
}
