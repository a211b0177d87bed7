//! How runs come into the line.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, SubsecRound, Utc};
use lime_core::identity::Tenant;
use lime_core::runs::{AgentEvent, AgentRun, RunStatus};
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope, Stored, Topic};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult};
use serde_json::Value as Json;

use crate::batch::{Batcher, together};
use crate::error::{Doing, about, unnamed};
use crate::events::payload;
use crate::fence::{self, words};
use crate::storage::{Base, commit, span, sql};
use crate::store::read;
use crate::tables::agent_run;
use crate::{PgStorage, nul};

const OPERATION: &str = "queue.submit";
/// How many runs one statement stores.
const CHUNK: usize = 1_000;
/// How many bytes of prompts one batch of several callers has, beside its last run.
const CHUNK_BYTES: usize = 4 << 20;
/// Stands for no id among ids that are never negative: an array of the driver has no nulls.
const NO_ID: i64 = -1;

/// A run to be stored: checked, and as it will be read again.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    tenant: Id<Tenant>,
    run: AgentRun,
}

impl Draft {
    fn new(scope: &Scope, run: AgentRun) -> Result<Self> {
        let mut run = run.queued(scope);
        run.validate().map_err(|invalid| invalid.refused(OPERATION, AgentRun::NAME))?;
        run.provider_session_id = run.provider_session_id.map(nul::text);
        run.run_at = run.run_at.map(|time| time.trunc_subsecs(6));
        run.last_seq = 1;
        Ok(Self { tenant: scope.tenant(), run })
    }

    fn stored(&self, id: Id<AgentRun>, now: DateTime<Utc>) -> Stored<AgentRun> {
        Stored { id, version: 1, created_at: now, updated_at: now, value: self.run.clone() }
    }

    /// What few runs have, as JSON in which what is none is missing; empty for nothing.
    fn rest(&self) -> String {
        let run = &self.run;
        let mut rest = serde_json::Map::new();
        let mut put = |name: &str, value: Option<Json>| {
            if let Some(value) = value {
                rest.insert(name.to_owned(), value);
            }
        };
        let text = |text: &Option<String>| text.as_deref().map(Json::from);
        put("session_id", run.session_id.map(|id| id.raw().into()));
        put("trigger_message_id", run.trigger_message_id.map(|id| id.raw().into()));
        put("channel_id", run.channel_id.map(|id| id.raw().into()));
        put("parent_run_id", run.parent_run_id.map(|id| id.raw().into()));
        put("created_by", run.created_by.map(|id| id.raw().into()));
        put("created_by_key", run.created_by_key.map(|id| id.raw().into()));
        put("model", text(&run.model));
        put("base_ref", text(&run.base_ref));
        put("branch", text(&run.branch));
        put("allowed_paths", run.allowed_paths.clone().map(Json::from));
        put("run_at", run.run_at.map(|time| time.to_rfc3339().into()));
        put("unique_key", text(&run.unique_key));
        put("provider_session_id", text(&run.provider_session_id));
        if rest.is_empty() { String::new() } else { Json::from(rest).to_string() }
    }
}

/// Stores runs, their places in the line and their first events; gives their positions in the arrays, ids and times.
///
/// - Ids are in the order of the arrays. With keys, rows are stored in the order of those, so that two transactions
///   with the same ones wait for each other in turn; what has a key that is taken is left out.
fn insert_statement(keyed: bool) -> String {
    let (order, on_conflict, kept) = if keyed {
        let ended = words(RunStatus::ALL.iter().copied().filter(|status| status.is_final()));
        let conflict = format!(
            "ON CONFLICT (tenant_id, unique_key) WHERE unique_key IS NOT NULL AND status NOT IN ({ended}) DO NOTHING"
        );
        ("ORDER BY rest ->> 'unique_key', place", conflict, "JOIN stored USING (id)")
    } else {
        ("", String::new(), "")
    };
    format!(
        "WITH draft AS MATERIALIZED (
             SELECT nextval('agent_runs_id_seq') AS id, each.*,
                    coalesce((each.rest ->> 'run_at')::timestamptz > clock_timestamp(), false) AS is_scheduled
             FROM (
                 SELECT tenant_id, project_id, nullif(ticket_id, {NO_ID}) AS ticket_id,
                        nullif(repository_id, {NO_ID}) AS repository_id, nullif(agent_id, {NO_ID}) AS agent_id,
                        provider, mode, input_prompt, constraints, priority, nullif(rest, '')::jsonb AS rest, place
                 FROM UNNEST((SELECT $1), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) WITH ORDINALITY
                     AS each (tenant_id, project_id, ticket_id, repository_id, agent_id, provider, mode, input_prompt,
                              constraints, priority, rest, place)
                 WHERE (SELECT tenants_check_open($1))
                 ORDER BY place
             ) AS each
         ), stored AS (
             INSERT INTO agent_runs (id, tenant_id, project_id, ticket_id, repository_id, agent_id, session_id,
                 trigger_message_id, channel_id, provider, mode, input_prompt, model, base_ref, branch,
                 allowed_paths_json, constraints_json, parent_run_id, priority, run_at, unique_key,
                 provider_session_id, created_by, created_by_key, last_seq)
             SELECT id, tenant_id, project_id, ticket_id, repository_id, agent_id, (rest ->> 'session_id')::bigint,
                 (rest ->> 'trigger_message_id')::bigint, (rest ->> 'channel_id')::bigint, provider, mode, input_prompt,
                 rest ->> 'model', rest ->> 'base_ref', rest ->> 'branch', rest -> 'allowed_paths',
                 constraints::jsonb, (rest ->> 'parent_run_id')::bigint, priority, (rest ->> 'run_at')::timestamptz,
                 rest ->> 'unique_key', rest ->> 'provider_session_id',
                 (rest ->> 'created_by')::bigint, (rest ->> 'created_by_key')::bigint, 1
             FROM draft {order}
             {on_conflict}
             RETURNING id
         ), placed AS (
             INSERT INTO run_queue (run_id, tenant_id, project_id, agent_id, provider, priority, state, due_at, last_seq)
             SELECT id, tenant_id, project_id, coalesce(agent_id, 0), provider, priority,
                 CASE WHEN is_scheduled THEN 1 ELSE 0 END,
                 CASE WHEN is_scheduled THEN (rest ->> 'run_at')::timestamptz END, 1
             FROM draft {kept}
         ), told AS (
             INSERT INTO agent_events (tenant_id, agent_run_id, seq, type, payload_json)
             SELECT tenant_id, id, 1, $12, $13::jsonb FROM draft {kept}
         )
         SELECT place, id, now() AS now FROM draft {kept}"
    )
}

