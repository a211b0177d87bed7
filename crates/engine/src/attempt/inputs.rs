//! What people say to the agent of a run.

use lime_core::ports::AgentSession;
use lime_core::runs::{AgentEvent, MessageRole, RunInput};
use lime_core::{ErrorKind, Lookup, LookupExt, Query, Result, Stored};

use super::Attempt;
use super::dialogue::Dialogue;
use crate::heartbeat;
use crate::patience::persist;
use crate::recorder::Recorder;

impl Attempt {
    /// What people said that no agent has heard yet, in order.
    pub(super) async fn undelivered(&self) -> Result<Vec<Stored<RunInput>>> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        if !self.asked.has_inputs() {
            // The line knows whether anybody has said anything, and tells all attempts that ask in one go.
            persist(|| heartbeat::once(storage, self.claim.lease, &self.config, &self.asked)).await?;
            if !self.asked.has_inputs() {
                return Ok(Vec::new());
            }
        }
        let unheard = || {
            Query::all()
                .filter(RunInput::RUN_ID.eq(self.claim.lease.run))
                .filter(RunInput::DELIVERED_AT.is_null())
        };
        persist(|| storage.all(&scope, unheard())).await
    }

    /// Hands the agent what people have said since it began; what it cannot hear any more waits for the next session.
    pub(super) async fn pass_on(
        &self,
        recorder: &mut Recorder,
        session: &mut dyn AgentSession,
        dialogue: &mut Dialogue,
    ) -> Result<()> {
        for input in self.undelivered().await? {
            if dialogue.prompted.iter().any(|prompted| prompted.id == input.id) {
                continue;
            }
            match session.send(&input.text).await {
                Ok(true) => self.mark_delivered(recorder, &mut dialogue.said, input).await?,
                Ok(false) => break,
                Err(error) => {
                    if error.kind() != ErrorKind::Unsupported {
                        tracing::warn!(%error, "the agent could not be told what a person said");
                    }
                    dialogue.deaf = true;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes down that the agent was told.
    pub(super) async fn mark_delivered(
        &self,
        recorder: &mut Recorder,
        said: &mut Vec<String>,
        mut input: Stored<RunInput>,
    ) -> Result<()> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        input.value.attempt_id = Some(self.claim.lease.attempt);
        input.value.delivered_at = Some(self.parts.clock.now());
        match persist(|| storage.update(&scope, &input)).await {
            // Only this attempt writes it now, so it was a try of our own that seemed to fail.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let now: Stored<RunInput> = persist(|| Lookup::get(storage, &scope, input.id)).await?;
                if now.delivered_at.is_none() {
                    return Err(error);
                }
            }
            marked => drop(marked?),
        }
        let text = input.value.text;
        said.push(text.clone());
        recorder.take(AgentEvent::Message { role: MessageRole::User, text }).await
    }
}
