//! Bare SQL into the table of the log.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::types::Json;

use super::delivery::PAUSE;
use super::{BULK, COMMIT, EVENTS, RUNS, SINGLE, Source, TEXT, Taken};
use crate::Outcome;
use crate::ground::Ground;
use crate::peer::{producing, rate};
use crate::peers::ours::Site;

/// How many rows an INSERT with unnest() has.
const ROWS: i64 = 500;
/// How many commits are timed.
const COMMITS: i64 = 300;

/// One of the ways to write rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Inserts,
    Inserts8,
    Unnest,
    Copy,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inserts => "inserts",
            Self::Inserts8 => "inserts-8",
            Self::Unnest => "unnest",
            Self::Copy => "copy",
        }
    }
}

pub(super) struct Bare {
    way: Way,
    site: Site,
}

impl Bare {
    pub(super) async fn open(ground: &Ground, way: Way) -> Outcome<Self> {
        Ok(Self { way, site: Site::open(ground).await? })
    }

    async fn empty(&self, connections: u32) -> Outcome<PgPool> {
        self.site.empty().await?;
        self.site.database.pool(connections).await
    }

    /// One row in each statement.
    async fn inserts(&self, connections: u32, span: Duration) -> Outcome<f64> {
        let pool = self.empty(connections).await?;
        let next = Arc::new(AtomicI64::new(1));
        producing(usize::try_from(connections)?, span, move |_| {
            let (pool, place) = (pool.clone(), next.fetch_add(1, Ordering::Relaxed));
            async move { insert(&pool, place).await }
        })
        .await
    }

    /// How long one row takes, when there is nothing else to do.
    async fn commits(&self) -> Outcome<Vec<Duration>> {
        let pool = self.empty(1).await?;
        let mut took = Vec::new();
        for place in 0..COMMITS {
            tokio::time::sleep(PAUSE).await;
            let began = Instant::now();
            insert(&pool, place).await?;
            took.push(began.elapsed());
        }
        Ok(took)
    }

    /// [`ROWS`] in each statement.
    async fn unnest(&self) -> Outcome<f64> {
        let pool = self.empty(1).await?;
        let payloads = vec![Json(payload()); usize::try_from(ROWS)?];
        let began = Instant::now();
        for from in (0..i64::try_from(EVENTS)?).step_by(usize::try_from(ROWS)?) {
            let (runs, seqs): (Vec<i64>, Vec<i64>) = (from..from + ROWS).map(position).unzip();
            let insert = sqlx::query(
                "INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
                 SELECT 1, run, run, seq, clock_timestamp(), 'message', payload
                 FROM unnest($1::bigint[], $2::bigint[], $3::jsonb[]) AS new (run, seq, payload)",
            );
            insert.bind(&runs).bind(&seqs).bind(&payloads).execute(&pool).await?;
        }
        Ok(rate(EVENTS, began.elapsed()))
    }

    /// All in one COPY.
    async fn copy(&self) -> Outcome<f64> {
        /// Some more than the socket takes at a time.
        const CHUNK: usize = 1 << 16;
        let pool = self.empty(1).await?;
        let payload = serde_json::to_string(&payload())?;
        let mut connection = pool.acquire().await?;
        let began = Instant::now();
        let copy = "COPY agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json) FROM STDIN";
        let mut copy = connection.copy_in_raw(copy).await?;
        let mut lines = String::new();
        for place in 0..i64::try_from(EVENTS)? {
            let (run, seq) = position(place);
            writeln!(lines, "1\t{run}\t{run}\t{seq}\tnow\tmessage\t{payload}")?;
            if lines.len() >= CHUNK {
                copy.send(std::mem::take(&mut lines).into_bytes()).await?;
            }
        }
        copy.send(lines.into_bytes()).await?;
        copy.finish().await?;
        Ok(rate(EVENTS, began.elapsed()))
    }
}

/// The run and the position in it.
fn position(place: i64) -> (i64, i64) {
    let runs = i64::try_from(RUNS).unwrap_or(i64::MAX);
    (place % runs + 1, place / runs + 1)
}

async fn insert(pool: &PgPool, place: i64) -> Outcome<()> {
    let (run, seq) = position(place);
    let insert = sqlx::query(
        "INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
         VALUES (1, $1, $1, $2, clock_timestamp(), 'message', $3)",
    );
    insert.bind(run).bind(seq).bind(Json(payload())).execute(pool).await?;
    Ok(())
}

fn payload() -> Value {
    json!({ "type": "message", "role": "assistant", "text": TEXT })
}

#[async_trait(?Send)]
impl Source for Bare {
    fn name(&self) -> &'static str {
        self.way.name()
    }

    fn setup(&self) -> &'static str {
        match self.way {
            Way::Inserts => "one connection, one INSERT of one row at a time into the log's own table",
            Way::Inserts8 => "eight connections that do the same at once",
            Way::Unnest => "one connection, INSERT … SELECT FROM unnest() of 500 rows at a time",
            Way::Copy => "one connection, one COPY of 100,000 rows",
        }
    }

    async fn measure(&self, span: Duration, taken: &mut Taken) -> Outcome<()> {
        match self.way {
            Way::Inserts => {
                taken.rate(SINGLE, self.inserts(1, span).await?);
                taken.latencies(COMMIT, self.commits().await?);
            }
            Way::Inserts8 => taken.rate(SINGLE, self.inserts(8, span).await?),
            Way::Unnest => taken.rate(BULK, self.unnest().await?),
            Way::Copy => taken.rate(BULK, self.copy().await?),
        }
        Ok(())
    }
}
