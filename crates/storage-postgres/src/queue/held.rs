//! Runs whose rows a transaction has locked, what becomes of them, and how that is written: the place in the line
//! first, then the run, always in the order of their ids, so that no two transactions wait for each other.

use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use lime_core::identity::Tenant;
use lime_core::ports::Settlement;
use lime_core::runs::{
    AgentEvent, AgentRun, AttemptEnd, Outcome, RunAttempt, RunEvent, RunSignal, RunStatus, Seq,
};
use lime_core::{Error, ErrorKind, Id, Result, Stored, Topic};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult, Value};
use serde_json::json;

use crate::error::{Doing, about, unnamed};
use crate::events::{self, Batch, Place};
use crate::fence::FEW;
use crate::nul;
use crate::storage::{Base, sql};
use crate::store::read;
use crate::tables::agent_run::{Model, count};

/// A run whose rows the transaction has locked.
pub(super) struct Held {
    pub(super) tenant: Id<Tenant>,
    pub(super) run: Stored<AgentRun>,
    /// The database's time, once it was locked.
    pub(super) now: DateTime<Utc>,
    /// The attempt that works it, if one does.
    pub(super) token: Option<Id<RunAttempt>>,
    /// Nothing was said since its state last changed.
    pub(super) said_nothing: bool,
    /// The state that it was found in.
    found: RunStatus,
    then: Then,
    attempt_end: Option<(AttemptEnd, Option<String>)>,
    events: Vec<AgentEvent>,
}

/// What becomes of a run's place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays with its worker, who is told what was asked.
    Stays,
    /// It waits for a worker, at once or from a time on.
    Waits(Option<DateTime<Utc>>),
    /// It is on hold.
    Paused,
    /// It is given up.
    Gone,
}

/// A run as it was written, and what its log tells of it.
pub(super) struct Saved {
    pub(super) stored: Stored<AgentRun>,
    pub(super) events: Vec<RunEvent>,
    then: Then,
}

/// Which places are locked, with their runs.
pub(super) struct Which<'a> {
    pub(super) table: &'static str,
    /// What `given` is, sorted by run, if each place is looked up by itself, as [`places`](crate::fence::places) says.
    pub(super) given: Option<&'a str>,
    /// What is true of each `place`.
    pub(super) condition: &'a str,
    /// Those that others have locked are left out, and not waited for.
    pub(super) skip_locked: bool,
}

/// Locks runs and their places; one that cannot be read is an error by itself.
pub(super) async fn lock(
    db: &impl ConnectionTrait,
    operation: &'static str,
    Which { table, given, condition, skip_locked }: Which<'_>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<(Id<AgentRun>, Result<Held>)>> {
    let token =
        if table == "run_leases" { "CASE WHEN place.started THEN place.token END" } else { "NULL::bigint" };
    let order = if given.is_some() { "" } else { "ORDER BY place.run_id" };
    let waiting = if skip_locked { "SKIP LOCKED" } else { "" };
    let mut statement = format!(
        "SELECT run.*, {token} AS place_token, place.last_seq AS place_last_seq, clock_timestamp() AS clock
         FROM {table} AS place JOIN agent_runs AS run ON run.id = place.run_id
         WHERE {condition} {order} FOR UPDATE OF place {waiting} FOR NO KEY UPDATE OF run {waiting}"
    );
    if let Some(given) = given {
        statement =
            format!("SELECT held.* FROM {given} CROSS JOIN LATERAL ({statement}) AS held WHERE {FEW}");
    }
    let rows = db.query_all_raw(sql(statement, values)).await;
    let rows = rows.map_err(|error| unnamed(operation, &error))?;
    rows.iter().map(|row| of_row(operation, row)).collect()
}

/// Locks a run that has no place in the line.
pub(super) async fn lock_placeless(
    db: &impl ConnectionTrait,
    operation: &'static str,
    tenant: Id<Tenant>,
    run: Id<AgentRun>,
) -> Result<Option<Held>> {
    let statement = "SELECT run.*, NULL::bigint AS place_token, run.last_seq AS place_last_seq,
             clock_timestamp() AS clock
         FROM agent_runs AS run WHERE run.tenant_id = $1 AND run.id = $2 FOR NO KEY UPDATE";
    let row = db.query_one_raw(sql(statement, [tenant.raw().into(), run.raw().into()])).await;
    let row = row.map_err(|error| unnamed(operation, &error))?;
    row.map(|row| of_row(operation, &row)?.1).transpose()
}

