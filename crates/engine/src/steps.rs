//! The phases of a run and the calls of its model, as steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use lime_core::Id;
use lime_core::ports::Clock;
use lime_core::runs::{AgentRun, RunStep, StepKind, StepStatus, Usage};
use serde_json::Value as Json;

/// What is known of a run's steps; what has changed is written with the next record.
///
/// - A later attempt goes on in the steps of the earlier ones, once it was told of them.
pub(crate) struct Steps {
    run: Id<AgentRun>,
    clock: Arc<dyn Clock>,
    known: Vec<RunStep>,
    changed: BTreeSet<usize>,
}

impl Steps {
    pub(crate) fn new(run: Id<AgentRun>, clock: Arc<dyn Clock>) -> Self {
        Self { run, clock, known: Vec::new(), changed: BTreeSet::new() }
    }

    /// What earlier attempts have written.
    pub(crate) fn recall(&mut self, steps: impl IntoIterator<Item = RunStep>) {
        self.known.extend(steps);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&RunStep> {
        self.known.iter().find(|step| step.step_key == key)
    }

    /// The result of a step that was done.
    pub(crate) fn done(&self, key: &str) -> Option<&Json> {
        self.get(key).filter(|step| step.status == StepStatus::Completed)?.result.as_ref()
    }

    /// The steps of the model's calls.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &RunStep> {
        self.known.iter().filter(|step| step.kind == StepKind::Turn)
    }

    /// The step of this key, to be changed; a new one if there is none.
    fn at(&mut self, key: &str, kind: StepKind) -> &mut RunStep {
        let at = self.known.iter().position(|step| step.step_key == key).unwrap_or_else(|| {
            let last = self.known.iter().map(|step| step.step_number).max().unwrap_or_default();
            self.known.push(RunStep {
                run_id: self.run,
                step_number: last + 1,
                step_key: key.to_owned(),
                kind,
                status: StepStatus::Running,
                model_id: None,
                usage: None,
                result: None,
                error: None,
                completed_at: None,
            });
            self.known.len() - 1
        });
        self.changed.insert(at);
        &mut self.known[at]
    }

    /// A phase begins, for the first time or again; what came of it before is forgotten.
    pub(crate) fn begin(&mut self, key: &str) {
        let step = self.at(key, StepKind::Phase);
        (step.status, step.result, step.error, step.completed_at) = (StepStatus::Running, None, None, None);
    }

    /// What is known of a phase before it ends.
    pub(crate) fn note(&mut self, key: &str, result: Json) {
        self.at(key, StepKind::Phase).result = Some(result);
    }

    pub(crate) fn complete(&mut self, key: &str, result: Json) {
        let now = self.clock.now();
        let step = self.at(key, StepKind::Phase);
        (step.status, step.result, step.completed_at) = (StepStatus::Completed, Some(result), Some(now));
    }

    /// A phase went wrong, or was broken off; what is known of it stays.
    pub(crate) fn fail(&mut self, key: &str, error: &str) {
        let now = self.clock.now();
        let step = self.at(key, StepKind::Phase);
        (step.status, step.error, step.completed_at) =
            (StepStatus::Failed, Some(error.to_owned()), Some(now));
    }

    /// A call of the model (002): its number in the attempt, the model, and what more it used.
    pub(crate) fn turn(&mut self, attempt: i32, turn: u32, model: Option<&str>, used: Usage) {
        let now = self.clock.now();
        let step = self.at(&turn_key(attempt, turn), StepKind::Turn);
        step.status = StepStatus::Completed;
        step.model_id = model.map(str::to_owned);
        step.usage = Some(step.usage.unwrap_or_default().plus(used));
        step.completed_at = Some(now);
    }

    /// What is to be written.
    pub(crate) fn take_changed(&mut self) -> Vec<RunStep> {
        std::mem::take(&mut self.changed).into_iter().map(|at| self.known[at].clone()).collect()
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

/// Attempts number their turns anew, so a later one says which it is.
fn turn_key(attempt: i32, turn: u32) -> String {
    if attempt == 1 { format!("turn:{turn}") } else { format!("turn:{attempt}.{turn}") }
}

/// The attempt that a turn's step belongs to.
pub(crate) fn attempt_of_turn(key: &str) -> Option<i32> {
    match key.strip_prefix("turn:")?.split_once('.') {
        Some((attempt, _)) => attempt.parse().ok(),
        None => Some(1),
    }
}
