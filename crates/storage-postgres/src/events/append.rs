//! Appending, for many runs at once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use lime_core::ports::Record;
use lime_core::runs::{AgentEvent, Lease, RunEvent, Seq};
use lime_core::{Error, Invalid, Result};
use sea_orm::sqlx::postgres::PgRow;
use sea_orm::sqlx::{self, Row};

use super::Batch;
use super::known::Known;
use crate::batch::{Batcher, together};
use crate::connections::Connections;
use crate::error::{driver, unnamed};
use crate::fence;
use crate::news::News;
use crate::storage::Base;

pub(super) const OPERATION: &str = "events.append";
/// How many batches are written at once. With more of them each is smaller, and the time of a batch is not in its
/// events.
const LANES: usize = 2;
/// How many records are written at once,
const MOST: usize = 500;
/// and how many bytes they may have together.
const MOST_BYTES: usize = 4 << 20;

/// Appends to the logs of many runs by few statements.
///
/// - The records of one run are written in the order in which they were given, as each run has its lane, and a lane
///   writes one batch after the other.
pub(crate) struct Appender(Vec<Batcher<Item, Vec<RunEvent>>>);

impl Appender {
    /// Each lane has a connection while it writes.
    pub(crate) fn new(base: &Base) -> Self {
        let lane = |_| {
            let base = base.clone();
            let write = move |items| write(base.clone(), items);
            Batcher::weighed(OPERATION, MOST, MOST_BYTES, |item: &Item| item.bytes, 1, write)
        };
        Self((0..base.in_flight.min(LANES)).map(lane).collect())
    }

    pub(crate) async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        let item = Item::of(lease, record)?;
        let lane = lease.run.raw().unsigned_abs() % self.0.len() as u64;
        let lane = usize::try_from(lane).expect("it is less than the number of lanes");
        self.0[lane].call(item).await
    }
}

/// One record, ready to be written.
struct Item {
    lease: Lease,
    batch: Batch,
    /// Of all its events in their order, which are not recorded.
    is_ephemeral: Vec<bool>,
    ephemeral: Vec<AgentEvent>,
    known: Option<Box<Known>>,
    bytes: usize,
}

impl Item {
    fn of(lease: &Lease, record: Record) -> Result<Self> {
        let is_ephemeral = record.events.iter().map(AgentEvent::is_ephemeral).collect();
        let (ephemeral, lasting): (Vec<_>, Vec<_>) =
            record.events.into_iter().partition(AgentEvent::is_ephemeral);
        let known = Known::of(lease, record.step, record.steps, record.tool_calls, record.progress)?;
        let batch = Batch::of(lasting);
        let bytes = batch.payloads.iter().map(String::len).sum::<usize>();
        let bytes = bytes + known.as_ref().map_or(0, |known| known.bytes());
        Ok(Self { lease: *lease, batch, is_ephemeral, ephemeral, known, bytes })
    }

    /// Whether it writes nothing, and only asks whether the lease holds.
    fn is_question(&self) -> bool {
        self.batch.events.is_empty() && self.known.as_ref().is_none_or(|known| known.has_no_rows())
    }

    /// Hands its events over to those who follow the run.
    fn recorded(self, after: Seq, ts: DateTime<Utc>, news: &News) -> Vec<RunEvent> {
        let run_id = self.lease.run;
        let placed = self.batch.events.into_iter().zip(after + 1..);
        let recorded: Vec<_> = placed.map(|(event, seq)| RunEvent { run_id, seq, ts, event }).collect();
        news.appended(run_id, &self.is_ephemeral, &recorded, self.ephemeral);
        recorded
    }
}

/// What came of an item.
#[derive(Clone, Copy)]
enum Written {
    /// Its events come after this position, at this time.
    After(Seq, DateTime<Utc>),
    /// The lease is lost, and nothing was written.
    Stale,
    /// It, or another record of its run in the same batch, names a step that is not there, and nothing was written.
    NoStep,
}

