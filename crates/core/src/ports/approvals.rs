use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value as Json;

use crate::governance::{ActionScope, Approval, ApprovalStatus, Decision, payload_hash};
use crate::identity::User;
use crate::planning::Project;
use crate::runs::Lease;
use crate::{Id, Result, Scope, Stored};

/// Questions of runs to people, and their answers (001, 004).
///
/// - A question outlives the worker that asked it and the server that showed it: it is a row, and its answer another
///   column.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Approvals: Send + Sync {
    /// Asks a person, for a run.
    ///
    /// - The same question of the same run, by scope, action and the payload's hash, is asked once: asking it again
    ///   gives what is there, open or answered, and nobody is asked anew.
    /// - An open question of the run about the same action with another payload becomes void.
    /// - While a question is open, the run is [`WaitingApproval`](crate::runs::RunStatus::WaitingApproval). Its log
    ///   tells of the question, then of the state.
    /// - Fails with `StaleLease` once the lease is lost or the run has ended.
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>>;

    /// Answers a question.
    ///
    /// - The log of the run tells of it; a worker that waits learns of it, and one that comes later finds it.
    /// - Fails with [`Conflict`](crate::ErrorKind::Conflict) if it is answered, void or too late, with
    ///   [`PermissionDenied`](crate::ErrorKind::PermissionDenied) if the person is not one of its approvers, with
    ///   [`Invalid`](crate::ErrorKind::Invalid) for a note of more than 2,000 characters, with `NotFound`.
    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>>;

    /// Looks for the answer to a question of a run.
    ///
    /// - A question whose time is up gets its default answer by this.
    /// - Once none of the run's questions is open, the run is running again, and its log says so.
    /// - Fails with `StaleLease` as `ask` does, with `NotFound`.
    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>>;
}

/// A question to a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What it is about.
    pub scope: ActionScope,
    /// The action in the scope: the tool, or the branch.
    pub action: String,
    /// The provider's id of the call, for a tool.
    pub call_id: Option<String>,
    /// In a sentence, for the person.
    pub intent_summary: String,
    /// The exact parameters, secrets taken out.
    pub payload: Json,
    /// Who may answer; anybody of the tenant, if nobody is named.
    pub approvers: Vec<Id<User>>,
    /// How long it waits for its answer, in seconds, from 1.
    pub expires_after_s: i32,
    /// The answer when nobody gives one.
    pub on_expiry: Decision,
}

impl Question {
    /// The open question as it is stored, asked now on the store's clock.
    pub fn into_approval(self, project: Id<Project>, lease: &Lease, now: DateTime<Utc>) -> Approval {
        Approval {
            project_id: project,
            run_id: lease.run,
            attempt_id: Some(lease.attempt),
            scope: self.scope,
            action: self.action,
            intent_summary: self.intent_summary,
            payload_hash: payload_hash(&self.payload),
            payload: self.payload,
            status: ApprovalStatus::Pending,
            approvers: self.approvers,
            expires_at: now + TimeDelta::seconds(self.expires_after_s.max(1).into()),
            on_expiry: self.on_expiry,
            decided_at: None,
            decided_by: None,
            note: None,
        }
    }
}
