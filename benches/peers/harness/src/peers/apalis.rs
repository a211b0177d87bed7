//! `apalis` 1 on PostgreSQL, with its notification back end.

use std::time::{Duration, Instant};

use apalis::prelude::{BackendExt, BoxDynError, Data, TaskBuilder, WorkerBuilder, WorkerBuilderExt};
use apalis_postgres::queries::push_tasks;
use apalis_postgres::{Config, PgTask, PostgresStorage};
use async_trait::async_trait;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::ground::{Database, Ground};
use crate::peer::{BATCH, Handled, Peer, picking_up, producing};

const QUEUE: &str = "jobs";
/// How many tasks a worker fetches at a time.
const FETCH: usize = 500;

pub(crate) struct Apalis {
    database: Database,
}

/// What a handler does: counts, or says when it ran.
#[derive(Debug, Clone)]
enum Tell {
    Count(Handled),
    When(mpsc::UnboundedSender<Instant>),
}

async fn handle(_job: u64, tell: Data<Tell>) -> Result<(), BoxDynError> {
    match &*tell {
        Tell::Count(handled) => handled.one(),
        // Nobody listens once the last sample is taken.
        Tell::When(runs) => drop(runs.send(Instant::now())),
    }
    Ok(())
}

impl Apalis {
    pub(crate) async fn open(ground: &Ground) -> Outcome<Self> {
        let opened = Self { database: ground.database().await? };
        let pool = opened.database.pool(1).await?;
        PostgresStorage::setup(&pool).await?;
        Ok(opened)
    }

    async fn empty(&self, connections: usize) -> Outcome<PgPool> {
        let pool = self.database.pool(u32::try_from(connections)?).await?;
        sqlx::query("TRUNCATE apalis.jobs").execute(&pool).await?;
        Ok(pool)
    }
}

/// Workers that share the concurrency; aborted when this is dropped.
fn work(pool: &PgPool, concurrency: usize, tell: &Tell) -> JoinSet<()> {
    let workers = if concurrency >= 8 { 2 } else { 1 };
    let mut working = JoinSet::new();
    for number in 0..workers {
        let config = Config::default().queue(QUEUE).batch_size(FETCH);
        let backend = PostgresStorage::<u64>::new(pool)
            .with_config(config)
            .with_pubsub()
            .poll_with_interval(Duration::from_millis(500));
        let worker = WorkerBuilder::new(format!("peers-{number}").as_str())
            .backend(backend)
            .concurrency(concurrency / workers)
            .data(tell.clone())
            .build(handle);
        working.spawn(async move {
            // What it says when it is aborted is of no use to anybody.
            let _ = worker.run().await;
        });
    }
    working
}

async fn push(pool: &PgPool, jobs: std::ops::Range<u64>) -> Outcome<()> {
    let tasks = jobs.map(|id| Ok(TaskBuilder::new(serde_json::to_vec(&id)?).build()));
    let tasks: Vec<PgTask> = tasks.collect::<Outcome<_>>()?;
    let mut connection = pool.acquire().await?;
    push_tasks(&mut *connection, QUEUE, tasks).await?;
    Ok(())
}

#[async_trait]
impl Peer for Apalis {
    fn name(&self) -> &'static str {
        "apalis"
    }

    fn setup(&self) -> String {
        format!(
            "apalis 1.0 with apalis-postgres 1.0, told of new jobs by NOTIFY; fetches {FETCH} at a time, two workers \
             at c 8 and 32"
        )
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        let pool = self.empty(producers).await?;
        let rate = producing(producers, span, move |id| {
            let pool = pool.clone();
            async move { push(&pool, id..id + 1).await }
        });
        Ok(Some(rate.await?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        let pool = self.empty(1).await?;
        let rate = producing(1, span, move |_| {
            let pool = pool.clone();
            async move { push(&pool, 0..BATCH as u64).await }
        });
        Ok(Some(rate.await? * 500.0))
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        let pool = self.empty(6).await?;
        for from in (0..jobs).step_by(2000) {
            push(&pool, from..jobs.min(from + 2000)).await?;
        }
        self.database.vacuum(&pool).await?;
        // Whose time has not come is not fetched, and times are whole seconds.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let handled = Handled::until(jobs);
        let began = Instant::now();
        let working = work(&pool, concurrency, &Tell::Count(handled.clone()));
        let left = || async {
            let left = "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'";
            let left: i64 = sqlx::query_scalar(left).fetch_one(&pool).await?;
            Ok(left.unsigned_abs())
        };
        let rate = handled.drained(began, left).await;
        drop(working);
        Ok(Some(rate?))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        let pool = self.empty(6).await?;
        let (tell, mut runs) = mpsc::unbounded_channel();
        let working = work(&pool, 1, &Tell::When(tell));
        let latencies = picking_up(samples, &mut runs, |id| push(&pool, id..id + 1)).await;
        drop(working);
        Ok(Some(latencies?))
    }
}