async fn write(base: Base, items: Vec<Item>) -> Vec<Result<Vec<RunEvent>>> {
    let db = &base.db;
    let mut written = together(&items, |items| write_all(db, items).boxed()).await;
    if items.len() > 1 {
        for (item, written) in items.iter().zip(&mut written) {
            if let Ok(Written::NoStep) = written {
                let alone = write_all(db, std::slice::from_ref(item)).await;
                *written = alone.map(|one| one.first().copied().unwrap_or(Written::Stale));
            }
        }
    }
    let answer = |(item, written): (Item, Result<Written>)| match written? {
        Written::After(after, ts) => Ok(item.recorded(after, ts, &base.news)),
        Written::Stale => Err(Error::stale_lease(OPERATION, &item.lease)),
        Written::NoStep => {
            let key = item.known.as_ref().and_then(|known| known.step()).unwrap_or_default();
            Err(Invalid::new("step", format!("the run has no step {key}")).refused(OPERATION, "record"))
        }
    };
    items.into_iter().zip(written).map(answer).collect()
}

/// The records of one lease, as one.
pub(super) struct Entry<'a> {
    pub(super) lease: Lease,
    items: Vec<(usize, &'a Item)>,
}

impl<'a> Entry<'a> {
    /// Sorted by run: whoever locks several rows of `run_leases` does so in the order of their ids.
    fn all(items: impl Iterator<Item = (usize, &'a Item)>) -> Vec<Self> {
        let mut entries = BTreeMap::new();
        for (place, item) in items {
            let Lease { tenant, run, attempt } = item.lease;
            let entry = entries.entry((run, attempt, tenant));
            entry.or_insert_with(|| Self { lease: item.lease, items: Vec::new() }).items.push((place, item));
        }
        entries.into_values().collect()
    }

    fn count(&self) -> Seq {
        self.items.iter().map(|(_, item)| item.batch.len()).sum()
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &'a Known> {
        self.items.iter().filter_map(|(_, item)| item.known.as_deref())
    }
}

async fn write_all(db: &Connections, items: &[Item]) -> Result<Vec<Written>> {
    let mut written = vec![Written::Stale; items.len()];
    let (asking, writing): (Vec<_>, Vec<_>) =
        items.iter().enumerate().partition(|(_, item)| item.is_question());
    let asking = Entry::all(asking.into_iter());
    if !asking.is_empty() {
        let held = fetch(db, Leases::of(&asking).bind(sqlx::query(ASK.as_str()))).await?;
        for row in held {
            let lease: i64 = row.try_get("lease").map_err(broken)?;
            let ts = row.try_get("ts").map_err(broken)?;
            for (place, _) in entry(&asking, lease).into_iter().flat_map(|entry| &entry.items) {
                written[*place] = Written::After(0, ts);
            }
        }
    }
    let writing = Entry::all(writing.into_iter());
    if !writing.is_empty() {
        for row in insert(db, &writing).await? {
            let lease: i64 = row.try_get("lease").map_err(broken)?;
            let entry = entry(&writing, lease);
            let is_complete: bool = row.try_get("is_complete").map_err(broken)?;
            let mut after: Seq = row.try_get("last_seq").map_err(broken)?;
            let ts = row.try_get("ts").map_err(broken)?;
            for (place, item) in entry.into_iter().flat_map(|entry| &entry.items) {
                written[*place] = if is_complete { Written::After(after, ts) } else { Written::NoStep };
                after += item.batch.len();
            }
        }
    }
    Ok(written)
}

/// The entry of a number from SQL's `WITH ORDINALITY`, from 1.
fn entry<'a, 'b>(entries: &'b [Entry<'a>], number: i64) -> Option<&'b Entry<'a>> {
    number.checked_sub(1).and_then(|number| entries.get(usize::try_from(number).ok()?))
}

fn broken(error: sqlx::Error) -> Error {
    unnamed(OPERATION, &driver(error))
}

pub(super) type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

async fn fetch(db: &Connections, query: Query<'_>) -> Result<Vec<PgRow>> {
    db.fetch_all(query).await.map_err(|error| unnamed(OPERATION, &error))
}

