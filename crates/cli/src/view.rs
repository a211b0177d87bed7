//! What is stored, as JSON for programs: camelCase, ids as decimal strings, times in UTC.

use chrono::{DateTime, Utc};
use lime_core::governance::{ActionScope, Approval, ApprovalStatus, Decision};
use lime_core::identity::{Slug, User};
use lime_core::planning::{Project, Ticket};
use lime_core::repos::Repository;
use lime_core::runs::{
    AgentMode, AgentRun, AttemptEnd, Effect, EffectKind, EffectStatus, Failure, ProviderId, RunArtifact,
    RunAttempt, RunInput, RunStatus, RunStep, Seq, StepKind, StepStatus, StopReason, ToolTally, Usage,
};
use lime_core::{Id, Stored};
use serde::Serialize;
use serde_json::Value as Json;

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunView {
    pub(crate) id: Id<AgentRun>,
    pub(crate) tenant: String,
    pub(crate) project_id: Id<Project>,
    pub(crate) project: String,
    pub(crate) ticket_id: Option<Id<Ticket>>,
    pub(crate) repository_id: Option<Id<Repository>>,
    pub(crate) parent_run_id: Option<Id<AgentRun>>,
    pub(crate) provider: ProviderId,
    pub(crate) mode: AgentMode,
    pub(crate) model: Option<String>,
    pub(crate) prompt: String,
    pub(crate) base_ref: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) priority: i16,
    pub(crate) run_at: Option<DateTime<Utc>>,
    pub(crate) unique_key: Option<String>,
    pub(crate) status: RunStatus,
    pub(crate) stop_reason: Option<StopReason>,
    pub(crate) failure: Option<Failure>,
    pub(crate) summary: Option<String>,
    pub(crate) artifacts: Vec<RunArtifact>,
    pub(crate) usage: Usage,
    pub(crate) tool_calls: Vec<ToolTally>,
    pub(crate) attempts: i32,
    pub(crate) crashes: i32,
    pub(crate) failures: i32,
    pub(crate) cancel_requested_at: Option<DateTime<Utc>>,
    pub(crate) pause_requested_at: Option<DateTime<Utc>>,
    pub(crate) last_seq: Seq,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

impl RunView {
    pub(crate) fn of(tenant: &Slug, project: &str, run: Stored<AgentRun>) -> Self {
        let Stored { id, created_at, value, .. } = run;
        Self {
            id,
            tenant: tenant.as_str().to_owned(),
            project_id: value.project_id,
            project: project.to_owned(),
            ticket_id: value.ticket_id,
            repository_id: value.repository_id,
            parent_run_id: value.parent_run_id,
            provider: value.provider,
            mode: value.mode,
            model: value.model,
            prompt: value.input_prompt,
            base_ref: value.base_ref,
            branch: value.branch,
            priority: value.priority,
            run_at: value.run_at,
            unique_key: value.unique_key,
            status: value.status,
            stop_reason: value.stop_reason,
            failure: value.failure,
            summary: value.output_summary,
            artifacts: value.artifacts,
            usage: value.usage,
            tool_calls: value.tool_calls,
            attempts: value.attempt_count,
            crashes: value.crash_count,
            failures: value.failure_count,
            cancel_requested_at: value.cancel_requested_at,
            pause_requested_at: value.pause_requested_at,
            last_seq: value.last_seq,
            created_at,
            started_at: value.started_at,
            ended_at: value.ended_at,
        }
    }
}

/// An attempt at a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttemptView {
    pub(crate) id: Id<RunAttempt>,
    pub(crate) number: i32,
    pub(crate) worker: String,
    pub(crate) outcome: Option<AttemptEnd>,
    pub(crate) error: Option<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) heartbeat_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

impl From<Stored<RunAttempt>> for AttemptView {
    fn from(attempt: Stored<RunAttempt>) -> Self {
        let Stored { id, created_at, value, .. } = attempt;
        Self {
            id,
            number: value.number,
            worker: value.worker,
            outcome: value.outcome,
            error: value.error,
            started_at: created_at,
            heartbeat_at: value.heartbeat_at,
            ended_at: value.ended_at,
        }
    }
}

/// A step of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepView {
    pub(crate) number: i32,
    pub(crate) key: String,
    pub(crate) kind: StepKind,
    pub(crate) status: StepStatus,
    pub(crate) model: Option<String>,
    pub(crate) usage: Option<Usage>,
    pub(crate) error: Option<String>,
    pub(crate) started_at: DateTime<Utc>,
    pub(crate) completed_at: Option<DateTime<Utc>>,
}

impl From<Stored<RunStep>> for StepView {
    fn from(step: Stored<RunStep>) -> Self {
        let Stored { created_at, value, .. } = step;
        Self {
            number: value.step_number,
            key: value.step_key,
            kind: value.kind,
            status: value.status,
            model: value.model_id,
            usage: value.usage,
            error: value.error,
            started_at: created_at,
            completed_at: value.completed_at,
        }
    }
}

/// A change to the world outside.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EffectView {
    pub(crate) kind: EffectKind,
    pub(crate) idempotency_key: String,
    pub(crate) status: EffectStatus,
    pub(crate) expected: Json,
    pub(crate) result: Option<Json>,
    pub(crate) error: Option<String>,
    pub(crate) written_at: DateTime<Utc>,
    pub(crate) ended_at: Option<DateTime<Utc>>,
}

impl From<Stored<Effect>> for EffectView {
    fn from(effect: Stored<Effect>) -> Self {
        let Stored { created_at, value, .. } = effect;
        Self {
            kind: value.kind,
            idempotency_key: value.idempotency_key,
            status: value.status,
            expected: value.expected,
            result: value.result,
            error: value.error,
            written_at: created_at,
            ended_at: value.ended_at,
        }
    }
}

/// What a person said to a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InputView {
    pub(crate) id: Id<RunInput>,
    pub(crate) text: String,
    pub(crate) said_at: DateTime<Utc>,
    pub(crate) delivered_at: Option<DateTime<Utc>>,
}

impl From<Stored<RunInput>> for InputView {
    fn from(input: Stored<RunInput>) -> Self {
        let Stored { id, created_at, value, .. } = input;
        Self { id, text: value.text, said_at: created_at, delivered_at: value.delivered_at }
    }
}

/// A question to a person.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApprovalView {
    pub(crate) id: Id<Approval>,
    pub(crate) tenant: String,
    pub(crate) run_id: Id<AgentRun>,
    pub(crate) scope: ActionScope,
    pub(crate) action: String,
    pub(crate) summary: String,
    pub(crate) payload: Json,
    pub(crate) payload_hash: String,
    pub(crate) status: ApprovalStatus,
    pub(crate) approvers: Vec<Id<User>>,
    pub(crate) asked_at: DateTime<Utc>,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) on_expiry: Decision,
    pub(crate) decided_at: Option<DateTime<Utc>>,
    pub(crate) decided_by: Option<Id<User>>,
    pub(crate) note: Option<String>,
}

impl ApprovalView {
    pub(crate) fn of(tenant: &Slug, approval: Stored<Approval>) -> Self {
        let Stored { id, created_at, value, .. } = approval;
        Self {
            id,
            tenant: tenant.as_str().to_owned(),
            run_id: value.run_id,
            scope: value.scope,
            action: value.action,
            summary: value.intent_summary,
            payload: value.payload,
            payload_hash: value.payload_hash,
            status: value.status,
            approvers: value.approvers,
            asked_at: created_at,
            expires_at: value.expires_at,
            on_expiry: value.on_expiry,
            decided_at: value.decided_at,
            decided_by: value.decided_by,
            note: value.note,
        }
    }
}
