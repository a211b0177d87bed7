//! How agent work ends.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::runs::{AgentEvent, AttemptEnd, RunSignal, RunStatus};
use crate::words::words;

/// How a session with an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The agent came to its end.
    Succeeded {
        /// Its last words.
        summary: Option<String>,
    },
    /// It failed.
    Failed(Failure),
    /// It was stopped on request.
    Cancelled,
    /// It was stopped by a limit.
    Limited(Limit),
}

impl Outcome {
    /// One word: `succeeded`, `failed`, `cancelled` or `limited`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed(_) => "failed",
            Self::Cancelled => "cancelled",
            Self::Limited(_) => "limited",
        }
    }
}

impl Outcome {
    /// What it means for the run: a limit is a failure, with a stop reason of its own.
    pub const fn signal(&self) -> RunSignal {
        match self {
            Self::Succeeded { .. } => RunSignal::Succeed,
            Self::Failed(_) | Self::Limited(_) => RunSignal::Fail,
            Self::Cancelled => RunSignal::Cancel,
        }
    }

    /// The run's state in the end.
    pub const fn status(&self) -> RunStatus {
        match self {
            Self::Succeeded { .. } => RunStatus::Succeeded,
            Self::Failed(_) | Self::Limited(_) => RunStatus::Failed,
            Self::Cancelled => RunStatus::Cancelled,
        }
    }

    /// How the attempt ended.
    pub const fn attempt_end(&self) -> AttemptEnd {
        match self {
            Self::Succeeded { .. } => AttemptEnd::Succeeded,
            Self::Failed(_) | Self::Limited(_) => AttemptEnd::Failed,
            Self::Cancelled => AttemptEnd::Cancelled,
        }
    }
}

words! {
    /// A limit that stopped an agent.
    pub enum Limit: "limit" {
        /// `maxTurns`.
        Turns = "turns",
        /// `maxCostCents`.
        Cost = "cost",
        /// `timeBudgetSec`.
        Time = "time",
        /// The agent gave no sign of life for too long.
        Silence = "silence",
        /// The agent made the same failing call again and again.
        Loop = "loop",
        /// A budget had not enough left.
        Budget = "budget",
        /// The agent called a tool that it may not, and could not be kept from it.
        Tools = "tools",
    }
}

/// Why a run failed, in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What a caller decides on.
    pub kind: FailureKind,
    /// For a person: what happened, and what to do. Never a secret.
    pub message: String,
    /// When trying again can help, where the provider says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
}

impl Failure {
    /// A failure without a known time to try again.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_at: None }
    }
}

impl Failure {
    /// The failure of a run that was lost with its worker this many times.
    pub fn worker_lost(times: i32) -> Self {
        let message = format!(
            "The worker was lost with this run {times} times, so it is not tried again. Look at the workers' logs, then submit it anew."
        );
        Self::new(FailureKind::WorkerLost, message)
    }

    /// The error event of this failure; what is behind it stays on the server side.
    pub fn into_event(self, stack: Option<String>) -> AgentEvent {
        AgentEvent::Error { message: self.message, kind: Some(self.kind), stack }
    }
}

words! {
    /// The kinds of failure.
    pub enum FailureKind: "error_type" {
        /// The agent's program is not installed.
        MissingBinary = "missing_binary",
        /// No key or login was given.
        MissingCredentials = "missing_credentials",
        /// The key or login was refused.
        BadCredentials = "bad_credentials",
        /// The account may not use this model or feature.
        PermissionDenied = "permission_denied",
        /// The account's money or plan is used up.
        QuotaExceeded = "quota_exceeded",
        /// Too many calls for now.
        RateLimited = "rate_limited",
        /// The provider has too much to do, or a fault of its own.
        Overloaded = "overloaded",
        /// The provider could not be reached, or the connection broke.
        Network = "network",
        /// The provider refused the request as wrong.
        InvalidRequest = "invalid_request",
        /// The conversation no longer fits the model.
        ContextFull = "context_full",
        /// The answer was longer than allowed.
        OutputLimit = "output_limit",
        /// The model declined to do it.
        Refused = "refused",
        /// The session to go on with is gone.
        SessionGone = "session_gone",
        /// The agent's program ended without a result.
        Crashed = "crashed",
        /// The agent's program said what nobody understands.
        Protocol = "protocol",
        /// The repository could not be made ready, or the work not be brought home.
        Workspace = "workspace",
        /// The worker was lost with the run, too often.
        WorkerLost = "worker_lost",
        /// A fault of the software itself.
        Internal = "internal",
    }
}

