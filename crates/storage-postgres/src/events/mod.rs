//! The append-only log.

mod append;
mod follow;
mod known;

use std::sync::LazyLock;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lime_core::identity::Tenant;
use lime_core::ports::{EventLog, EventStream, Record};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunEvent, RunStatus, Seq};
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, JsonValue, QueryResult};
use tracing::Instrument;

pub(crate) use self::append::Appender;
use crate::PgStorage;
use crate::error::unnamed;
use crate::fence::words;
use crate::storage::{span, sql};

/// Events on their way into the log, bounded; ephemeral ones are left out.
pub(crate) struct Batch {
    types: Vec<String>,
    payloads: Vec<String>,
    events: Vec<AgentEvent>,
}

impl Batch {
    pub(crate) fn of(events: impl IntoIterator<Item = AgentEvent>) -> Self {
        let lasting = events.into_iter().filter(|event| !event.is_ephemeral());
        let events: Vec<_> = lasting.map(AgentEvent::bounded).collect();
        Self {
            types: events.iter().map(|event| event.type_name().to_owned()).collect(),
            payloads: events.iter().map(payload).collect(),
            events,
        }
    }

    pub(crate) fn len(&self) -> Seq {
        Seq::try_from(self.events.len()).expect("a batch in memory is far shorter than 2^63")
    }
}

/// The place in a run's log that a transaction has taken for events: it has locked the run's place, or has
/// just made or deleted it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) tenant: Id<Tenant>,
    pub(crate) run: Id<AgentRun>,
    /// The attempt that they belong to, if there was one.
    pub(crate) attempt: Option<i64>,
    /// The position of the last event before them.
    pub(crate) after: Seq,
}

/// Appends the events of several runs in one statement, in the caller's transaction; gives them as they were recorded,
/// for [`News::recorded`](crate::news::News::recorded) after the commit.
pub(crate) async fn record(
    db: &impl ConnectionTrait,
    batches: Vec<(Place, Batch)>,
) -> Result<Vec<(Id<AgentRun>, Vec<RunEvent>)>, DbErr> {
    let count = batches.iter().map(|(_, batch)| batch.events.len()).sum();
    if count == 0 {
        return Ok(batches.into_iter().map(|(place, _)| (place.run, Vec::new())).collect());
    }
    let (mut tenants, mut runs, mut attempts, mut seqs) = (
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
        Vec::with_capacity(count),
    );
    let (mut types, mut payloads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut events = Vec::with_capacity(batches.len());
    for (place, batch) in batches {
        for seq in (place.after + 1..).take(batch.events.len()) {
            tenants.push(place.tenant.raw());
            runs.push(place.run.raw());
            // An array of the driver has no nulls.
            attempts.push(place.attempt.unwrap_or(0));
            seqs.push(seq);
        }
        types.extend(batch.types);
        payloads.extend(batch.payloads);
        events.push((place, batch.events));
    }
    // One time for all of them: it is taken under the locks, so times do not fall within a run.
    let statement = "WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS ts), recorded AS (
            INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
            SELECT event.tenant_id, event.run_id, nullif(event.attempt_id, 0), event.seq, clock.ts, event.type,
                   event.payload::jsonb
            FROM clock, UNNEST((SELECT $1), $2, $3, $4, $5, $6)
                AS event (tenant_id, run_id, attempt_id, seq, type, payload)
            ORDER BY event.run_id, event.seq
        )
        SELECT ts FROM clock";
    let values = [tenants.into(), runs.into(), attempts.into(), seqs.into(), types.into(), payloads.into()];
    let row = db.query_one_raw(sql(statement, values)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the database's clock".into()))?;
    let ts: DateTime<Utc> = row.try_get("", "ts")?;
    let recorded = events.into_iter().map(|(place, events)| {
        let placed = events.into_iter().zip(place.after + 1..);
        let recorded = placed.map(|(event, seq)| RunEvent { run_id: place.run, seq, ts, event });
        (place.run, recorded.collect())
    });
    Ok(recorded.collect())
}

pub(crate) fn payload(event: &AgentEvent) -> String {
    serde_json::to_string(event).expect("events are plain values with text keys, which always become JSON")
}

fn event(kind: Option<&str>, payload: JsonValue) -> Result<AgentEvent, serde_json::Error> {
    match kind {
        // What came as unknown stays so, even if this version knows its type.
        Some("unknown") => Ok(AgentEvent::Unknown(payload)),
        _ => serde_json::from_value(payload),
    }
}

/// The columns of one event, as read.
#[derive(FromQueryResult)]
struct Columns {
    seq: Option<Seq>,
    ts: Option<DateTime<Utc>>,
    r#type: Option<String>,
    payload_json: Option<JsonValue>,
}

fn recorded(operation: &'static str, run: Id<AgentRun>, row: &QueryResult) -> Result<Option<RunEvent>> {
    let columns = Columns::from_query_result(row, "").map_err(|error| unnamed(operation, &error))?;
    let (Some(seq), Some(ts)) = (columns.seq, columns.ts) else { return Ok(None) };
    let event = event(columns.r#type.as_deref(), columns.payload_json.unwrap_or_default()).map_err(|_| {
        let message = "a stored event cannot be read by this version";
        Error::new(ErrorKind::Corrupt, operation, message).with("run", run).with("seq", seq)
    })?;
    Ok(Some(RunEvent { run_id: run, seq, ts, event }))
}