fn of_row(operation: &'static str, row: &QueryResult) -> Result<(Id<AgentRun>, Result<Held>)> {
    let columns = || -> Result<_, DbErr> {
        let token: Option<i64> = row.try_get("", "place_token")?;
        let last_seq: Seq = row.try_get("", "place_last_seq")?;
        Ok((Model::from_query_result(row, "")?, token, last_seq, row.try_get("", "clock")?))
    };
    let (model, token, last_seq, now) = columns().map_err(|error| unnamed(operation, &error))?;
    let (id, tenant) = (Id::new(model.id), Id::new(model.tenant_id));
    let held = read::<AgentRun>(operation, model).map(|mut run| {
        let said_nothing = run.last_seq == last_seq;
        run.value.last_seq = last_seq;
        let (found, token) = (run.status, token.map(Id::new));
        let (then, attempt_end, events) = (Then::Stays, None, Vec::new());
        Held { tenant, run, now, token, said_nothing, found, then, attempt_end, events }
    });
    Ok((id, held))
}

impl Held {
    pub(super) fn signal(
        &mut self,
        operation: &'static str,
        signal: RunSignal,
        then: Then,
        detail: Option<String>,
    ) -> Result<()> {
        let status = self.run.status.after(signal).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, operation, illegal.to_string()).with("run", self.run.id)
        })?;
        self.run.value.status = status;
        self.run.value.ended_at = status.is_final().then_some(self.now);
        self.then = then;
        self.events.push(AgentEvent::Status { status, detail });
        Ok(())
    }

    pub(super) fn say(&mut self, events: Vec<AgentEvent>) {
        self.events.extend(events);
    }

    pub(super) fn end_attempt(&mut self, end: AttemptEnd, error: Option<String>) {
        self.attempt_end = Some((end, error));
    }

    /// Ends the run.
    pub(super) fn close(&mut self, operation: &'static str, settlement: Settlement) -> Result<()> {
        let signal = settlement.outcome.signal();
        if self.found == RunStatus::WaitingApproval && self.found.after(signal).is_err() {
            // With its end its questions are void, so it does not wait any more.
            self.signal(operation, RunSignal::Answer, Then::Stays, None)?;
        }
        let status = self.run.status;
        self.run.value.settle(&settlement);
        self.run.value.status = status;
        self.say(settlement.events);
        self.signal(operation, signal, Then::Gone, None)
    }

    /// Cancels the run, which nobody works any more.
    pub(super) fn cancel(&mut self, operation: &'static str) -> Result<()> {
        self.run.value.stop_reason = Some((&Outcome::Cancelled).into());
        self.signal(operation, RunSignal::Cancel, Then::Gone, None)
    }

    /// Puts the run down that has no worker any more: cancelled or paused if that was asked for, else as said.
    pub(super) fn put_down(
        &mut self,
        operation: &'static str,
        then: Then,
        detail: Option<String>,
    ) -> Result<()> {
        if self.run.cancel_requested_at.is_some() {
            self.cancel(operation)
        } else if self.run.pause_requested_at.is_some() {
            self.signal(operation, RunSignal::Pause, Then::Paused, None)
        } else {
            self.signal(operation, RunSignal::HandBack, then, detail)
        }
    }

    /// What is written of it, by the names of [`SAVE`].
    fn columns(&self, last_seq: Seq) -> serde_json::Value {
        let run = &self.run.value;
        let failure = run.failure.as_ref();
        let (state, due_at) = match self.then {
            Then::Waits(Some(from)) if from > self.now => (Some(1), Some(from)),
            Then::Waits(_) => (Some(0), None),
            Then::Paused => (Some(2), None),
            Then::Stays | Then::Gone => (None, None),
        };
        let (outcome, attempt_error) = self.attempt_end.clone().unzip();
        json!({
            "tenant_id": self.tenant.raw(),
            "run_id": self.run.id.raw(),
            "now": self.now,
            "found": self.found,
            "status": run.status,
            "stop_reason": run.stop_reason,
            "error": failure.map(|failure| nul::text(failure.message.clone())),
            "error_type": failure.map(|failure| failure.kind),
            "error_retry_at": failure.and_then(|failure| failure.retry_at),
            "output_summary": run.output_summary.clone().map(nul::text),
            "artifacts": nul::json(json!(run.artifacts)),
            "turns": run.usage.turns,
            "input_tokens": count(run.usage.input_tokens),
            "cached_input_tokens": count(run.usage.cached_input_tokens),
            "cache_write_tokens": count(run.usage.cache_write_tokens),
            "output_tokens": count(run.usage.output_tokens),
            "tool_calls": nul::json(json!(run.tool_calls)),
            "cost_micros": run.usage.cost.unwrap_or_default().0.max(0),
            "cost_known": run.usage.cost.is_some(),
            "crash_count": run.crash_count,
            "failure_count": run.failure_count,
            "cancel_requested_at": run.cancel_requested_at,
            "pause_requested_at": run.pause_requested_at,
            "run_at": run.run_at,
            "last_seq": last_seq,
            "ended_at": run.ended_at,
            "attempt_id": run.attempt_id.map(Id::raw),
            "outcome": outcome,
            "attempt_error": attempt_error.flatten().map(nul::text),
            "stays": self.then == Then::Stays,
            "state": state,
            "due_at": due_at,
        })
    }
}

