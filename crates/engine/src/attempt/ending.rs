//! How an attempt ends: the run is settled, or given back to go on later.

use std::time::Duration;

use lime_core::governance::Decision;
use lime_core::ports::{Handback, HandbackReason, Settlement};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Outcome, ToolTally};
use lime_core::{ErrorKind, Result, Scope};

use super::Attempt;
use super::checkout::Checkout;
use super::earlier::Earlier;
use crate::asked::Stop;
use crate::config::KeepWorktree;
use crate::patience::persist;
use crate::recorder::Recorder;

/// How the work of an attempt ended, before it is settled.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) summary: Option<String>,
    pub(super) events: Vec<AgentEvent>,
    /// For the server side only.
    pub(super) stack: Option<String>,
    /// What a person is told about a limit.
    pub(super) limit: Option<String>,
}

/// Why a run goes on later.
enum Later {
    /// The worker stops, or the run was put on hold.
    Released,
    /// It failed in a way that may pass.
    Retry(Failure, Duration),
}

impl Ending {
    pub(super) fn of(outcome: Outcome) -> Self {
        Self { outcome, summary: None, events: Vec::new(), stack: None, limit: None }
    }

    pub(super) fn succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Succeeded { .. })
    }
}

impl Attempt {
    pub(super) async fn end(
        &self,
        recorder: &mut Recorder,
        earlier: Earlier,
        checkout: Option<Checkout>,
        ending: Ending,
    ) -> Result<()> {
        recorder.close_open_calls();
        match self.later(&ending) {
            Some(later) => self.hand_back(recorder, &earlier, checkout.is_some(), ending, later).await,
            None => self.settle(recorder, &earlier, checkout, ending).await,
        }
    }

    /// Whether the run goes on later, and why.
    fn later(&self, ending: &Ending) -> Option<Later> {
        if ending.succeeded() {
            return None;
        }
        if matches!(self.asked.stop(), Some(Stop::HandBack | Stop::Pause)) {
            return Some(Later::Released);
        }
        let Outcome::Failed(failure) = &ending.outcome else { return None };
        if failure.kind == FailureKind::Crashed && self.draining.is_cancelled() {
            // What ends a worker often ends its agents with it.
            return Some(Later::Released);
        }
        let tried = self.claim.run.failure_count;
        let pause = self.config.retry.pause(failure, tried, fastrand::f64())?;
        Some(Later::Retry(failure.clone(), pause))
    }

    /// Gives the run back; its checkout stays, for the next attempt to take over.
    async fn hand_back(
        &self,
        recorder: &mut Recorder,
        earlier: &Earlier,
        has_checkout: bool,
        ending: Ending,
        later: Later,
    ) -> Result<()> {
        let mut events = ending.events;
        let why = match later {
            Later::Released => {
                let why = if self.asked.stop() == Some(Stop::Pause) {
                    "It is put on hold"
                } else {
                    "The worker stops"
                };
                events.push(AgentEvent::Log { text: format!("{why}; the run goes on later.") });
                HandbackReason::Released
            }
            Later::Retry(failure, pause) => {
                let stack = Some(ending.stack.unwrap_or_else(|| failure.message.clone()));
                events.push(failure.clone().into_event(stack));
                events.push(AgentEvent::Log { text: self.tried_again(&failure, pause, has_checkout) });
                HandbackReason::Retry { failure, pause }
            }
        };
        recorder.flush().await?;
        let handback = Handback {
            why,
            usage: earlier.usage.plus(recorder.usage()),
            tool_calls: earlier.tallied(recorder.tallies()),
            events,
        };
        let storage = &self.parts.storage;
        let run = persist(|| storage.hand_back(&self.claim.lease, handback.clone())).await?;
        tracing::info!(status = %run.status, "handed back");
        Ok(())
    }

    fn tried_again(&self, failure: &Failure, pause: Duration, has_checkout: bool) -> String {
        let told = failure.retry_at.map(|at| (at - self.parts.clock.now()).to_std().unwrap_or_default());
        let seconds = told.map_or(pause, |told| told.max(pause)).as_secs_f64().ceil();
        let (next, most) = (self.claim.run.failure_count + 1, self.config.retry.most);
        let kept = if has_checkout { "; what there is so far is kept" } else { "" };
        format!("It is tried again in {seconds} s, for time {next} of {most}{kept}.")
    }

    async fn settle(
        &self,
        recorder: &mut Recorder,
        earlier: &Earlier,
        checkout: Option<Checkout>,
        ending: Ending,
    ) -> Result<()> {
        let succeeded = ending.succeeded();
        let Ending { outcome, summary, mut events, stack, limit } = ending;
        let kept = checkout.as_ref().map(|checkout| checkout.workspace.path.clone());
        let removed = match self.config.keep_worktrees {
            KeepWorktree::Never => true,
            KeepWorktree::Unfinished => succeeded || !self.has_work(checkout.as_ref()).await,
            KeepWorktree::Always => false,
        };
        self.clean_up(checkout, removed).await;
        match &outcome {
            Outcome::Failed(failure) => {
                let stack = Some(stack.unwrap_or_else(|| failure.message.clone()));
                events.push(failure.clone().into_event(stack));
            }
            Outcome::Limited(reached) => {
                let message =
                    limit.unwrap_or_else(|| format!("The agent was stopped at its limit of {reached}."));
                events.push(AgentEvent::Error { message, kind: None, stack });
            }
            Outcome::Cancelled => events.push(AgentEvent::system("Cancelled.")),
            Outcome::Succeeded { .. } => self.withdraw_questions(earlier).await?,
        }
        if let (false, false, Some(path)) = (removed, succeeded, kept) {
            events.push(AgentEvent::system(format!("The checkout is kept in {}.", path.display())));
        }
        recorder.flush().await?;
        let settlement = Settlement {
            outcome,
            summary,
            usage: earlier.usage.plus(recorder.usage()),
            tool_calls: earlier.tallied(recorder.tallies()),
            artifacts: Vec::new(),
            events,
        };
        let storage = &self.parts.storage;
        let run = persist(|| storage.settle(&self.claim.lease, settlement.clone())).await?;
        tracing::info!(status = %run.status, "settled");
        Ok(())
    }

    /// Answers the questions that nobody waits for any more: a run that waits for an answer cannot succeed.
    async fn withdraw_questions(&self, earlier: &Earlier) -> Result<()> {
        let (storage, lease) = (&self.parts.storage, &self.claim.lease);
        let scope = Scope::system(lease.tenant, "the run has ended without the answer");
        let note = || Some("The run went on to its end without this.".to_owned());
        for question in &earlier.questions {
            match persist(|| storage.decide(&scope, *question, Decision::Deny, note())).await {
                Err(error) if error.kind() != ErrorKind::Conflict => return Err(error),
                // Somebody has answered it meanwhile, or its time was up.
                Ok(_) | Err(_) => {}
            }
            persist(|| storage.answer(lease, *question)).await?;
        }
        Ok(())
    }
}

impl Earlier {
    /// What all the tools were called together, those of attempts that could not say so included.
    fn tallied(&self, tallies: &[ToolTally]) -> Vec<ToolTally> {
        let mut all = self.tallies.clone();
        for tally in tallies {
            match all.iter_mut().find(|known| known.tool == tally.tool) {
                Some(known) => {
                    known.count += tally.count;
                    known.total_duration_ms += tally.total_duration_ms;
                }
                None => all.push(tally.clone()),
            }
        }
        all
    }
}
