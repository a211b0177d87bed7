//! What is made ahead of the log and taken off behind it; `docs/data-retention.md` says what is kept how long.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use lime_core::runs::RunStatus;
use lime_core::{Error, ErrorKind, Result};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Value};

use crate::PgStorage;
use crate::error::unnamed;
use crate::fence::words;
use crate::storage::{commit, sql};

const MAINTAIN: &str = "storage.maintain";
const PURGE: &str = "storage.purge";
/// How many months of the log are there beside this one before they begin.
const AHEAD: i32 = 3;
/// How many runs are looked at in one statement,
const RUNS: i64 = 5_000;
/// and how many events are deleted in one transaction.
const EVENTS: i64 = 10_000;
/// A month is dropped under a lock that everybody waits for, who waits for those who read: better to try again.
const LOCK_TIMEOUT_MS: u32 = 1_000;
const TRIES: usize = 10;

/// Which events are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purge {
    /// Those of runs that ended longer ago than this, on the database's clock.
    pub older_than: Duration,
    /// Whether to say only what would be done.
    pub dry_run: bool,
}

/// What was given up, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Runs that ended before this lost their events.
    pub before: DateTime<Utc>,
    /// How many runs.
    pub runs: u64,
    /// How many events their logs had.
    pub events: u64,
    /// The months whose tables were dropped as a whole, by the names of the tables.
    pub dropped: Vec<String>,
}

impl PgStorage {
    /// Makes the tables of this month's events and of the next three, where they are missing; gives their names.
    ///
    /// - [`migrate`](PgStorage::migrate) does so too. Call it once a day: events of a month that was not made ahead go to
    ///   a table for all others, and are moved when it is made.
    /// - Others hardly notice: it takes locks for milliseconds, and fails as `Timeout` where it does not get them soon.
    pub async fn maintain(&self) -> Result<Vec<String>> {
        let this = self.clone();
        self.detached(MAINTAIN, tracing::info_span!("maintain"), async move {
            let missing = "SELECT agent_events_missing_months($1) AS name";
            let missing = this.connection().query_all_raw(sql(missing, [AHEAD.into()])).await;
            if missing.map_err(|error| unnamed(MAINTAIN, &error))?.is_empty() {
                return Ok(Vec::new());
            }
            let tx = this.begin(MAINTAIN).await?;
            patience(&tx).await.map_err(|error| unnamed(MAINTAIN, &error))?;
            let made = add_months(&tx).await.map_err(|error| unnamed(MAINTAIN, &error))?;
            commit(MAINTAIN, tx).await?;
            Ok(made)
        })
        .await
    }

    /// Gives up the events of runs that ended long ago; the runs stay, with their steps, tool calls and diffs.
    ///
    /// - A month in which no other run has events is dropped as a whole, at once, and gives its space back; other events
    ///   are deleted in bounded batches. Never an event of a run that has not ended.
    /// - A run that has lost its events says when in `agent_runs.events_purged_at`; its positions are not used again.
    /// - Safe to break off and to repeat: the next call goes on.
    /// - Fails as `Timeout` where a month cannot be locked to be dropped: somebody reads the log without an end.
    pub async fn purge(&self, purge: &Purge) -> Result<Purged> {
        let (this, purge) = (self.clone(), *purge);
        let span = tracing::info_span!("purge", ?purge);
        self.detached(PURGE, span, async move { this.purge_all(purge).await }).await
    }

