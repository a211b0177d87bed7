use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::runs::{AgentRun, Usage};
use crate::words::words;
use crate::{Editable, Id, Invalid, entity};

/// A part of a run that is done once (002, 004 run_steps).
///
/// - Unique by `(run, step_key)`: a second attempt finds the first one's result.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStep {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// The order within the run, from 1.
    pub step_number: i32,
    /// What it is, unique in the run: `prepare`, `agent`, `commit`, or `turn:3`; 1 to 200 characters.
    pub step_key: String,
    /// What kind it is.
    pub kind: StepKind,
    /// How far it is.
    pub status: StepStatus,
    /// The model that was asked, for a turn.
    pub model_id: Option<String>,
    /// What it used, for a turn.
    pub usage: Option<Usage>,
    /// What it gave, so that it need not be done again.
    pub result: Option<Json>,
    /// What went wrong.
    pub error: Option<String>,
    /// When it ended.
    pub completed_at: Option<DateTime<Utc>>,
}

words! {
    /// What kind of step it is.
    pub enum StepKind: "kind" {
        /// The factory's own work.
        Phase = "phase",
        /// A call of the model (002).
        Turn = "turn",
    }
}

words! {
    /// How far a step is (002).
    pub enum StepStatus: "status" {
        /// Began.
        Running = "running",
        /// Done.
        Completed = "completed",
        /// Went wrong.
        Failed = "failed",
    }
}

entity! {
    RunStep as "step" in "run_steps" {
        RUN_ID: Id<AgentRun> = run_id => |step| step.run_id;
        STEP_KEY: String = step_key => |step| step.step_key.clone();
        KIND: StepKind = kind => |step| step.kind;
        STATUS: StepStatus = status => |step| step.status;
    }
    unique [RUN_ID, STEP_KEY];
    refers RUN_ID -> AgentRun Cascade;
    validate |step| {
        Invalid::text("step_key", &step.step_key, 1, 200)?;
        Invalid::no_nul("step_key", &step.step_key)
    };
}
impl Editable for RunStep {}
