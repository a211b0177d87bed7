//! The agent at work: one session after another, until nobody wants more of it.

use lime_core::Result;
use lime_core::ports::{AgentProvider, SessionSpec};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Outcome};
use tokio::time::Instant;

use super::checkout::{Checkout, as_json};
use super::dialogue::{Dialogue, Start};
use super::earlier::Worked;
use super::ending::Ending;
use super::watchdog::Reached;
use super::{AGENT, Attempt, BROKEN_OFF, failure_kind};
use crate::recorder::Recorder;

impl Attempt {
    /// Has the agent do the work, and writes down how far it came.
    pub(super) async fn agent(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
    ) -> Result<Ending> {
        recorder.enter(AGENT);
        if let Start::GoOn { session, .. } = &dialogue.start {
            self.note_session(recorder, checkout, session)?;
        }
        let run = &self.claim.run;
        let ending = match self.parts.providers.get(&run.provider) {
            Some(provider) => {
                let talked = self.talk(&**provider, recorder, checkout, dialogue).await;
                self.pay(recorder, dialogue).await?;
                talked?
            }
            None => {
                let message = format!(
                    "This worker has no provider `{}`. Add it to the worker, or submit to another.",
                    run.provider
                );
                Ending::of(Outcome::Failed(Failure::new(FailureKind::InvalidRequest, message)))
            }
        };
        recorder.close_open_calls();
        match &ending.outcome {
            Outcome::Succeeded { summary } => {
                let worked = Worked {
                    outcome: Some(ending.outcome.as_str().to_owned()),
                    summary: summary.clone(),
                    tool_calls: recorder.tallies().to_vec(),
                    ..self.worked(recorder)
                };
                recorder.steps().complete(AGENT, as_json(&worked)?);
            }
            Outcome::Failed(failure) => recorder.steps().fail(AGENT, &failure.message),
            Outcome::Limited(limit) => {
                let reason =
                    ending.limit.clone().unwrap_or_else(|| format!("stopped at its limit of {limit}"));
                recorder.steps().fail(AGENT, &reason);
            }
            Outcome::Cancelled => recorder.steps().fail(AGENT, BROKEN_OFF),
        }
        Ok(ending)
    }

    async fn talk(
        &self,
        provider: &dyn AgentProvider,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
    ) -> Result<Ending> {
        loop {
            if let Some(reached) = self.afford(recorder, dialogue).await? {
                return Ok(limited(reached, None));
            }
            if self.asked.stop().is_some() {
                return Ok(Ending::of(Outcome::Cancelled));
            }
            let spec = match self.session_spec(checkout, dialogue, recorder.usage()) {
                Ok(spec) => spec,
                Err(reached) => return Ok(limited(reached, None)),
            };
            let ending = Box::pin(self.session(provider, spec, recorder, checkout, dialogue)).await?;
            match &ending.outcome {
                Outcome::Failed(failure) if failure.kind == FailureKind::SessionGone => {
                    if !matches!(dialogue.start, Start::GoOn { .. }) {
                        let said = failure.message.clone();
                        return Ok(gone(ending, &said));
                    }
                    let text = "The agent's session cannot be taken up any more; another one is begun.";
                    recorder.take(AgentEvent::Log { text: text.into() }).await?;
                    dialogue.inputs = std::mem::take(&mut dialogue.prompted);
                    dialogue.start = Start::Anew { again: true };
                    continue;
                }
                Outcome::Succeeded { .. } => {}
                Outcome::Failed(_) | Outcome::Cancelled | Outcome::Limited(_) => return Ok(ending),
            }
            for input in std::mem::take(&mut dialogue.prompted) {
                self.mark_delivered(recorder, &mut dialogue.said, input).await?;
            }
            dialogue.inputs = self.undelivered().await?;
            if dialogue.inputs.is_empty() {
                return Ok(ending);
            }
            dialogue.go_on(self.worked(recorder).session_id, false);
            let text = "A person said something more; the agent goes on.";
            recorder.take(AgentEvent::Log { text: text.into() }).await?;
        }
    }

    /// One session with the agent.
    async fn session(
        &self,
        provider: &dyn AgentProvider,
        spec: SessionSpec,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
    ) -> Result<Ending> {
        let started = tokio::select! {
            started = recorder.during(provider.start(spec)) => started,
            _ = self.asked.stopped() => return Ok(Ending::of(Outcome::Cancelled)),
        };
        let mut session = match started {
            Ok(session) => session,
            Err(error) => {
                let failure = Failure::new(failure_kind(&error), error.message());
                return Ok(Ending { stack: Some(error.report()), ..Ending::of(Outcome::Failed(failure)) });
            }
        };
        dialogue.watchdog.begin_session(Instant::now());
        dialogue.deaf = false;
        let followed = Box::pin(self.follow(recorder, &mut *session, checkout, dialogue)).await;
        if followed.is_err() {
            session.cancel().await;
        }
        let reached = followed?;
        let report = session.report().await;
        // The last word on usage is the report's, whatever events came before.
        if report.usage != recorder.session_usage() {
            recorder.take(AgentEvent::Usage(report.usage)).await?;
        }
        recorder.end_session();
        if let Some(session) = &report.session_id
            && self.worked(recorder).session_id.as_ref() != Some(session)
        {
            self.note_session(recorder, checkout, session)?;
        }
        tracing::info!(
            outcome = report.outcome.as_str(),
            denials = report.denials.len(),
            "the agent has ended"
        );
        Ok(match reached {
            Some(reached) => limited(reached, report.diagnostics),
            None => Ending { stack: report.diagnostics, ..Ending::of(report.outcome) },
        })
    }

    /// What is known of the agent's work so far.
    pub(super) fn worked(&self, recorder: &Recorder) -> Worked {
        let known = recorder.known_steps().get(AGENT).and_then(|step| step.result.clone());
        known.and_then(|known| serde_json::from_value(known).ok()).unwrap_or_default()
    }

    /// Writes down which session works where, so that it can be taken up.
    pub(super) fn note_session(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        session: &str,
    ) -> Result<()> {
        let worked = Worked {
            session_id: Some(session.to_owned()),
            place: Some(checkout.workspace.path.clone()),
            ..Worked::default()
        };
        recorder.steps().note(AGENT, as_json(&worked)?);
        Ok(())
    }
}

fn limited(reached: Reached, diagnostics: Option<String>) -> Ending {
    let Reached { limit, message } = reached;
    Ending { limit: Some(message), stack: diagnostics, ..Ending::of(Outcome::Limited(limit)) }
}

/// The session of another run is gone: that one's work is done, but this one cannot go on from it.
fn gone(ending: Ending, said: &str) -> Ending {
    let message = "The agent's session is not there any more, or was on another machine, so nothing can go on from it. \
                   Start a new run that says all that is wanted.";
    let stack = ending.stack.map_or_else(|| said.to_owned(), |stack| format!("{said}\n{stack}"));
    Ending {
        stack: Some(stack),
        ..Ending::of(Outcome::Failed(Failure::new(FailureKind::SessionGone, message)))
    }
}