/// Leases and how many events each appends, as `$1` to `$4`.
#[derive(Default)]
struct Leases {
    tenants: Vec<i64>,
    runs: Vec<i64>,
    tokens: Vec<i64>,
    counts: Vec<i64>,
}

impl Leases {
    fn of(entries: &[Entry<'_>]) -> Self {
        let mut leases = Self::default();
        for entry in entries {
            leases.tenants.push(entry.lease.tenant.raw());
            leases.runs.push(entry.lease.run.raw());
            leases.tokens.push(entry.lease.attempt.raw());
            leases.counts.push(entry.count());
        }
        leases
    }

    fn bind(self, query: Query<'_>) -> Query<'_> {
        query.bind(self.tenants).bind(self.runs).bind(self.tokens).bind(self.counts)
    }
}

/// The first array of each `UNNEST` is behind a `SELECT`, so that the planner cannot see how long it is: it then makes
/// one plan for all lengths and keeps it, instead of a new one with each call, which takes longer than the call.
const GIVEN: &str =
    "UNNEST((SELECT $1), $2, $3, $4) WITH ORDINALITY AS given (tenant_id, run_id, token, count, lease)";
/// Which leases hold; nothing is locked.
static ASK: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT given.lease, clock_timestamp() AS ts FROM {GIVEN} {}",
        fence::places("place.run_id", fence::HELD, "LIMIT 1")
    )
});

/// The leases that hold, with their places.
pub(super) static LOCKED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "held AS MATERIALIZED (
             SELECT given.lease, given.count, clock_timestamp() AS ts, place.* FROM {GIVEN} {}
         )",
        fence::places("place.*", fence::HELD, "FOR NO KEY UPDATE")
    )
});

/// Moves the positions of the logs of what `from` has.
pub(super) fn counted(from: &str) -> String {
    fence::change(from, &[("last_seq", "last_seq + count")])
}

/// Events alone, which is nearly all that is ever written.
static EVENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH {}, counted AS (
             {}
         ), recorded AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
             SELECT held.tenant_id, held.run_id, held.token, held.last_seq + event.place, held.ts, event.type,
                    event.payload::jsonb
             FROM UNNEST((SELECT $5), $6, $7, $8) AS event (lease, place, type, payload)
             JOIN held ON held.lease = event.lease
             ORDER BY event.lease, event.place
         )
         SELECT lease, true AS is_complete, last_seq, ts FROM held",
        *LOCKED,
        counted("held")
    )
});

/// The events of all entries, as arrays.
#[derive(Default)]
struct Events<'a> {
    leases: Vec<i64>,
    places: Vec<i64>,
    types: Vec<&'a str>,
    payloads: Vec<&'a str>,
    /// The key of the step that each belongs to.
    steps: Vec<Option<&'a str>>,
}

impl<'a> Events<'a> {
    fn of(entries: &[Entry<'a>]) -> Self {
        let mut events = Self::default();
        for (entry, lease) in entries.iter().zip(1..) {
            let mut place = 0;
            for (_, item) in &entry.items {
                let step = item.known.as_ref().and_then(|known| known.step());
                for (kind, payload) in item.batch.types.iter().zip(&item.batch.payloads) {
                    place += 1;
                    events.leases.push(lease);
                    events.places.push(place);
                    events.types.push(kind);
                    events.payloads.push(payload);
                    events.steps.push(step);
                }
            }
        }
        events
    }
}

async fn insert(db: &Connections, entries: &[Entry<'_>]) -> Result<Vec<PgRow>> {
    let events = Events::of(entries);
    let plain = entries.iter().all(|entry| entry.known().next().is_none());
    let statement = if plain { EVENTS.as_str() } else { super::known::EVERYTHING.as_str() };
    let query = Leases::of(entries).bind(sqlx::query(statement));
    let query = query.bind(events.leases).bind(events.places).bind(events.types).bind(events.payloads);
    if plain {
        return fetch(db, query).await;
    }
    fetch(db, super::known::bind(query.bind(events.steps), entries)).await
}
