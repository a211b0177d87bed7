use chrono::{DateTime, Utc};

use crate::identity::User;
use crate::runs::{AgentRun, RunAttempt};
use crate::{Editable, Id, Invalid, entity};

/// Something that a person says to a run that has not ended (ours).
///
/// - Stored by [`Queue::say`](crate::ports::Queue::say); the worker hands it to the agent and marks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInput {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// Who says it; the software itself, if nobody.
    pub user_id: Option<Id<User>>,
    /// What is said, 1 to 50,000 characters.
    pub text: String,
    /// The attempt whose agent was told.
    pub attempt_id: Option<Id<RunAttempt>>,
    /// When its agent was told; nobody was told yet, if none.
    pub delivered_at: Option<DateTime<Utc>>,
}

entity! {
    RunInput as "run input" in "run_inputs" {
        RUN_ID: Id<AgentRun> = run_id => |input| input.run_id;
        USER_ID: Option<Id<User>> = user_id => |input| input.user_id;
        DELIVERED_AT: Option<DateTime<Utc>> = delivered_at => |input| input.delivered_at;
    }
    refers RUN_ID -> AgentRun Cascade;
    refers USER_ID -> User Restrict;
    validate |input| {
        Invalid::text("text", &input.text, 1, 50_000)?;
        Invalid::no_nul("text", &input.text)
    };
}
impl Editable for RunInput {}
