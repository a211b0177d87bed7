//! Follows an agent at work: writes down what it does, and hands it what is meant for it.

use lime_core::Result;
use lime_core::governance::ApprovalStatus;
use lime_core::ports::AgentSession;
use lime_core::runs::AgentEvent;
use tokio::time::{Instant, sleep_until};

use super::Attempt;
use super::checkout::Checkout;
use super::dialogue::Dialogue;
use super::purse::LAST_WORDS;
use super::watchdog::Reached;
use crate::asked::{News, Stop};
use crate::recorder::Recorder;

impl Attempt {
    /// Records what the agent does until it ends or has to stop; gives the limit that stopped it.
    pub(super) async fn follow(
        &self,
        recorder: &mut Recorder,
        session: &mut dyn AgentSession,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
    ) -> Result<Option<Reached>> {
        let mut news = self.asked.listen();
        let mut knocks = 0;
        let mut stopping = false;
        let mut stopped_by = None;
        // It may not go on, and has this long for its end.
        let mut broke: Option<(Instant, Reached)> = None;
        loop {
            let mut wanted = None;
            let mut counted = false;
            let due = if stopping {
                recorder.due()
            } else {
                let end = broke.as_ref().map(|(end, _)| *end);
                [self.due(recorder, dialogue), end].into_iter().flatten().min()
            };
            tokio::select! {
                event = session.next_event() => {
                    let Some(event) = event else { break };
                    wanted = dialogue.watchdog.hear(&event, Instant::now());
                    match event {
                        AgentEvent::Approval { status: ApprovalStatus::Pending, .. } if !stopping => {
                            self.consider(recorder, session, dialogue, event).await?;
                        }
                        // The store's own words on questions and states are what is recorded.
                        AgentEvent::Approval { .. } | AgentEvent::Status { .. } => {}
                        event if dialogue.tools.is_settled(&event) => {}
                        event => {
                            counted = matches!(event, AgentEvent::Usage(_));
                            let violation = dialogue.tools.hear(&event);
                            self.note(recorder, checkout, dialogue, event).await?;
                            if let Some(violation) = violation {
                                recorder.take(violation.denied).await?;
                                wanted = Some(violation.reached);
                            }
                            wanted = wanted
                                .or_else(|| dialogue.overspent(&self.claim.run.constraints, recorder.usage()));
                        }
                    }
                }
                () = until(due) => {}
                Ok(()) = news.changed(), if !stopping => {}
            }
            let now = Instant::now();
            recorder.flush_if_due(now).await?;
            if stopping {
                continue;
            }
            let told: News = *news.borrow_and_update();
            if let Some(stop) = told.stop {
                stopping = true;
                if stop != Stop::Lost {
                    recorder.take(AgentEvent::Log { text: "Stopping the agent.".into() }).await?;
                }
                session.cancel().await;
                continue;
            }
            if told.inputs > dialogue.heard && !dialogue.deaf {
                dialogue.heard = told.inputs;
                self.pass_on(recorder, session, dialogue).await?;
            }
            if told.knocks != knocks || dialogue.questions.are_due(now) {
                knocks = told.knocks;
                self.look_for_answers(recorder, session, dialogue).await?;
            }
            if broke.is_none() && (counted || dialogue.purse.due().is_some_and(|due| due <= now)) {
                let reached = self.afford(recorder, dialogue).await?;
                broke = reached.map(|reached| (now + LAST_WORDS, reached));
            }
            wanted = wanted.or_else(|| dialogue.watchdog.reached(now));
            if let Some(reached) =
                wanted.or_else(|| broke.take_if(|(end, _)| *end <= now).map(|(_, why)| why))
            {
                stopping = true;
                stopped_by = Some(reached);
                session.cancel().await;
            }
        }
        dialogue.questions.end_session();
        dialogue.watchdog.release(Instant::now());
        Ok(stopped_by)
    }

    /// When there is something to do, whatever the agent does.
    fn due(&self, recorder: &Recorder, dialogue: &Dialogue) -> Option<Instant> {
        let purse = dialogue.purse.due();
        let all = [recorder.due(), dialogue.watchdog.deadline(), dialogue.questions.due(), purse];
        all.into_iter().flatten().min()
    }

    /// Records what the agent did, and what follows from it.
    async fn note(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
        event: AgentEvent,
    ) -> Result<()> {
        if !dialogue.prompted.is_empty() && is_work(&event) {
            for input in std::mem::take(&mut dialogue.prompted) {
                self.mark_delivered(recorder, &mut dialogue.said, input).await?;
            }
        }
        if let AgentEvent::Session { session_id, .. } = &event {
            self.note_session(recorder, checkout, session_id)?;
        }
        recorder.take(event).await
    }
}

/// Whether an agent that does this has heard its prompt.
fn is_work(event: &AgentEvent) -> bool {
    match event {
        AgentEvent::Message { .. }
        | AgentEvent::Delta { .. }
        | AgentEvent::Reasoning { .. }
        | AgentEvent::Tool { .. }
        | AgentEvent::Approval { .. } => true,
        AgentEvent::Status { .. }
        | AgentEvent::Session { .. }
        | AgentEvent::Log { .. }
        | AgentEvent::Diff { .. }
        | AgentEvent::Artifact { .. }
        | AgentEvent::Error { .. }
        | AgentEvent::Usage(_)
        | AgentEvent::Unknown(_) => false,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
