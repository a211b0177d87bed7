use std::fmt;

use chrono::{DateTime, Utc};

use crate::identity::Tenant;
use crate::runs::AgentRun;
use crate::words::words;
use crate::{Id, entity};

/// One worker's try at a run, for as long as its lease holds (ours).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAttempt {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// The number of the attempt, from 1.
    pub number: i32,
    /// The worker, by the name that it gave itself.
    pub worker: String,
    /// When it last showed a sign of life, on the database's clock.
    pub heartbeat_at: DateTime<Utc>,
    /// How it ended; none while it holds the lease.
    pub outcome: Option<AttemptEnd>,
    /// What went wrong, for operators.
    pub error: Option<String>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

words! {
    /// How an attempt ended.
    pub enum AttemptEnd: "outcome" {
        /// The run ended well.
        Succeeded = "succeeded",
        /// The run ended badly.
        Failed = "failed",
        /// The run was cancelled.
        Cancelled = "cancelled",
        /// The worker gave the run back.
        Released = "released",
        /// The lease ran out.
        Lost = "lost",
    }
}

entity! {
    RunAttempt as "attempt" in "run_attempts" {
        RUN_ID: Id<AgentRun> = run_id => |attempt| attempt.run_id;
        NUMBER: i32 = number => |attempt| attempt.number;
    }
    unique [RUN_ID, NUMBER];
    refers RUN_ID -> AgentRun Cascade;
    validate |_attempt| Ok(());
}

/// The right to work a run, until it is lost (DESIGN, rule 10).
///
/// - The attempt's id is the fencing token: a later attempt has another one, so a write under an old lease
///   finds no row to change.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The tenant of the run.
    pub tenant: Id<Tenant>,
    /// The run.
    pub run: Id<AgentRun>,
    /// The attempt that holds it.
    pub attempt: Id<RunAttempt>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease on run {} by attempt {}", self.run, self.attempt)
    }
}