static INSERT: LazyLock<String> = LazyLock::new(|| insert_statement(false));
static INSERT_KEYED: LazyLock<String> = LazyLock::new(|| insert_statement(true));

/// Stores drafts in one statement; none for those whose key is taken.
async fn insert(db: &impl ConnectionTrait, drafts: &[&Draft]) -> Result<Vec<Option<Stored<AgentRun>>>> {
    let is_keyed = drafts.iter().any(|draft| draft.run.unique_key.is_some());
    let statement = if is_keyed { INSERT_KEYED.as_str() } else { INSERT.as_str() };
    let ids = |of: fn(&Draft) -> i64| drafts.iter().map(|draft| of(draft)).collect::<Vec<i64>>();
    let texts = |of: fn(&Draft) -> String| drafts.iter().map(|draft| of(draft)).collect::<Vec<String>>();
    let queued = AgentEvent::status(RunStatus::Queued, None);
    let values = [
        ids(|draft| draft.tenant.raw()).into(),
        ids(|draft| draft.run.project_id.raw()).into(),
        ids(|draft| draft.run.ticket_id.map_or(NO_ID, Id::raw)).into(),
        ids(|draft| draft.run.repository_id.map_or(NO_ID, Id::raw)).into(),
        ids(|draft| draft.run.agent_id.map_or(NO_ID, Id::raw)).into(),
        texts(|draft| draft.run.provider.as_str().to_owned()).into(),
        texts(|draft| draft.run.mode.as_str().to_owned()).into(),
        texts(|draft| draft.run.input_prompt.clone()).into(),
        texts(constraints).into(),
        drafts.iter().map(|draft| draft.run.priority).collect::<Vec<i16>>().into(),
        texts(Draft::rest).into(),
        queued.type_name().into(),
        payload(&queued).into(),
    ];
    let rows = db.query_all_raw(sql(statement, values)).await;
    let rows = rows.map_err(|error| about::<AgentRun>(OPERATION, Doing::Write, &error))?;
    let mut stored = vec![None; drafts.len()];
    for row in &rows {
        let (place, id, now) = placed(row).map_err(|error| unnamed(OPERATION, &error))?;
        let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
        if let (Some(slot), Some(draft)) = (stored.get_mut(place), drafts.get(place)) {
            *slot = Some(draft.stored(Id::new(id), now));
        }
    }
    Ok(stored)
}

fn constraints(draft: &Draft) -> String {
    serde_json::to_string(&draft.run.constraints).expect("constraints are plain values with text keys")
}

fn placed(row: &QueryResult) -> Result<(i64, i64, DateTime<Utc>), DbErr> {
    Ok((row.try_get("", "place")?, row.try_get("", "id")?, row.try_get("", "now")?))
}

/// The runs with these keys that have not ended, by their keys.
async fn alive(
    db: &impl ConnectionTrait,
    tenant: Id<Tenant>,
    keys: Vec<String>,
) -> Result<HashMap<String, Stored<AgentRun>>> {
    let ended = words(RunStatus::ALL.iter().copied().filter(|status| status.is_final()));
    let statement = format!(
        "SELECT * FROM agent_runs WHERE tenant_id = $1 AND unique_key = ANY ($2) AND status NOT IN ({ended})"
    );
    let rows = db.query_all_raw(sql(statement, [tenant.raw().into(), keys.into()])).await;
    let mut found = HashMap::new();
    for row in rows.map_err(|error| unnamed(OPERATION, &error))? {
        let model =
            agent_run::Model::from_query_result(&row, "").map_err(|error| unnamed(OPERATION, &error))?;
        let run = read::<AgentRun>(OPERATION, model)?;
        found.extend(run.unique_key.clone().map(|key| (key, run)));
    }
    Ok(found)
}