impl FailureKind {
    /// Whether the same run can succeed later without anybody changing anything.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Network => true,
            Self::MissingBinary
            | Self::MissingCredentials
            | Self::BadCredentials
            | Self::PermissionDenied
            | Self::QuotaExceeded
            | Self::InvalidRequest
            | Self::ContextFull
            | Self::OutputLimit
            | Self::Refused
            | Self::SessionGone
            | Self::Crashed
            | Self::Protocol
            | Self::Workspace
            | Self::WorkerLost
            | Self::Internal => false,
        }
    }
}

words! {
    /// Why a run stopped (002 `stop_reason`, and ours).
    pub enum StopReason: "stop_reason" {
        /// The agent was done.
        EndTurn = "end_turn",
        /// It failed; the run's error says why.
        Error = "error",
        /// It took all the turns that it may.
        MaxSteps = "max_steps",
        /// Its answer or its context grew too long.
        MaxTokensExceeded = "max_tokens_exceeded",
        /// Somebody cancelled it.
        Cancelled = "cancelled",
        /// It had to call a tool, and did not (002).
        NoToolCall = "no_tool_call",
        /// It called a tool wrongly (002).
        InvalidToolCall = "invalid_tool_call",
        /// It used all the money that it may (ours).
        MaxCost = "max_cost",
        /// It took all the time that it may (ours).
        MaxTime = "max_time",
        /// Its worker was lost too often (ours).
        WorkerLost = "worker_lost",
        /// It gave no sign of life for too long (ours).
        Hung = "hung",
        /// It made the same failing call again and again (ours).
        Looping = "looping",
        /// A budget had not enough left for it (ours).
        MaxBudget = "max_budget",
        /// It called a tool that it may not, and could not be kept from it (ours).
        ToolDenied = "tool_denied",
    }
}

impl From<&Outcome> for StopReason {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded { .. } => Self::EndTurn,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Limited(Limit::Turns) => Self::MaxSteps,
            Outcome::Limited(Limit::Cost) => Self::MaxCost,
            Outcome::Limited(Limit::Time) => Self::MaxTime,
            Outcome::Limited(Limit::Silence) => Self::Hung,
            Outcome::Limited(Limit::Loop) => Self::Looping,
            Outcome::Limited(Limit::Budget) => Self::MaxBudget,
            Outcome::Limited(Limit::Tools) => Self::ToolDenied,
            Outcome::Failed(failure) => match failure.kind {
                FailureKind::ContextFull | FailureKind::OutputLimit => Self::MaxTokensExceeded,
                FailureKind::WorkerLost => Self::WorkerLost,
                FailureKind::MissingBinary
                | FailureKind::MissingCredentials
                | FailureKind::BadCredentials
                | FailureKind::PermissionDenied
                | FailureKind::QuotaExceeded
                | FailureKind::RateLimited
                | FailureKind::Overloaded
                | FailureKind::Network
                | FailureKind::InvalidRequest
                | FailureKind::Refused
                | FailureKind::SessionGone
                | FailureKind::Crashed
                | FailureKind::Protocol
                | FailureKind::Workspace
                | FailureKind::Internal => Self::Error,
            },
        }
    }
}

/// A tool call that was denied, by a rule or a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The provider's id of the call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
}
