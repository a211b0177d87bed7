//! `graphile_worker` 0.14, on its tokio-postgres driver, which drains faster than its sqlx one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use graphile_worker::tokio_postgres::TokioPostgresDatabase;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, Worker, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::ground::{Database, Ground};
use crate::peer::{BATCH, Handled, Peer, STOP_LIMIT, picking_up, producing};

const SCHEMA: &str = "graphile_worker";
const TASK: &str = "job";

/// One of its ways to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Jobs are fetched in batches and acknowledged in batches.
    Batched,
    /// Jobs are fetched in batches, and each is acknowledged alone.
    Unbatched,
    /// Each job is fetched and acknowledged alone.
    Direct,
}

pub(crate) struct Graphile {
    mode: Mode,
    database: Database,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    id: u64,
}

/// What a handler does: counts, or says when it ran.
#[derive(Debug, Clone)]
enum Tell {
    Count(Handled),
    When(mpsc::UnboundedSender<Instant>),
}

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = TASK;

    async fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        match ctx.get_ext::<Tell>() {
            Some(Tell::Count(handled)) => handled.one(),
            // Nobody listens once the last sample is taken.
            Some(Tell::When(runs)) => drop(runs.send(Instant::now())),
            None => return Err("the worker has no extension".to_owned()),
        }
        Ok(())
    }
}

impl Graphile {
    pub(crate) async fn open(ground: &Ground, mode: Mode) -> Outcome<Self> {
        let opened = Self { mode, database: ground.database().await? };
        opened.utils(1)?.migrate().await?;
        Ok(opened)
    }

    fn connect(&self, connections: usize) -> Outcome<TokioPostgresDatabase> {
        Ok(TokioPostgresDatabase::from_url(&self.database.url, connections)?)
    }

    fn utils(&self, connections: usize) -> Outcome<WorkerUtils> {
        Ok(WorkerUtils::new(self.connect(connections)?, SCHEMA))
    }

    async fn empty(&self) -> Outcome<PgPool> {
        let pool = self.database.pool(1).await?;
        sqlx::query("TRUNCATE graphile_worker._private_jobs CASCADE").execute(&pool).await?;
        Ok(pool)
    }

    /// A worker that has begun; no faster settings were found on two cores.
    async fn work(&self, concurrency: usize, tell: Tell) -> Outcome<Working> {
        // Enough for commits to go to the disk together.
        let connections = if self.mode == Mode::Batched { 8 } else { concurrency + 2 };
        let options = WorkerOptions::default()
            .database(self.connect(connections)?)
            .schema(SCHEMA)
            .concurrency(concurrency)
            .listen_os_shutdown_signals(false)
            .add_extension(tell)
            .define_job::<Job>();
        let queues = if concurrency >= 8 { 2 } else { 1 };
        let local_queue = LocalQueueConfig::default().with_size(2000).with_queue_count(queues);
        let options = match self.mode {
            Mode::Batched => {
                options.local_queue(local_queue).complete_job_batch_delay(Duration::from_millis(5))
            }
            Mode::Unbatched => options.local_queue(local_queue),
            Mode::Direct => options.poll_interval(Duration::from_millis(5)),
        };
        let worker = Arc::new(options.init().await?);
        let running = worker.clone();
        let began = Instant::now();
        let task = tokio::spawn(async move {
            // What it says when it is stopped in the middle is of no use to anybody.
            let _ = running.run().await;
        });
        Ok(Working { worker, task, began })
    }
}

struct Working {
    worker: Arc<Worker>,
    task: JoinHandle<()>,
    began: Instant,
}

impl Working {
    async fn stop(mut self) {
        self.worker.request_shutdown();
        if tokio::time::timeout(STOP_LIMIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

fn jobs(count: usize) -> Vec<RawJobSpec> {
    let job =
        |id| RawJobSpec { identifier: TASK.into(), payload: json!({ "id": id }), spec: JobSpec::default() };
    (0..count).map(job).collect()
}

#[async_trait]
impl Peer for Graphile {
    fn name(&self) -> &'static str {
        match self.mode {
            Mode::Batched => "graphile",
            Mode::Unbatched => "graphile-unbatched",
            Mode::Direct => "graphile-direct",
        }
    }

    fn setup(&self) -> String {
        let how = match self.mode {
            Mode::Batched => "local queue of 2,000 (two at c 8 and 32), acknowledged in batches each 5 ms",
            Mode::Unbatched => "local queue of 2,000 (two at c 8 and 32), each job acknowledged alone",
            Mode::Direct => "each job fetched and acknowledged alone, polled each 5 ms",
        };
        format!("graphile_worker 0.14, tokio-postgres; {how}")
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        if self.mode != Mode::Batched {
            return Ok(None);
        }
        self.empty().await?;
        let utils = Arc::new(self.utils(producers)?);
        let rate = producing(producers, span, move |id| {
            let utils = utils.clone();
            async move {
                utils.add_raw_job(TASK, json!({ "id": id }), JobSpec::default()).await?;
                Ok(())
            }
        });
        Ok(Some(rate.await?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        if self.mode != Mode::Batched {
            return Ok(None);
        }
        self.empty().await?;
        let utils = Arc::new(self.utils(1)?);
        let jobs = Arc::new(jobs(BATCH));
        let rate = producing(1, span, move |_| {
            let (utils, jobs) = (utils.clone(), jobs.clone());
            async move {
                utils.add_raw_jobs(&jobs).await?;
                Ok(())
            }
        });
        Ok(Some(rate.await? * 500.0))
    }

    async fn drain(&self, concurrency: usize, count: u64) -> Outcome<Option<f64>> {
        let pool = self.empty().await?;
        let utils = self.utils(1)?;
        for batch in jobs(usize::try_from(count)?).chunks(2000) {
            utils.add_raw_jobs(batch).await?;
        }
        self.database.vacuum(&pool).await?;
        let handled = Handled::until(count);
        let working = self.work(concurrency, Tell::Count(handled.clone())).await?;
        let left = || async {
            let left: i64 = sqlx::query_scalar("SELECT count(*) FROM graphile_worker._private_jobs")
                .fetch_one(&pool)
                .await?;
            Ok(left.unsigned_abs())
        };
        let rate = handled.drained(working.began, left).await;
        working.stop().await;
        Ok(Some(rate?))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        self.empty().await?;
        let (tell, mut runs) = mpsc::unbounded_channel();
        let working = self.work(8, Tell::When(tell)).await?;
        let utils = Arc::new(self.utils(1)?);
        let latencies = picking_up(samples, &mut runs, |id| {
            let utils = utils.clone();
            async move {
                utils.add_raw_job(TASK, json!({ "id": id }), JobSpec::default()).await?;
                Ok(())
            }
        });
        let latencies = latencies.await;
        working.stop().await;
        Ok(Some(latencies?))
    }
}