/// Writes runs, their attempts and their places; gives how many runs were in the state that they were found in.
///
/// - A place that is given up takes the open questions along: they become void.
static SAVE: LazyLock<String> = LazyLock::new(|| {
    format!("WITH given AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS given (
            tenant_id BIGINT, run_id BIGINT, now TIMESTAMPTZ, found TEXT, status TEXT, stop_reason TEXT, error TEXT,
            error_type TEXT, error_retry_at TIMESTAMPTZ, output_summary TEXT, artifacts JSONB, turns BIGINT,
            input_tokens BIGINT, cached_input_tokens BIGINT, cache_write_tokens BIGINT, output_tokens BIGINT,
            tool_calls JSONB, cost_micros BIGINT, cost_known BOOLEAN, crash_count INT, failure_count INT,
            cancel_requested_at TIMESTAMPTZ, pause_requested_at TIMESTAMPTZ, run_at TIMESTAMPTZ, last_seq BIGINT,
            ended_at TIMESTAMPTZ, attempt_id BIGINT, outcome TEXT, attempt_error TEXT, stays BOOLEAN,
            state SMALLINT, due_at TIMESTAMPTZ)
        WHERE {FEW}
    ), saved AS (
        UPDATE agent_runs AS run
        SET status = given.status, stop_reason = given.stop_reason, error = given.error, error_type = given.error_type,
            error_retry_at = given.error_retry_at, output_summary = given.output_summary,
            artifacts_json = given.artifacts, turn_count = given.turns, token_input_count = given.input_tokens,
            token_cached_input_count = given.cached_input_tokens, token_cache_write_count = given.cache_write_tokens,
            token_output_count = given.output_tokens, tool_calls = given.tool_calls, cost_micros = given.cost_micros,
            cost_known = given.cost_known, crash_count = given.crash_count, failure_count = given.failure_count,
            cancel_requested_at = given.cancel_requested_at, pause_requested_at = given.pause_requested_at,
            run_at = given.run_at, last_seq = given.last_seq, ended_at = given.ended_at,
            version = run.version + 1, updated_at = given.now
        FROM given
        WHERE run.id = given.run_id AND run.tenant_id = given.tenant_id AND run.status = given.found
        RETURNING run.id
    ), ended AS (
        UPDATE run_attempts AS attempt
        SET outcome = given.outcome, error = given.attempt_error, ended_at = given.now,
            version = attempt.version + 1, updated_at = given.now
        FROM given
        WHERE attempt.id = given.attempt_id AND attempt.run_id = given.run_id AND given.outcome IS NOT NULL
          AND attempt.outcome IS NULL
    ), told AS (
        UPDATE run_leases
        SET cancel_requested = run_id = ANY (ARRAY(SELECT run_id FROM given WHERE cancel_requested_at IS NOT NULL)),
            pause_requested = run_id = ANY (ARRAY(SELECT run_id FROM given WHERE pause_requested_at IS NOT NULL))
        WHERE run_id = ANY (ARRAY(SELECT run_id FROM given WHERE stays))
    ), given_up AS (
        DELETE FROM run_leases WHERE run_id = ANY (ARRAY(SELECT run_id FROM given WHERE NOT stays)) RETURNING *
    ), put_back AS (
        INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, inputs, last_seq, queued_at,
                               state, due_at)
        SELECT place.run_id, place.tenant_id, place.project_id, place.agent_id, place.provider, place.priority,
               place.inputs, given.last_seq, given.now, given.state, given.due_at
        FROM given_up AS place JOIN given USING (run_id) WHERE given.state IS NOT NULL
    ), put AS (
        UPDATE run_queue AS place
        SET state = given.state, due_at = given.due_at, queued_at = given.now, last_seq = given.last_seq
        FROM given
        WHERE place.run_id = given.run_id AND place.run_id = ANY (ARRAY(SELECT run_id FROM given WHERE state IS NOT NULL))
    ), gone AS (
        DELETE FROM run_queue WHERE run_id = ANY (ARRAY(SELECT run_id FROM given WHERE state IS NULL AND NOT stays))
    ), void AS (
        UPDATE approvals AS approval
        SET status = 'void', version = approval.version + 1, updated_at = given.now
        FROM given
        WHERE approval.tenant_id = given.tenant_id AND approval.run_id = given.run_id AND approval.status = 'pending'
          AND given.state IS NULL AND NOT given.stays
    )
    SELECT count(*) AS saved, EXISTS (
        SELECT FROM budget_reservations AS holding JOIN given
            ON holding.tenant_id = given.tenant_id AND holding.attempt_id = given.attempt_id
        WHERE NOT given.stays
    ) AS has_budgets
    FROM saved")
});