    async fn purge_all(&self, purge: Purge) -> Result<Purged> {
        let before = "SELECT clock_timestamp() - $1 * interval '1 millisecond' AS at";
        let older_than = i64::try_from(purge.older_than.as_millis()).unwrap_or(i64::MAX).min(MOST_MS);
        let at: At = one(self.connection(), before, [older_than.into()]).await?;
        let mut purged = Purged { before: at.at, runs: 0, events: 0, dropped: Vec::new() };
        if purge.dry_run {
            self.count(&mut purged).await?;
        } else {
            self.mark(&mut purged).await?;
        }
        for month in self.months().await?.into_iter().filter(|month| month.ends <= at.at) {
            if purge.dry_run {
                if month.is_free(self.connection(), &OLD_OR_PURGED, at.at).await? {
                    purged.dropped.push(month.name);
                }
            } else if self.drop_month(&month, at.at).await? {
                purged.dropped.push(month.name);
            }
        }
        if !purge.dry_run {
            self.delete().await?;
        }
        Ok(purged)
    }

    async fn count(&self, purged: &mut Purged) -> Result<()> {
        let statement = format!(
            "SELECT count(*) AS runs, coalesce(sum(last_seq), 0)::bigint AS events FROM agent_runs AS run WHERE {}",
            *OLD
        );
        let tx = self.begin(PURGE).await?;
        // It looks at every run.
        let look = tx.execute_unprepared("SET LOCAL statement_timeout = 0").await;
        look.map_err(|error| unnamed(PURGE, &error))?;
        let counted: Counted = one(&tx, &statement, [purged.before.into()]).await?;
        commit(PURGE, tx).await?;
        (purged.runs, purged.events) = (counted.runs.unsigned_abs(), counted.events.unsigned_abs());
        Ok(())
    }

    /// Decides for each run that its events are given up. What comes after goes by that, so that a run which is put
    /// back into the line meanwhile loses only what it had before.
    async fn mark(&self, purged: &mut Purged) -> Result<()> {
        let statement = format!(
            "WITH marked AS (
                 UPDATE agent_runs AS run SET events_purged_at = clock_timestamp()
                 WHERE run.id > $2 AND run.id <= $3 AND {} RETURNING last_seq
             )
             SELECT count(*) AS runs, coalesce(sum(last_seq), 0)::bigint AS events FROM marked",
            *OLD
        );
        let mut after = 0;
        while let Some(upto) = self.next_run(after).await? {
            let values = [purged.before.into(), after.into(), upto.into()];
            let marked: Counted = one(self.connection(), &statement, values).await?;
            purged.runs += marked.runs.unsigned_abs();
            purged.events += marked.events.unsigned_abs();
            after = upto;
        }
        Ok(())
    }

    /// The last of the next runs by their ids.
    async fn next_run(&self, after: i64) -> Result<Option<i64>> {
        let statement = "SELECT max(id) AS id
            FROM (SELECT id FROM agent_runs WHERE id > $1 ORDER BY id LIMIT $2) AS next";
        let next: Next = one(self.connection(), statement, [after.into(), RUNS.into()]).await?;
        Ok(next.id)
    }

    /// The tables of months, the oldest first.
    async fn months(&self) -> Result<Vec<Month>> {
        let rows = self.connection().query_all_raw(sql(MONTHS, [])).await;
        let rows = rows.map_err(|error| unnamed(PURGE, &error))?;
        let months = rows.iter().map(|row| Month::from_query_result(row, ""));
        months.collect::<Result<_, _>>().map_err(|error| unnamed(PURGE, &error))
    }

    /// Drops a month in which there is nothing but what is given up; gives whether it did.
    async fn drop_month(&self, month: &Month, before: DateTime<Utc>) -> Result<bool> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_to_drop(month, before).await {
                Err(error) if error.kind() == ErrorKind::Timeout && tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(LOCK_TIMEOUT_MS.into())).await;
                }
                Err(error) => return Err(error.with("month", &month.name)),
                dropped => return dropped,
            }
        }
    }

    async fn try_to_drop(&self, month: &Month, before: DateTime<Utc>) -> Result<bool> {
        let tx = self.begin(PURGE).await?;
        patience(&tx).await.map_err(|error| unnamed(PURGE, &error))?;
        if !month.is_free(&tx, PURGED, before).await? {
            return Ok(false);
        }
        let drop = sql("SELECT agent_events_drop_month($1)", [month.name.as_str().into()]);
        let dropped = tx.execute_raw(drop).await;
        dropped.map_err(|error| unnamed(PURGE, &error))?;
        commit(PURGE, tx).await?;
        Ok(true)
    }

    /// Deletes what is given up, and was not dropped.
    async fn delete(&self) -> Result<()> {
        const LEFT: &str = "SELECT run.id, run.tenant_id, run.last_seq, run.events_purged_at AS purged_at
            FROM agent_runs AS run
            WHERE run.id > $1 AND run.id <= $2 AND run.events_purged_at IS NOT NULL AND EXISTS (
                SELECT FROM agent_events AS event
                WHERE event.tenant_id = run.tenant_id AND event.agent_run_id = run.id
                  AND event.ts < run.events_purged_at AND event.ts >= run.created_at - interval '1 day')
            ORDER BY run.id";
        const DELETE: &str = "DELETE FROM agent_events AS event
            USING UNNEST($1, $2, $3, $4, $5) AS slice (tenant_id, run_id, after, upto, purged_at)
            WHERE event.tenant_id = slice.tenant_id AND event.agent_run_id = slice.run_id
              AND event.seq > slice.after AND event.seq <= slice.upto AND event.ts < slice.purged_at";
        let mut after = 0;
        while let Some(upto) = self.next_run(after).await? {
            let left = self.connection().query_all_raw(sql(LEFT, [after.into(), upto.into()])).await;
            let left = left.map_err(|error| unnamed(PURGE, &error))?;
            let left = left.iter().map(|row| Left::from_query_result(row, ""));
            let left: Vec<Left> = left.collect::<Result<_, _>>().map_err(|error| unnamed(PURGE, &error))?;
            for slices in slices(&left) {
                let column = |of: fn(&Slice) -> i64| slices.iter().map(of).collect::<Vec<_>>().into();
                let purged_at: Vec<DateTime<Utc>> = slices.iter().map(|slice| slice.purged_at).collect();
                let values = [
                    column(|slice| slice.tenant_id),
                    column(|slice| slice.run_id),
                    column(|slice| slice.after),
                    column(|slice| slice.upto),
                    purged_at.into(),
                ];
                let deleted = self.connection().execute_raw(sql(DELETE, values)).await;
                deleted.map_err(|error| unnamed(PURGE, &error))?;
            }
            after = upto;
        }
        Ok(())
    }
}

