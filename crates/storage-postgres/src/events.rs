//! The append-only log.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use lime_core::identity::Tenant;
use lime_core::ports::{EventLog, EventStream, Live};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunEvent, Seq};
use lime_core::{Entity, Error, ErrorKind, Follower, Id, LiveHub, Result, Scope};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, JsonValue, QueryResult, Value};
use tracing::Instrument;

use crate::PgStorage;
use crate::error::unnamed;
use crate::fence::{LEASED, key};
use crate::storage::{span, sql};

/// Recorded events as the two arrays that `UNNEST` takes apart again: types and payloads.
pub(crate) struct Batch {
    types: Vec<String>,
    payloads: Vec<String>,
    events: Vec<AgentEvent>,
}

impl Batch {
    /// Those that are recorded, bounded; ephemeral ones are left out.
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

    /// Appends them after a position that the caller has just taken, in its transaction.
    pub(crate) async fn insert(
        self,
        db: &impl ConnectionTrait,
        tenant: Id<Tenant>,
        run: &AgentRun,
        id: Id<AgentRun>,
    ) -> Result<(), DbErr> {
        let base = run.last_seq - self.len();
        let statement = sql(
            "INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
             SELECT $1, $2, $3, $4 + event.position, clock_timestamp(), event.type, event.payload::jsonb
             FROM UNNEST($5, $6) WITH ORDINALITY AS event (type, payload, position)",
            [
                tenant.raw().into(),
                id.raw().into(),
                run.attempt_id.map(Id::raw).into(),
                base.into(),
                self.types.into(),
                self.payloads.into(),
            ],
        );
        db.execute_raw(statement).await.map(|_| ())
    }
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

#[async_trait]
impl EventLog for PgStorage {
    async fn append(&self, lease: &Lease, events: Vec<AgentEvent>) -> Result<Vec<RunEvent>> {
        const OPERATION: &str = "events.append";
        let (ephemeral, lasting): (Vec<_>, Vec<_>) = events.into_iter().partition(AgentEvent::is_ephemeral);
        let batch = Batch::of(lasting);
        let count = batch.len();
        let more: [Value; 3] = [count.into(), batch.types.into(), batch.payloads.into()];
        // The run's row is locked by the update, so positions have no gap and times do not fall.
        let statement = format!(
            "WITH leased AS (
                 UPDATE agent_runs SET last_seq = last_seq + $4 WHERE {} RETURNING tenant_id, id, attempt_id, last_seq
             ), recorded AS (
                 INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, seq, ts, type, payload_json)
                 SELECT leased.tenant_id, leased.id, leased.attempt_id, leased.last_seq - $4 + event.position,
                        clock_timestamp(), event.type, event.payload::jsonb
                 FROM leased, UNNEST($5, $6) WITH ORDINALITY AS event (type, payload, position)
                 RETURNING seq, ts
             )
             SELECT recorded.seq, recorded.ts FROM leased LEFT JOIN recorded ON true ORDER BY recorded.seq",
            *LEASED
        );
        let rows = self
            .connection()
            .query_all_raw(sql(statement, key(lease, more)))
            .instrument(span(OPERATION, lease.tenant, "agent_events"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?;
        if rows.is_empty() {
            return Err(Error::stale_lease(OPERATION, lease));
        }
        let place = |(row, event): (&QueryResult, AgentEvent)| -> Result<RunEvent, DbErr> {
            Ok(RunEvent {
                run_id: lease.run,
                seq: row.try_get("", "seq")?,
                ts: row.try_get("", "ts")?,
                event,
            })
        };
        let recorded = rows.iter().zip(batch.events).map(place).collect::<Result<Vec<_>, _>>();
        let recorded = recorded.map_err(|error| unnamed(OPERATION, &error))?;
        if !recorded.is_empty() {
            self.hub().recorded(lease.run);
        }
        if !ephemeral.is_empty() {
            self.hub().ephemeral(lease.run, ephemeral);
        }
        Ok(recorded)
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        const OPERATION: &str = "events.read";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // A run without such events gives one row of nulls, a run that is not there gives none.
        let statement = "SELECT event.seq, event.ts, event.type, event.payload_json
             FROM agent_runs AS run LEFT JOIN LATERAL (
                 SELECT seq, ts, type, payload_json FROM agent_events
                 WHERE tenant_id = run.tenant_id AND agent_run_id = run.id AND seq > $3
                 ORDER BY seq LIMIT $4
             ) AS event ON true
             WHERE run.tenant_id = $1 AND run.id = $2
             ORDER BY event.seq";
        let values = [scope.tenant().raw().into(), run.raw().into(), after.into(), limit.into()];
        let rows = self
            .connection()
            .query_all_raw(sql(statement, values))
            .instrument(span(OPERATION, scope.tenant(), "agent_events"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?;
        if rows.is_empty() {
            return Err(Error::not_found(OPERATION, AgentRun::NAME, run));
        }
        rows.iter().filter_map(|row| recorded(OPERATION, run, row).transpose()).collect()
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        let follower = LiveHub::follow(self.clone(), run);
        follow(self.clone(), scope.clone(), run, after, follower)
    }
}

impl PgStorage {
    /// Reads a page to its end even while nobody polls the stream, which may last: a connection that such a stream
    /// held could be the only one.
    async fn page(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        let (this, scope) = (self.clone(), scope.clone());
        let work = async move { this.read(&scope, run, after, limit).await };
        self.detached("events.subscribe", tracing::Span::current(), work).await
    }
}

/// Reads the log page by page; at its end, waits for news of this process, or for the time to look for others'.
fn follow(
    storage: PgStorage,
    scope: Scope,
    run: Id<AgentRun>,
    after: Seq,
    follower: Follower<PgStorage>,
) -> EventStream {
    const PAGE: usize = 256;
    stream::unfold(Some((follower, after)), move |state| {
        let (storage, scope) = (storage.clone(), scope.clone());
        async move {
            let (mut follower, after) = state?;
            loop {
                let page = match storage.page(&scope, run, after, PAGE).await {
                    Ok(page) => page,
                    Err(error) => return Some((vec![Err(error)], None)),
                };
                if let Some(last) = page.last() {
                    let next = (!last.event.is_final()).then_some((follower, last.seq));
                    return Some((page.into_iter().map(|event| Ok(Live::Recorded(event))).collect(), next));
                }
                let news = tokio::time::timeout(storage.live_poll(), follower.changed()).await;
                let ephemeral = news.unwrap_or_default();
                if !ephemeral.is_empty() {
                    let items =
                        ephemeral.into_iter().map(|event| Ok(Live::Ephemeral(event))).collect::<Vec<_>>();
                    return Some((items, Some((follower, after))));
                }
            }
        }
    })
    .flat_map(stream::iter)
    .boxed()
}