/// The attempts whose leases are over, and whether their runs end with them.
#[derive(Default)]
struct Over {
    tenants: Vec<i64>,
    attempts: Vec<i64>,
    ends: Vec<bool>,
}

impl Over {
    fn of(held: &[Held]) -> Self {
        let mut over = Self::default();
        for held in held.iter().filter(|held| held.then != Then::Stays) {
            if let Some(attempt) = held.run.attempt_id {
                over.tenants.push(held.tenant.raw());
                over.attempts.push(attempt.raw());
                over.ends.push(held.run.status.is_final());
            }
        }
        over
    }

    /// Frees what they hold of budgets.
    async fn free(self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        let values = [self.tenants.into(), self.attempts.into(), self.ends.into()];
        db.execute_raw(sql("SELECT budgets_free($1, $2, $3, TRUE)", values)).await.map(|_| ())
    }
}

/// Writes what has become of runs that this transaction has locked, and their events.
pub(super) async fn save(
    db: &impl ConnectionTrait,
    operation: &'static str,
    held: Vec<Held>,
) -> Result<Vec<Saved>> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let (mut columns, mut batches, mut saved) = (Vec::new(), Vec::new(), Vec::new());
    let over = Over::of(&held);
    for mut held in held {
        let batch = Batch::of(std::mem::take(&mut held.events));
        let after = held.run.last_seq;
        let last_seq = after + batch.len();
        columns.push(held.columns(last_seq));
        let Held { tenant, run: mut stored, now, then, .. } = held;
        batches
            .push((Place { tenant, run: stored.id, attempt: stored.attempt_id.map(Id::raw), after }, batch));
        stored.version += 1;
        stored.updated_at = now;
        stored.value.last_seq = last_seq;
        saved.push(Saved { stored, events: Vec::new(), then });
    }
    let given = serde_json::Value::from(columns);
    let row = db.query_one_raw(sql(SAVE.as_str(), [given.into()])).await;
    let row = row.map_err(|error| about::<AgentRun>(operation, Doing::Write, &error))?;
    let counts = |row: QueryResult| Ok((row.try_get("", "saved")?, row.try_get("", "has_budgets")?));
    let (count, has_budgets): (i64, bool) =
        row.map_or(Ok((0, false)), counts).map_err(|error: DbErr| unnamed(operation, &error))?;
    if usize::try_from(count) != Ok(saved.len()) {
        let message = "a run changed its state under its lock";
        return Err(Error::new(ErrorKind::Unexpected, operation, message));
    }
    if has_budgets {
        over.free(db).await.map_err(|error| unnamed(operation, &error))?;
    }
    let recorded = events::record(db, batches).await.map_err(|error| unnamed(operation, &error))?;
    for (run, (_, events)) in saved.iter_mut().zip(recorded) {
        run.events = events;
    }
    Ok(saved)
}

/// Says what has become of runs, after the commit.
pub(super) fn tell(base: &Base, saved: &[Saved]) {
    for run in saved {
        base.news.recorded(run.stored.id, &run.events);
    }
    // An end makes room under the limits.
    if saved.iter().any(|run| matches!(run.then, Then::Waits(_) | Then::Gone)) {
        base.news.wake(Topic::Queue);
    }
}