/// 1,000 years, which PostgreSQL still can take off its time.
const MOST_MS: i64 = 1_000 * 365 * 24 * 60 * 60 * 1_000;

/// The runs whose events are due to be given up, at `$1`.
static OLD: LazyLock<String> = LazyLock::new(|| {
    let ended = words(RunStatus::ALL.iter().copied().filter(|status| status.is_final()));
    format!(
        "run.status IN ({ended}) AND run.ended_at < $1
         AND (run.events_purged_at IS NULL OR run.events_purged_at < run.ended_at)"
    )
});
/// The runs that have no event in a month that ended at `$2`, or whose events in it are given up.
const PURGED: &str = "run.events_purged_at >= $2";
static OLD_OR_PURGED: LazyLock<String> = LazyLock::new(|| format!("{PURGED} OR {}", *OLD));

const MONTHS: &str = "SELECT child.relname::text AS name,
        (to_date(right(child.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' AS ends
    FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
    WHERE inhparent = 'agent_events'::regclass AND child.relname ~ '^agent_events_[0-9]{4}_[0-9]{2}$'
    ORDER BY child.relname";

#[derive(FromQueryResult)]
struct At {
    at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Counted {
    runs: i64,
    events: i64,
}

#[derive(FromQueryResult)]
struct Next {
    id: Option<i64>,
}

/// The table of a month.
#[derive(FromQueryResult)]
struct Month {
    name: String,
    ends: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Free {
    is_free: bool,
}

impl Month {
    /// Whether every run that has events in it is of this kind. None is older than its run; a day for clocks that were
    /// set back.
    async fn is_free(&self, db: &impl ConnectionTrait, kind: &str, before: DateTime<Utc>) -> Result<bool> {
        let statement = format!(
            "SELECT NOT EXISTS (
                 SELECT FROM agent_runs AS run
                 WHERE run.created_at < $2::timestamptz + interval '1 day' AND ({kind}) IS NOT TRUE AND EXISTS (
                     SELECT FROM {} AS event WHERE event.tenant_id = run.tenant_id AND event.agent_run_id = run.id)
             ) AND $1::timestamptz IS NOT NULL AS is_free",
            self.name
        );
        let free: Free = one(db, &statement, [before.into(), self.ends.into()]).await?;
        Ok(free.is_free)
    }
}

/// A run whose events are given up and still there.
#[derive(FromQueryResult)]
struct Left {
    id: i64,
    tenant_id: i64,
    last_seq: i64,
    purged_at: DateTime<Utc>,
}

/// Positions of a run that are deleted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    tenant_id: i64,
    run_id: i64,
    after: i64,
    upto: i64,
    purged_at: DateTime<Utc>,
}

/// The positions of runs in batches of at most [`EVENTS`].
fn slices(left: &[Left]) -> Vec<Vec<Slice>> {
    let (mut batches, mut batch, mut room) = (Vec::new(), Vec::new(), EVENTS);
    for run in left {
        let mut after = 0;
        while after < run.last_seq {
            let upto = run.last_seq.min(after + room);
            let Left { id, tenant_id, purged_at, .. } = *run;
            batch.push(Slice { tenant_id, run_id: id, after, upto, purged_at });
            room -= upto - after;
            after = upto;
            if room == 0 {
                batches.push(std::mem::take(&mut batch));
                room = EVENTS;
            }
        }
    }
    batches.push(batch);
    batches.retain(|batch| !batch.is_empty());
    batches
}

async fn one<T: FromQueryResult>(
    db: &impl ConnectionTrait,
    statement: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<T> {
    let row = db.query_one_raw(sql(statement, values)).await.map_err(|error| unnamed(PURGE, &error))?;
    let none = || Error::new(ErrorKind::Unexpected, PURGE, "the database gave no answer");
    T::from_query_result(&row.ok_or_else(none)?, "").map_err(|error| unnamed(PURGE, &error))
}

/// Waits for others who do the same, and not long for anybody else.
async fn patience(tx: &impl ConnectionTrait) -> Result<(), DbErr> {
    let text = format!(
        "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({}); SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
        PgStorage::MIGRATION_LOCK
    );
    tx.execute_unprepared(&text).await.map(|_| ())
}

/// Makes the tables of this month and the next ones, where they are missing; gives their names.
async fn add_months(tx: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let statement =
        "SELECT name FROM agent_events_missing_months($1) AS name WHERE agent_events_add_month(name)";
    let rows = tx.query_all_raw(sql(statement, [AHEAD.into()])).await?;
    rows.iter().map(|row| row.try_get("", "name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_positions_are_bounded_and_miss_nothing() {
        let purged_at = DateTime::UNIX_EPOCH;
        let left = |id, last_seq| Left { id, tenant_id: 1, last_seq, purged_at };
        let batches = slices(&[left(1, 4_000), left(2, 0), left(3, 25_000), left(4, 1)]);
        let sizes: Vec<i64> =
            batches.iter().map(|batch| batch.iter().map(|slice| slice.upto - slice.after).sum()).collect();
        assert_eq!(sizes, [10_000, 10_000, 9_001]);
        let third: Vec<_> = batches
            .iter()
            .flatten()
            .filter(|slice| slice.run_id == 3)
            .map(|slice| (slice.after, slice.upto))
            .collect();
        assert_eq!(third, [(0, 6_000), (6_000, 16_000), (16_000, 25_000)]);
        assert!(slices(&[]).is_empty());
    }
}
