//! Ours on PostgreSQL.

mod crew;
mod site;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lime_core::ports::Queue;
use lime_storage_postgres::PgStorage;
use tokio::sync::mpsc;

pub(crate) use crew::{Depth, Tell, work};
pub(crate) use site::{LEASE, PROVIDER, Site, claimant};

use crate::Outcome;
use crate::ground::Ground;
use crate::peer::{BATCH, Handled, Peer, picking_up, producing};

/// One of the ways in which ours is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The queue alone; who submits and who works are as far apart as two processes.
    Queue,
    /// Whole runs, with their attempts and logs.
    Runs,
    /// Who submits and who works are one process.
    OneProcess,
}

pub(crate) struct Ours {
    way: Way,
    site: Arc<Site>,
}

impl Ours {
    pub(crate) async fn open(ground: &Ground, way: Way) -> Outcome<Self> {
        Ok(Self { way, site: Arc::new(Site::open(ground).await?) })
    }

    async fn empty(&self) -> Outcome<PgStorage> {
        self.site.empty().await?;
        self.site.storage(true).await
    }

    fn depth(&self) -> Depth {
        if self.way == Way::Runs { Depth::Run } else { Depth::Place }
    }
}

#[async_trait]
impl Peer for Ours {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Queue => crate::roster::OURS,
            Way::Runs => "ours-runs",
            Way::OneProcess => "ours-inside",
        }
    }

    fn setup(&self) -> String {
        let how = match self.way {
            Way::Queue => {
                "submit, take and finish of up to 1,000 at a time in 200 projects; submitted and worked over separate \
                 connections, as by two processes"
            }
            Way::Runs => "the same with claim and settle: run, attempt and log are written too",
            Way::OneProcess => "submitted and worked in one process",
        };
        how.to_owned()
    }

    async fn enqueue_one(&self, producers: usize, span: Duration) -> Outcome<Option<f64>> {
        if self.way != Way::Queue {
            return Ok(None);
        }
        let storage = self.empty().await?;
        let (site, submitting) = (self.site.clone(), storage.clone());
        let rate = producing(producers, span, move |turn| {
            let (scope, run) = site.run(turn);
            let storage = submitting.clone();
            async move {
                storage.submit(&scope, run).await?;
                Ok(())
            }
        });
        let rate = rate.await;
        storage.close().await;
        Ok(Some(rate?))
    }

    async fn enqueue_batch(&self, span: Duration) -> Outcome<Option<f64>> {
        if self.way != Way::Queue {
            return Ok(None);
        }
        let storage = self.empty().await?;
        let (site, submitting) = (self.site.clone(), storage.clone());
        let rate = producing(1, span, move |turn| {
            let (scope, runs) = site.runs(turn, BATCH);
            let storage = submitting.clone();
            async move {
                storage.submit_all(&scope, runs).await?;
                Ok(())
            }
        });
        let rate = rate.await;
        storage.close().await;
        Ok(Some(rate? * 500.0))
    }

    async fn drain(&self, concurrency: usize, jobs: u64) -> Outcome<Option<f64>> {
        if self.way == Way::OneProcess {
            return Ok(None);
        }
        let storage = self.empty().await?;
        self.site.fill(&storage, jobs).await?;
        let pool = self.site.database.pool(1).await?;
        self.site.database.vacuum(&pool).await?;
        let handled = Handled::until(jobs);
        let (claimant, tell) = (claimant("drainer")?, Tell::Count(handled.clone()));
        let began = Instant::now();
        let crew = work(Arc::new(storage.clone()), claimant, concurrency, self.depth(), tell);
        let left = || async {
            let left: i64 = sqlx::query_scalar(
                "SELECT (SELECT count(*) FROM run_queue) + (SELECT count(*) FROM run_leases)",
            )
            .fetch_one(&pool)
            .await?;
            Ok(left.unsigned_abs())
        };
        let rate = handled.drained(began, left).await;
        stop(crew).await?;
        storage.close().await;
        Ok(Some(rate?))
    }

    async fn pickup(&self, samples: u32) -> Outcome<Option<Vec<Duration>>> {
        let storage = self.empty().await?;
        let other =
            if self.way == Way::OneProcess { storage.clone() } else { self.site.storage(true).await? };
        let (tell, mut runs) = mpsc::unbounded_channel();
        let crew = work(Arc::new(storage.clone()), claimant("idler")?, 8, self.depth(), Tell::When(tell));
        let latencies = picking_up(samples, &mut runs, |turn| {
            let (scope, run) = self.site.run(turn);
            let other = other.clone();
            async move {
                other.submit(&scope, run).await?;
                Ok(())
            }
        });
        let latencies = latencies.await;
        stop(crew).await?;
        storage.close().await;
        other.close().await;
        Ok(Some(latencies?))
    }
}

/// Ends a crew; gives the error that it has ended with before, if so.
pub(crate) async fn stop(mut crew: tokio::task::JoinSet<Outcome<()>>) -> Outcome<()> {
    while let Some(ended) = crew.try_join_next() {
        ended??;
    }
    crew.shutdown().await;
    Ok(())
}