/// Stores runs of a tenant, or finds those that have their keys.
async fn store(
    db: &impl ConnectionTrait,
    tenant: Id<Tenant>,
    drafts: &[Draft],
) -> Result<Vec<Stored<AgentRun>>> {
    /// A run that has the key now may have ended when it is looked for; then the key is free again.
    const TRIES: usize = 20;
    let mut stored: Vec<Option<Stored<AgentRun>>> = vec![None; drafts.len()];
    for _ in 0..TRIES {
        let open: Vec<usize> = (0..drafts.len()).filter(|at| stored[*at].is_none()).collect();
        for chunk in open.chunks(CHUNK) {
            let drafts: Vec<&Draft> = chunk.iter().map(|at| &drafts[*at]).collect();
            for (at, run) in chunk.iter().zip(insert(db, &drafts).await?) {
                stored[*at] = run;
            }
        }
        let key = |at: usize| drafts[at].run.unique_key.clone();
        let taken = (0..drafts.len()).filter(|at| stored[*at].is_none());
        let keys: Vec<String> = taken.clone().filter_map(key).collect();
        if keys.is_empty() {
            break;
        }
        let alive = alive(db, tenant, keys).await?;
        for at in taken.collect::<Vec<_>>() {
            stored[at] = key(at).and_then(|key| alive.get(&key).cloned());
        }
    }
    let missing = || {
        let message = "runs with the same unique_key come and go; try again";
        Error::new(ErrorKind::Conflict, OPERATION, message).retry(lime_core::Retry::After(None))
    };
    stored.into_iter().map(|run| run.ok_or_else(missing)).collect()
}

/// Brings the runs of many callers together that have neither key nor fence: none of them has to wait for others.
pub(super) fn batcher(base: &Base) -> Batcher<Draft, Stored<AgentRun>> {
    let of_all = base.clone();
    let weight = |draft: &Draft| draft.run.input_prompt.len() + 256;
    Batcher::weighed(OPERATION, CHUNK, CHUNK_BYTES, weight, base.in_flight, move |drafts: Vec<Draft>| {
        let base = of_all.clone();
        async move {
            let stored = together(&drafts, |drafts| {
                let db = base.db.clone();
                Box::pin(async move {
                    let stored = insert(&db, &drafts.iter().collect::<Vec<_>>()).await?;
                    Ok(stored.into_iter().flatten().collect())
                })
            });
            let stored = stored.await;
            if stored.iter().any(Result::is_ok) {
                base.news.wake(Topic::Queue);
            }
            stored
        }
    })
}

pub(super) async fn one(storage: &PgStorage, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
    if run.unique_key.is_none() && scope.fence().is_none() {
        return storage.queue().submits.call(Draft::new(scope, run)?).await;
    }
    let mut stored = all(storage, scope, vec![run]).await?;
    stored.pop().ok_or_else(|| Error::new(ErrorKind::Unexpected, OPERATION, "the run was not stored"))
}

pub(super) async fn all(
    storage: &PgStorage,
    scope: &Scope,
    runs: Vec<AgentRun>,
) -> Result<Vec<Stored<AgentRun>>> {
    let drafts: Vec<Draft> = runs.into_iter().map(|run| Draft::new(scope, run)).collect::<Result<_>>()?;
    let (base, scope) = (storage.base().clone(), scope.clone());
    let span = span(OPERATION, scope.tenant(), AgentRun::TABLE);
    let work = async move {
        let tx = base.begin_as(scope.tenant(), OPERATION).await?;
        fence::hold(&tx, &scope, OPERATION).await?;
        let stored = store(&tx, scope.tenant(), &drafts).await?;
        commit(OPERATION, tx).await?;
        base.news.wake(Topic::Queue);
        Ok(stored)
    };
    storage.detached(OPERATION, span, work).await
}

impl PgStorage {
    /// Stores and queues runs in a transaction of yours, as [`submit_all`](lime_core::ports::Queue::submit_all) does:
    /// they are there if it is committed, together with the rows that you write in it.
    ///
    /// - A run with a `unique_key` makes others with the same key wait until the transaction ends: keep it short.
    /// - Nobody is told before the commit; call [`announce`](Self::announce) after it, or workers find them when they
    ///   look next.
    /// - If it fails, roll back.
    pub async fn submit_in(
        &self,
        transaction: &impl ConnectionTrait,
        scope: &Scope,
        runs: Vec<AgentRun>,
    ) -> Result<Vec<Stored<AgentRun>>> {
        let drafts: Vec<Draft> = runs.into_iter().map(|run| Draft::new(scope, run)).collect::<Result<_>>()?;
        fence::hold(transaction, scope, OPERATION).await?;
        store(transaction, scope.tenant(), &drafts).await
    }

    /// Tells workers, here and elsewhere, that there may be something to take.
    pub fn announce(&self) {
        self.news().wake(Topic::Queue);
    }
}
