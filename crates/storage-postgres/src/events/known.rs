//! What a record says beside its events: steps, tool calls, and what is known about the run.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use lime_core::ports::Progress;
use lime_core::runs::{Lease, RunStep, ToolCall};
use lime_core::{Entity, Error, Invalid, Result};
use sea_orm::ActiveValue;
use sea_orm::JsonValue as Json;

use super::append::{Entry, LOCKED, OPERATION, Query, counted};
use crate::{Row, nul};

/// As columns, ready to be written.
pub(super) struct Known {
    step: Option<String>,
    steps: Vec<Step>,
    calls: Vec<Call>,
    progress: Option<About>,
}

struct Step {
    number: i32,
    key: String,
    kind: String,
    status: String,
    model_id: Option<String>,
    usage: Option<String>,
    result: Option<String>,
    error: Option<String>,
    completed_at: Option<DateTime<Utc>>,
}

struct Call {
    project: i64,
    ticket: Option<i64>,
    agent: Option<i64>,
    id: String,
    tool: String,
    status: String,
    input: String,
    output: Option<String>,
    error: Option<String>,
    duration_ms: Option<i64>,
    turn: i32,
}

struct About {
    provider_session_id: Option<String>,
    instructions: Option<String>,
    branch: Option<String>,
    model: Option<String>,
}

fn column<T: Into<sea_orm::Value>>(mut value: ActiveValue<T>) -> T {
    value.take().expect("a row that is to be written has all of its entity's columns")
}

fn text(value: Option<Json>) -> Option<String> {
    value.map(|value| value.to_string())
}

impl Step {
    fn of(step: RunStep) -> Self {
        let row = step.active();
        Self {
            number: column(row.step_number),
            key: column(row.step_key),
            kind: column(row.kind),
            status: column(row.status),
            model_id: column(row.model_id),
            usage: text(column(row.usage_json)),
            result: text(column(row.result)),
            error: column(row.error),
            completed_at: column(row.completed_at),
        }
    }
}

impl Call {
    fn of(call: ToolCall) -> Self {
        let row = call.active();
        Self {
            project: column(row.project_id),
            ticket: column(row.ticket_id),
            agent: column(row.agent_id),
            id: column(row.call_id),
            tool: column(row.tool),
            status: column(row.status),
            input: column(row.input).to_string(),
            output: column(row.output),
            error: column(row.error),
            duration_ms: column(row.duration_ms),
            turn: column(row.turn_number),
        }
    }
}

impl About {
    fn of(progress: Progress) -> Option<Self> {
        if progress == Progress::default() {
            return None;
        }
        let Progress { provider_session_id, instructions, branch, model } = progress;
        let instructions = instructions.map(|instructions| {
            serde_json::to_value(instructions).expect("instructions are plain values with text keys")
        });
        Some(Self {
            provider_session_id: provider_session_id.map(nul::text),
            instructions: text(instructions.map(nul::json)),
            branch: branch.map(nul::text),
            model: model.map(nul::text),
        })
    }
}

fn check<E: Entity>(value: &E, is_of_run: bool) -> Result<()> {
    if !is_of_run {
        let message = format!("a {} belongs to another run than the lease", E::NAME);
        return Err(Error::invalid(OPERATION, message));
    }
    value.validate().map_err(|invalid: Invalid| invalid.refused(OPERATION, E::NAME))
}

impl Known {
    /// Checks it all; nothing, if there is nothing to know.
    pub(super) fn of(
        lease: &Lease,
        step: Option<String>,
        steps: Vec<RunStep>,
        calls: Vec<ToolCall>,
        progress: Progress,
    ) -> Result<Option<Box<Self>>> {
        steps.iter().try_for_each(|step| check(step, step.run_id == lease.run))?;
        calls.iter().try_for_each(|call| check(call, call.agent_run_id == lease.run))?;
        let known = Self {
            step,
            steps: steps.into_iter().map(Step::of).collect(),
            calls: calls.into_iter().map(Call::of).collect(),
            progress: About::of(progress),
        };
        Ok((known.step.is_some() || !known.has_no_rows()).then(|| Box::new(known)))
    }

    /// The step that the events belong to.
    pub(super) fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }

    /// Whether there is nothing to write but the events.
    pub(super) fn has_no_rows(&self) -> bool {
        self.steps.is_empty() && self.calls.is_empty() && self.progress.is_none()
    }

    /// How much text it has, roughly.
    pub(super) fn bytes(&self) -> usize {
        let some = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let step = |step: &Step| 128 + some(&step.usage) + some(&step.result) + some(&step.error);
        let call = |call: &Call| 128 + call.input.len() + some(&call.output) + some(&call.error);
        let about = self.progress.as_ref().map_or(0, |about| 128 + some(&about.instructions));
        self.steps.iter().map(step).sum::<usize>() + self.calls.iter().map(call).sum::<usize>() + about
    }
}

