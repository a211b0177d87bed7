//! The phases of a run as steps.

use std::sync::Arc;

use lime_core::ports::{Clock, Storage};
use lime_core::runs::{AgentRun, RunStep, StepKind, StepStatus, Usage};
use lime_core::{Id, LookupExt, Query, Result, Scope, Stored};
use serde_json::Value as Json;

/// Writes the steps of one attempt; a second attempt goes on in the rows of the first.
pub(crate) struct Steps {
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
    scope: Scope,
    run: Id<AgentRun>,
    next_number: i32,
}

impl Steps {
    pub(crate) async fn open(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        scope: Scope,
        run: Id<AgentRun>,
    ) -> Result<Self> {
        let newest = Query::all().filter(RunStep::RUN_ID.eq(run)).newest_first();
        let last = storage.find(&scope, newest).await?.map_or(0, |step| step.step_number);
        Ok(Self { storage, clock, scope, run, next_number: last + 1 })
    }

    pub(crate) async fn begin(&mut self, key: &str) -> Result<Stored<RunStep>> {
        let step = RunStep {
            run_id: self.run,
            step_number: self.next_number,
            step_key: key.to_owned(),
            kind: StepKind::Phase,
            status: StepStatus::Running,
            model_id: None,
            usage: None,
            result: None,
            error: None,
            completed_at: None,
        };
        let known = Query::all().filter(RunStep::RUN_ID.eq(self.run)).filter(RunStep::STEP_KEY.eq(key));
        match self.storage.find(&self.scope, known).await? {
            Some(known) => {
                let value = RunStep { step_number: known.step_number, ..step };
                self.storage.update(&self.scope, &Stored { value, ..known }).await
            }
            None => {
                self.next_number += 1;
                self.storage.insert(&self.scope, step).await
            }
        }
    }

    pub(crate) async fn complete(&self, mut step: Stored<RunStep>, result: Json) -> Result<()> {
        step.value.status = StepStatus::Completed;
        step.value.result = Some(result);
        step.value.completed_at = Some(self.clock.now());
        self.storage.update(&self.scope, &step).await.map(|_| ())
    }

    pub(crate) async fn fail(&self, mut step: Stored<RunStep>, error: &str) -> Result<()> {
        step.value.status = StepStatus::Failed;
        step.value.error = Some(error.to_owned());
        step.value.completed_at = Some(self.clock.now());
        self.storage.update(&self.scope, &step).await.map(|_| ())
    }

    /// Writes down a call of the model (002): its number in the attempt, the model, and what it used.
    pub(crate) async fn turn(
        &mut self,
        attempt: i32,
        turn: u32,
        model: Option<&str>,
        usage: Usage,
    ) -> Result<()> {
        let key = if attempt == 1 { format!("turn:{turn}") } else { format!("turn:{attempt}.{turn}") };
        let step = RunStep {
            run_id: self.run,
            step_number: self.next_number,
            step_key: key,
            kind: StepKind::Turn,
            status: StepStatus::Completed,
            model_id: model.map(str::to_owned),
            usage: Some(usage),
            result: None,
            error: None,
            completed_at: Some(self.clock.now()),
        };
        self.next_number += 1;
        self.storage.insert(&self.scope, step).await.map(|_| ())
    }
}
