use lime_core::runs::{AgentMode, AgentRun, Failure, FailureKind, ProviderId, RunStatus, StopReason, Usage};
use lime_core::{Id, Invalid, Micros, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, id, parse_some, raw, to_json, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "agent_runs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: i64,
    pub ticket_id: Option<i64>,
    pub repository_id: Option<i64>,
    pub agent_id: Option<i64>,
    pub session_id: Option<i64>,
    pub trigger_message_id: Option<i64>,
    pub channel_id: Option<i64>,
    pub provider: String,
    pub mode: String,
    pub input_prompt: String,
    pub model: Option<String>,
    pub base_ref: Option<String>,
    pub branch: Option<String>,
    pub allowed_paths_json: Option<Json>,
    pub constraints_json: Json,
    pub parent_run_id: Option<i64>,
    pub priority: i16,
    pub run_at: Option<DateTimeUtc>,
    pub unique_key: Option<String>,
    pub created_by: Option<i64>,
    pub created_by_key: Option<i64>,
    pub status: String,
    pub stop_reason: Option<String>,
    pub error: Option<String>,
    pub error_type: Option<String>,
    pub error_retry_at: Option<DateTimeUtc>,
    pub output_summary: Option<String>,
    pub artifacts_json: Json,
    pub instructions_json: Option<Json>,
    pub provider_session_id: Option<String>,
    pub turn_count: i64,
    pub token_input_count: i64,
    pub token_cached_input_count: i64,
    pub token_cache_write_count: i64,
    pub token_output_count: i64,
    pub tool_calls: Json,
    pub cost_micros: i64,
    pub cost_known: bool,
    pub attempt_id: Option<i64>,
    pub attempt_count: i32,
    pub crash_count: i32,
    pub failure_count: i32,
    pub cancel_requested_at: Option<DateTimeUtc>,
    pub pause_requested_at: Option<DateTimeUtc>,
    pub last_seq: i64,
    pub started_at: Option<DateTimeUtc>,
    pub ended_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for AgentRun {
    type Table = Entity;
    type Model = Model;
    type Active = ActiveModel;
    const KEY: Key<Entity> = Key {
        id: Column::Id,
        tenant_id: Column::TenantId,
        version: Column::Version,
        updated_at: Column::UpdatedAt,
    };

    fn stored(model: Model) -> Result<Stored<Self>, Invalid> {
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                project_id: Id::new(model.project_id),
                ticket_id: id(model.ticket_id),
                repository_id: id(model.repository_id),
                agent_id: id(model.agent_id),
                session_id: id(model.session_id),
                trigger_message_id: id(model.trigger_message_id),
                channel_id: id(model.channel_id),
                attempt_id: id(model.attempt_id),
                parent_run_id: id(model.parent_run_id),
                priority: model.priority,
                run_at: model.run_at,
                unique_key: model.unique_key,
                created_by: id(model.created_by),
                created_by_key: id(model.created_by_key),
                input_prompt: model.input_prompt,
                model: model.model,
                base_ref: model.base_ref,
                branch: model.branch,
                attempt_count: model.attempt_count,
                crash_count: model.crash_count,
                failure_count: model.failure_count,
                cancel_requested_at: model.cancel_requested_at,
                pause_requested_at: model.pause_requested_at,
                last_seq: model.last_seq,
                started_at: model.started_at,
                ended_at: model.ended_at,
                provider: ProviderId::parse(model.provider)?,
                mode: AgentMode::parse(&model.mode)?,
                allowed_paths: some_from_json("allowed_paths_json", model.allowed_paths_json)?,
                constraints: from_json("constraints_json", model.constraints_json)?,
                status: RunStatus::parse(&model.status)?,
                stop_reason: parse_some(model.stop_reason.as_deref(), StopReason::parse)?,
                failure: failure(model.error_type.as_deref(), model.error, model.error_retry_at)?,
                output_summary: model.output_summary,
                artifacts: from_json("artifacts_json", model.artifacts_json)?,
                instructions: some_from_json("instructions_json", model.instructions_json)?,
                provider_session_id: model.provider_session_id,
                usage: Usage {
                    turns: u32::try_from(model.turn_count).unwrap_or(u32::MAX),
                    input_tokens: model.token_input_count.unsigned_abs(),
                    cached_input_tokens: model.token_cached_input_count.unsigned_abs(),
                    cache_write_tokens: model.token_cache_write_count.unsigned_abs(),
                    output_tokens: model.token_output_count.unsigned_abs(),
                    cost: model.cost_known.then_some(Micros(model.cost_micros)),
                },
                tool_calls: from_json("tool_calls", model.tool_calls)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        let (kind, message, retry_at) = match self.failure {
            Some(failure) => (Some(failure.kind), Some(failure.message), failure.retry_at),
            None => (None, None, None),
        };
        ActiveModel {
            project_id: Set(self.project_id.raw()),
            ticket_id: Set(raw(self.ticket_id)),
            repository_id: Set(raw(self.repository_id)),
            agent_id: Set(raw(self.agent_id)),
            session_id: Set(raw(self.session_id)),
            trigger_message_id: Set(raw(self.trigger_message_id)),
            channel_id: Set(raw(self.channel_id)),
            attempt_id: Set(raw(self.attempt_id)),
            parent_run_id: Set(raw(self.parent_run_id)),
            priority: Set(self.priority),
            run_at: Set(self.run_at),
            unique_key: Set(self.unique_key),
            created_by: Set(raw(self.created_by)),
            created_by_key: Set(raw(self.created_by_key)),
            input_prompt: Set(self.input_prompt),
            model: Set(self.model),
            base_ref: Set(self.base_ref),
            branch: Set(self.branch),
            attempt_count: Set(self.attempt_count),
            crash_count: Set(self.crash_count),
            failure_count: Set(self.failure_count),
            cancel_requested_at: Set(self.cancel_requested_at),
            pause_requested_at: Set(self.pause_requested_at),
            last_seq: Set(self.last_seq),
            started_at: Set(self.started_at),
            ended_at: Set(self.ended_at),
            provider: Set(self.provider.into()),
            mode: Set(word(self.mode)),
            allowed_paths_json: Set(self.allowed_paths.as_ref().map(to_json)),
            constraints_json: Set(to_json(&self.constraints)),
            status: Set(word(self.status)),
            stop_reason: Set(self.stop_reason.map(word)),
            error: Set(message.map(nul::text)),
            error_type: Set(kind.map(word)),
            error_retry_at: Set(retry_at),
            output_summary: Set(self.output_summary.map(nul::text)),
            artifacts_json: Set(nul::json(to_json(&self.artifacts))),
            instructions_json: Set(self.instructions.as_ref().map(to_json)),
            provider_session_id: Set(self.provider_session_id.map(nul::text)),
            turn_count: Set(self.usage.turns.into()),
            token_input_count: Set(count(self.usage.input_tokens)),
            token_cached_input_count: Set(count(self.usage.cached_input_tokens)),
            token_cache_write_count: Set(count(self.usage.cache_write_tokens)),
            token_output_count: Set(count(self.usage.output_tokens)),
            tool_calls: Set(nul::json(to_json(&self.tool_calls))),
            cost_micros: Set(self.usage.cost.unwrap_or_default().0.max(0)),
            cost_known: Set(self.usage.cost.is_some()),
            ..Default::default()
        }
    }
}

fn some_from_json<T: serde::de::DeserializeOwned>(
    field: &'static str,
    value: Option<Json>,
) -> Result<Option<T>, Invalid> {
    value.map(|value| from_json(field, value)).transpose()
}

fn failure(
    kind: Option<&str>,
    message: Option<String>,
    retry_at: Option<DateTimeUtc>,
) -> Result<Option<Failure>, Invalid> {
    let kind = parse_some(kind, FailureKind::parse)?;
    Ok(kind.map(|kind| Failure { kind, message: message.unwrap_or_default(), retry_at }))
}

/// A provider that claims more tokens than `BIGINT` holds is wrong; that must not keep its run from ending.
pub(crate) fn count(tokens: u64) -> i64 {
    i64::try_from(tokens).unwrap_or(i64::MAX)
}