/// Whether all steps are there that an entry names.
const IS_COMPLETE: &str = "lease <> ALL (ARRAY(SELECT lease FROM named WHERE id IS NULL))";

/// Records in which somebody knows something beside events; its rows are `is_complete` where every step that is named
/// is there, and the others change nothing.
///
/// - What is looked up for each row is in an array or an object: the planner takes all that is given for a few rows, and
///   would compare each with each.
/// - Steps and tool calls of a run are written under the lock of the run's place, so nobody else is in between.
pub(super) static EVERYTHING: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH {}, named AS MATERIALIZED (
             SELECT held.lease, held.run_id, named.step_key, step.id
             FROM UNNEST((SELECT $10), $11) AS named (lease, step_key)
             JOIN held ON held.lease = named.lease
             LEFT JOIN run_steps AS step ON step.tenant_id = held.tenant_id AND step.run_id = held.run_id
                 AND step.step_key = named.step_key
         ), complete AS MATERIALIZED (
             SELECT * FROM held WHERE {IS_COMPLETE}
         ), kept_steps AS (
             INSERT INTO run_steps (tenant_id, run_id, step_number, step_key, kind, status, model_id, usage_json,
                                    result, error, completed_at)
             SELECT complete.tenant_id, complete.run_id, step.number, step.key, step.kind, step.status, step.model_id,
                    step.usage::jsonb, step.result::jsonb, step.error, step.completed_at
             FROM UNNEST((SELECT $12), $13, $14, $15, $16, $17, $18, $19, $20, $21)
                 AS step (lease, number, key, kind, status, model_id, usage, result, error, completed_at)
             JOIN complete ON complete.lease = step.lease
             ON CONFLICT (tenant_id, run_id, step_key) DO UPDATE SET
                 step_number = excluded.step_number, kind = excluded.kind, status = excluded.status,
                 model_id = excluded.model_id, usage_json = excluded.usage_json, result = excluded.result,
                 error = excluded.error, completed_at = excluded.completed_at,
                 version = run_steps.version + 1, updated_at = clock_timestamp()
             RETURNING run_id, step_key, id
         ), kept_calls AS (
             INSERT INTO tool_calls (tenant_id, agent_run_id, project_id, ticket_id, agent_id, call_id, tool, status,
                                     input, output, error, duration_ms, turn_number)
             SELECT complete.tenant_id, complete.run_id, call.project_id, call.ticket_id, call.agent_id, call.id,
                    call.tool, call.status, call.input::jsonb, call.output, call.error, call.duration_ms, call.turn
             FROM UNNEST((SELECT $22), $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33)
                 AS call (lease, project_id, ticket_id, agent_id, id, tool, status, input, output, error, duration_ms,
                          turn)
             JOIN complete ON complete.lease = call.lease
             ON CONFLICT (tenant_id, agent_run_id, call_id) DO UPDATE SET
                 project_id = excluded.project_id, ticket_id = excluded.ticket_id, agent_id = excluded.agent_id,
                 tool = excluded.tool, status = excluded.status, input = excluded.input, output = excluded.output,
                 error = excluded.error, duration_ms = excluded.duration_ms, turn_number = excluded.turn_number,
                 version = tool_calls.version + 1, updated_at = clock_timestamp()
         ), about AS MATERIALIZED (
             SELECT complete.tenant_id, complete.run_id, about.*
             FROM UNNEST((SELECT $34), $35, $36, $37, $38) AS about (lease, session_id, instructions, branch, model)
             JOIN complete ON complete.lease = about.lease
         ), progress AS (
             UPDATE agent_runs AS run
             SET provider_session_id = coalesce(about.session_id, run.provider_session_id),
                 instructions_json = coalesce(about.instructions::jsonb, run.instructions_json),
                 branch = coalesce(about.branch, run.branch),
                 model = coalesce(about.model, run.model),
                 version = run.version + 1,
                 updated_at = clock_timestamp()
             FROM about
             WHERE run.tenant_id = about.tenant_id AND run.id = about.run_id
         ), counted AS (
             {}
         ), steps AS MATERIALIZED (
             SELECT jsonb_object_agg(run_id || ' ' || step_key, id) AS ids FROM (
                 SELECT run_id, step_key, id FROM kept_steps UNION ALL SELECT run_id, step_key, id FROM named
             ) AS step
         ), recorded AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, run_attempt_id, step_id, seq, ts, type, payload_json)
             SELECT complete.tenant_id, complete.run_id, complete.token,
                    (steps.ids ->> (complete.run_id || ' ' || event.step_key))::bigint,
                    complete.last_seq + event.place, complete.ts, event.type, event.payload::jsonb
             FROM UNNEST((SELECT $5), $6, $7, $8, $9) AS event (lease, place, type, payload, step_key)
             JOIN complete ON complete.lease = event.lease
             CROSS JOIN steps
             ORDER BY event.lease, event.place
         )
         SELECT lease, {IS_COMPLETE} AS is_complete, last_seq, ts FROM held",
        *LOCKED,
        counted("complete WHERE count > 0")
    )
});

