//! The log of ours, on PostgreSQL.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::StreamExt;
use lime_core::Scope;
use lime_core::ports::{EventLog, Queue, Record};
use lime_core::runs::{AgentEvent, Lease, MessageRole};
use lime_storage_postgres::PgStorage;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::delivery::{SUBSCRIBERS, delivering};
use super::{ACKNOWLEDGED, BULK, DELIVERY, NARROW, RUNS, SINGLE, Source, TEXT, Taken, WINDOW};
use crate::Outcome;
use crate::ground::Ground;
use crate::peer::producing;
use crate::peers::ours::{LEASE, Site, claimant};

/// Appends under way at once of one run, or of all of them.
const IN_FLIGHT: usize = 64;
/// Events in one call, where they are appended in bulk.
const IN_CALL: usize = 64;

/// One of the ways in which ours is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Who appends and who subscribes are as far apart as two processes.
    Apart,
    /// They are one process.
    Inside,
    /// Processes don't tell each other of news.
    Silent,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apart => super::OURS,
            Self::Inside => "ours-inside",
            Self::Silent => "ours-silent",
        }
    }
}

pub(super) struct Ours {
    way: Way,
    site: Site,
}

impl Ours {
    pub(super) async fn open(ground: &Ground, way: Way) -> Outcome<Self> {
        Ok(Self { way, site: Site::open(ground).await? })
    }

    /// The connections of one process, and runs that it works.
    async fn begin(&self) -> Outcome<(PgStorage, Arc<Vec<Lease>>)> {
        self.site.empty().await?;
        let storage = self.site.storage(self.way != Way::Silent).await?;
        self.site.fill(&storage, RUNS as u64).await?;
        let claims = storage.claim(&claimant("appender")?, RUNS, LEASE).await?;
        let leases: Vec<Lease> = claims.iter().map(|claim| claim.lease).collect();
        if leases.len() == RUNS {
            Ok((storage, Arc::new(leases)))
        } else {
            Err("not all runs were claimed".into())
        }
    }

    /// Calls a second of so many who append at once, in turns to all runs; with how long each call took.
    async fn appending(
        &self,
        at_once: usize,
        in_call: usize,
        span: Duration,
    ) -> Outcome<(f64, Vec<Duration>)> {
        let (storage, leases) = self.begin().await?;
        // Another process that listens, as there is in a fleet.
        let other = self.site.storage(true).await?;
        let mut queued = other.queued();
        let _ = futures_util::poll!(&mut queued);
        let (next, took) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (appending, times) = (storage.clone(), took.clone());
        let rate = producing(at_once, span, move |_| {
            let (storage, times) = (appending.clone(), times.clone());
            let lease = leases[next.fetch_add(1, Ordering::Relaxed) % RUNS];
            async move {
                let began = Instant::now();
                storage.append(&lease, record(in_call)).await?;
                times.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
                Ok(())
            }
        });
        let rate = rate.await;
        drop(queued);
        storage.close().await;
        other.close().await;
        let took = std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((rate?, took))
    }

    async fn delivery(&self) -> Outcome<Vec<Duration>> {
        let (storage, leases) = self.begin().await?;
        let other = if self.way == Way::Apart { self.site.storage(true).await? } else { storage.clone() };
        let lease = leases[0];
        let (tell, mut heard) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        for _ in 0..SUBSCRIBERS {
            let mut events = other.subscribe(&Scope::system(lease.tenant, "measuring"), lease.run, 0);
            let tell = tell.clone();
            listening.spawn(async move {
                // An error ends it, and is then missed as a message that was lost.
                while let Some(Ok(_)) = events.next().await {
                    let _ = tell.send(Instant::now());
                }
            });
        }
        // What was recorded before they came: the run was queued, and its attempt began.
        for _ in 0..2 * SUBSCRIBERS {
            let first = tokio::time::timeout(Duration::from_secs(5), heard.recv()).await;
            first.map_err(|_| "a subscriber has not heard of the past")?;
        }
        let delivered = delivering(&mut heard, async || {
            storage.append(&lease, record(1)).await?;
            Ok(())
        });
        let delivered = delivered.await;
        listening.shutdown().await;
        storage.close().await;
        other.close().await;
        delivered
    }
}

fn record(events: usize) -> Record {
    let event = AgentEvent::Message { role: MessageRole::Assistant, text: TEXT.to_owned() };
    Record::from(vec![event; events])
}

#[async_trait(?Send)]
impl Source for Ours {
    fn name(&self) -> &'static str {
        self.way.name()
    }

    fn setup(&self) -> &'static str {
        match self.way {
            Way::Apart => {
                "the log on PostgreSQL; who appends and who subscribes have connections of their own, as two processes"
            }
            Way::Inside => "the same in one process",
            Way::Silent => "the same without telling other processes",
        }
    }

    async fn measure(&self, span: Duration, taken: &mut Taken) -> Outcome<()> {
        if self.way != Way::Silent {
            taken.latencies(DELIVERY, self.delivery().await?);
        }
        if self.way == Way::Inside {
            return Ok(());
        }
        // One at a time of each run: what each awaits is its own commit.
        let (rate, took) = self.appending(RUNS, 1, span).await?;
        taken.rate(SINGLE, rate);
        taken.latencies(ACKNOWLEDGED, took);
        taken.rate(NARROW, self.appending(IN_FLIGHT, 1, span).await?.0);
        taken.rate(WINDOW, self.appending(IN_FLIGHT * RUNS, 1, span).await?.0);
        taken.rate(BULK, self.appending(RUNS, IN_CALL, span).await?.0 * 64.0);
        Ok(())
    }
}