/// The states after which nothing comes.
static FINAL: LazyLock<String> =
    LazyLock::new(|| words(RunStatus::ALL.iter().copied().filter(|status| status.is_final())));

/// A page of a log.
pub(crate) struct Page {
    pub(crate) events: Vec<RunEvent>,
    /// Whether nothing comes after it: the run has ended, and the page reaches to its end.
    pub(crate) is_end: bool,
}

/// Up to `limit` events of a run after a position.
pub(crate) async fn page(
    db: &impl ConnectionTrait,
    tenant: Id<Tenant>,
    run: Id<AgentRun>,
    after: Seq,
    limit: usize,
) -> Result<Page> {
    const OPERATION: &str = "events.read";
    // No event is older than its run, so the months before need not be looked at; a day for clocks that were set back.
    let statement = format!(
        "SELECT event.*, run.status IN ({}) AS has_ended FROM agent_runs AS run LEFT JOIN LATERAL (
             SELECT seq, ts, type, payload_json FROM agent_events
             WHERE tenant_id = run.tenant_id AND agent_run_id = run.id AND seq > $3 AND ts >= run.created_at - interval '1 day'
             ORDER BY seq LIMIT $4
         ) AS event ON true
         WHERE run.tenant_id = $1 AND run.id = $2
         ORDER BY event.seq",
        *FINAL
    );
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = [tenant.raw().into(), run.raw().into(), after.into(), most.into()];
    let rows = db
        .query_all_raw(sql(statement, values))
        .instrument(span(OPERATION, tenant, "agent_events"))
        .await
        .map_err(|error| unnamed(OPERATION, &error))?;
    let Some(first) = rows.first() else {
        return Err(Error::not_found(OPERATION, AgentRun::NAME, run));
    };
    let has_ended: bool = first.try_get("", "has_ended").map_err(|error| unnamed(OPERATION, &error))?;
    let events = rows.iter().filter_map(|row| recorded(OPERATION, run, row).transpose());
    let events = events.collect::<Result<Vec<_>>>()?;
    Ok(Page { is_end: has_ended && events.len() < limit, events })
}

#[async_trait]
impl EventLog for PgStorage {
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        self.appender().append(lease, record).await
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        page(&self.connection_of(scope), scope.tenant(), run, after, limit).await.map(|page| page.events)
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        follow::subscribe(self.clone(), scope.clone(), run, after)
    }
}