/// The last of those with the same key, each with the number of its entry.
fn newest<'a, T: 'a>(
    all: impl Iterator<Item = (i64, &'a T)>,
    key: impl Fn(&'a T) -> &'a str,
) -> Vec<(i64, &'a T)> {
    let mut places = HashMap::new();
    let mut newest: Vec<(i64, &T)> = Vec::new();
    for (lease, one) in all {
        match places.get(&(lease, key(one))) {
            Some(place) => newest[*place] = (lease, one),
            None => {
                places.insert((lease, key(one)), newest.len());
                newest.push((lease, one));
            }
        }
    }
    newest
}

/// The values of `$10` to `$38`.
pub(super) fn bind<'q>(query: Query<'q>, entries: &'q [Entry<'_>]) -> Query<'q> {
    let known = || {
        entries.iter().zip(1_i64..).flat_map(|(entry, lease)| entry.known().map(move |known| (lease, known)))
    };
    let steps = newest(
        known().flat_map(|(lease, known)| known.steps.iter().map(move |step| (lease, step))),
        |step| &step.key,
    );
    let calls = newest(
        known().flat_map(|(lease, known)| known.calls.iter().map(move |call| (lease, call))),
        |call| &call.id,
    );
    // Those that are given need not be there.
    let mut named: Vec<_> = known().filter_map(|(lease, known)| Some((lease, known.step()?))).collect();
    named.sort_unstable();
    named.dedup();
    named.retain(|(lease, key)| !steps.iter().any(|(of, step)| of == lease && step.key == *key));
    let query = query
        .bind(named.iter().map(|(lease, _)| *lease).collect::<Vec<_>>())
        .bind(named.iter().map(|(_, key)| *key).collect::<Vec<_>>());
    let about = known().filter_map(|(lease, known)| Some((lease, known.progress.as_ref()?))).collect();
    bind_progress(bind_calls(bind_steps(query, &steps), &calls), about)
}

/// One column of many rows.
fn each<'q, T, O>(rows: &[(i64, &'q T)], column: impl Fn(&'q T) -> O) -> Vec<O> {
    rows.iter().map(|(_, row)| column(row)).collect()
}

fn leases<T>(rows: &[(i64, &T)]) -> Vec<i64> {
    rows.iter().map(|(lease, _)| *lease).collect()
}

fn bind_steps<'q>(query: Query<'q>, steps: &[(i64, &'q Step)]) -> Query<'q> {
    query
        .bind(leases(steps))
        .bind(each(steps, |step| step.number))
        .bind(each(steps, |step| step.key.as_str()))
        .bind(each(steps, |step| step.kind.as_str()))
        .bind(each(steps, |step| step.status.as_str()))
        .bind(each(steps, |step| step.model_id.as_deref()))
        .bind(each(steps, |step| step.usage.as_deref()))
        .bind(each(steps, |step| step.result.as_deref()))
        .bind(each(steps, |step| step.error.as_deref()))
        .bind(each(steps, |step| step.completed_at))
}

fn bind_calls<'q>(query: Query<'q>, calls: &[(i64, &'q Call)]) -> Query<'q> {
    query
        .bind(leases(calls))
        .bind(each(calls, |call| call.project))
        .bind(each(calls, |call| call.ticket))
        .bind(each(calls, |call| call.agent))
        .bind(each(calls, |call| call.id.as_str()))
        .bind(each(calls, |call| call.tool.as_str()))
        .bind(each(calls, |call| call.status.as_str()))
        .bind(each(calls, |call| call.input.as_str()))
        .bind(each(calls, |call| call.output.as_deref()))
        .bind(each(calls, |call| call.error.as_deref()))
        .bind(each(calls, |call| call.duration_ms))
        .bind(each(calls, |call| call.turn))
}

/// What is known about each run once, the later word before the earlier one.
fn bind_progress<'q>(query: Query<'q>, abouts: Vec<(i64, &'q About)>) -> Query<'q> {
    let mut merged: Vec<(i64, [Option<&'q str>; 4])> = Vec::new();
    for (lease, about) in abouts {
        let later = [&about.provider_session_id, &about.instructions, &about.branch, &about.model];
        match merged.last_mut() {
            Some((of, earlier)) if *of == lease => {
                for (earlier, later) in earlier.iter_mut().zip(later) {
                    *earlier = later.as_deref().or(*earlier);
                }
            }
            _ => merged.push((lease, later.map(|text| text.as_deref()))),
        }
    }
    let column = |place: usize| merged.iter().map(|(_, about)| about[place]).collect::<Vec<_>>();
    query
        .bind(merged.iter().map(|(lease, _)| *lease).collect::<Vec<_>>())
        .bind(column(0))
        .bind(column(1))
        .bind(column(2))
        .bind(column(3))
}
