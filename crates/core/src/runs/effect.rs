use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::governance::Approval;
use crate::runs::{AgentRun, RunAttempt};
use crate::words::words;
use crate::{Editable, Id, Invalid, entity};

/// A change to the world outside that a run makes, written down before it is made (ours; DESIGN, rule 9).
///
/// - Unique by `(run, idempotency_key)`: a second attempt finds the first one's, and looks whether it was done instead
///   of doing it again.
/// - Written under the lease only, so a stale worker writes none, and makes none.
#[derive(Debug, Clone, PartialEq)]
pub struct Effect {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// The attempt that wrote it last: the fencing token.
    pub attempt_id: Id<RunAttempt>,
    /// What kind of change it is.
    pub kind: EffectKind,
    /// What makes it this change and no other, unique in the run; 1 to 200 characters.
    pub idempotency_key: String,
    /// What is to be there afterwards, and what was there before: enough to look whether it was done.
    pub expected: Json,
    /// How far it is.
    pub status: EffectStatus,
    /// The leave that was given for it, where one was needed.
    pub approval_id: Option<Id<Approval>>,
    /// What came of it.
    pub result: Option<Json>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it was done, or given up.
    pub ended_at: Option<DateTime<Utc>>,
}

words! {
    /// What kind of change it is.
    pub enum EffectKind: "kind" {
        /// Commits are brought to a repository.
        Push = "push",
        /// A pull request is opened or changed.
        PullRequest = "pull_request",
        /// A comment is written.
        Comment = "comment",
        /// A pull request is merged.
        Merge = "merge",
        /// Something is deployed.
        Deployment = "deployment",
    }
}

words! {
    /// How far a change is.
    pub enum EffectStatus: "status" {
        /// It is about to be made, or was just made: who finds it so looks first.
        Pending = "pending",
        /// It is made.
        Done = "done",
        /// It was not made, and is given up: something else was in its place, or it was refused.
        Abandoned = "abandoned",
    }
}

entity! {
    Effect as "effect" in "effects" {
        RUN_ID: Id<AgentRun> = run_id => |effect| effect.run_id;
        KIND: EffectKind = kind => |effect| effect.kind;
        IDEMPOTENCY_KEY: String = idempotency_key => |effect| effect.idempotency_key.clone();
        STATUS: EffectStatus = status => |effect| effect.status;
        APPROVAL_ID: Option<Id<Approval>> = approval_id => |effect| effect.approval_id;
    }
    unique [RUN_ID, IDEMPOTENCY_KEY];
    refers RUN_ID -> AgentRun Cascade;
    refers APPROVAL_ID -> Approval SetNull(|effect| effect.approval_id = None);
    validate |effect| {
        Invalid::text("idempotency_key", &effect.idempotency_key, 1, 200)?;
        Invalid::no_nul("idempotency_key", &effect.idempotency_key)?;
        if effect.ended_at.is_some() == (effect.status == EffectStatus::Pending) {
            return Err(Invalid::new("ended_at", "must be set just when it is no longer pending"));
        }
        Ok(())
    };
}
impl Editable for Effect {}
