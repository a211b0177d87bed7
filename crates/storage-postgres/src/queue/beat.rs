//! Signs of life.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use lime_core::ports::Signals;
use lime_core::runs::Lease;
use lime_core::{Error, Id, Result};
use sea_orm::{ConnectionTrait, DbErr, QueryResult};

use super::{arrays, millis};
use crate::batch::{Batcher, together};
use crate::error::unnamed;
use crate::fence::{self, HELD};
use crate::storage::{Base, sql};

const OPERATION: &str = "queue.heartbeat";
/// The most signs of life in one statement.
const MOST: usize = 512;

/// A sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beat {
    pub(super) lease: Lease,
    pub(super) extend: Duration,
}

/// Brings the signs of life of many together.
pub(super) fn batcher(base: &Base) -> Batcher<Beat, Signals> {
    let of_all = base.clone();
    Batcher::new(OPERATION, MOST, base.in_flight, move |beats: Vec<Beat>| {
        let base = of_all.clone();
        async move {
            let heard = together(&beats, |beats| {
                let base = base.clone();
                Box::pin(async move { beat(&base, beats).await })
            });
            heard.await.into_iter().map(|heard| heard.and_then(|heard| heard)).collect()
        }
    })
}

static STATEMENT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH held AS MATERIALIZED (
             SELECT place.*, clock_timestamp() AS now, clock_timestamp() + given.extend * interval '1 ms' AS ends
             FROM UNNEST((SELECT $1), $2, $3, $4) AS given (tenant_id, run_id, token, extend) {}
         ), longer AS (
             {}
         ), seen AS (
             UPDATE run_attempts AS attempt SET heartbeat_at = held.now FROM held
             WHERE attempt.id = held.token AND attempt.run_id = held.run_id
         )
         SELECT run_id, token, cancel_requested, pause_requested, inputs FROM held",
        fence::places("place.*", HELD, "FOR NO KEY UPDATE"),
        fence::change("held", &[("expires_at", "ends"), ("due_at", "least(due_at, ends)")])
    )
});

async fn beat(base: &Base, beats: &[Beat]) -> Result<Vec<Result<Signals>>> {
    let mut sorted: Vec<&Beat> = beats.iter().collect();
    sorted.sort_unstable_by_key(|Beat { lease, extend }| {
        (lease.run, lease.attempt, lease.tenant, Reverse(*extend))
    });
    sorted.dedup_by_key(|beat| beat.lease);
    let extends: Vec<i64> = sorted.iter().map(|beat| millis(beat.extend)).collect();
    let values = arrays(sorted.iter().map(|beat| &beat.lease)).into_iter().chain([extends.into()]);
    let rows = base.db.query_all_raw(sql(STATEMENT.as_str(), values)).await;
    let rows = rows.map_err(|error| unnamed(OPERATION, &error))?;
    let heard = rows.iter().map(signals).collect::<Result<HashMap<_, _>, _>>();
    let heard = heard.map_err(|error| unnamed(OPERATION, &error))?;
    let of_one = |Beat { lease, .. }: &Beat| match heard.get(&(lease.run, lease.attempt)) {
        Some(signals) => Ok(*signals),
        None => Err(Error::stale_lease(OPERATION, lease)),
    };
    Ok(beats.iter().map(of_one).collect())
}

type Key = (Id<lime_core::runs::AgentRun>, Id<lime_core::runs::RunAttempt>);

fn signals(row: &QueryResult) -> Result<(Key, Signals), DbErr> {
    let (run, token): (i64, i64) = (row.try_get("", "run_id")?, row.try_get("", "token")?);
    let signals = Signals {
        cancel: row.try_get("", "cancel_requested")?,
        pause: row.try_get("", "pause_requested")?,
        inputs: row.try_get("", "inputs")?,
    };
    Ok(((Id::new(run), Id::new(token)), signals))
}
