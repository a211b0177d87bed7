//! What earlier attempts at a run have left.

use std::path::PathBuf;

use lime_core::governance::{Approval, ApprovalStatus};
use lime_core::runs::{
    AgentEvent, AttemptEnd, Effect, EffectKind, EffectStatus, Outcome, RunAttempt, RunInput, RunStep,
    StepStatus, ToolTally, Usage,
};
use lime_core::{Id, LookupExt, Query, Result, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::checkout::Prepared;
use super::delivery::Delivered;
use super::ending::Ending;
use super::push::Pushed;
use super::{AGENT, Attempt, DELIVER, PREPARE};
use crate::patience::persist;
use crate::recorder::Recorder;
use crate::steps::attempt_of_turn;

/// How many of the newest attempts are looked at.
const ATTEMPTS: usize = 100;

/// What earlier attempts at a run have left; nothing, for the first.
#[derive(Default)]
pub(super) struct Earlier {
    /// The checkout of an attempt that ended by itself, to be taken over.
    pub(super) checkout: Option<Prepared>,
    /// The session in which it worked there.
    pub(super) session: Option<(String, PathBuf)>,
    /// What the agent said in the end, if it came to its end.
    pub(super) done: Option<Done>,
    /// What was brought to the repository.
    pub(super) pushed: Option<Pushed>,
    /// What the delivery gave, if it was done.
    delivered: Option<Json>,
    /// What people said that agents have heard.
    pub(super) said: Vec<String>,
    /// What people said that no agent has heard yet.
    pub(super) inputs: Vec<Stored<RunInput>>,
    /// Questions that are open, and that nobody may ask any more.
    pub(super) questions: Vec<Id<Approval>>,
    /// What attempts have used that were lost, and could not say so.
    pub(super) usage: Usage,
    /// The tools that they called.
    pub(super) tallies: Vec<ToolTally>,
}

/// How the agent came to its end in an earlier attempt.
#[derive(Debug, Clone, Default)]
pub(super) struct Done {
    pub(super) summary: Option<String>,
}

/// What the step `agent` keeps for later attempts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Worked {
    /// One word: how the agent ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) summary: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolTally>,
    /// The provider's id of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session_id: Option<String>,
    /// Where it works: a session is taken up only in the same place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<PathBuf>,
}

impl Attempt {
    /// Finds out what earlier attempts have left; effects that they may have had are looked for.
    pub(super) async fn look_back(&self, recorder: &mut Recorder) -> Result<Earlier> {
        if self.claim.attempt_number == 1 {
            return Ok(Earlier::default());
        }
        let (scope, run) = (self.claim.scope(), self.claim.lease.run);
        let storage = &*self.parts.storage;
        let (steps, attempts, effects, questions, inputs) = tokio::try_join!(
            persist(|| storage.all(&scope, Query::all().filter(RunStep::RUN_ID.eq(run)))),
            persist(|| async {
                let newest = Query::all().filter(RunAttempt::RUN_ID.eq(run)).newest_first().limit(ATTEMPTS);
                storage.list(&scope, &newest).await.map(|page| page.items)
            }),
            persist(|| storage.all(&scope, Query::all().filter(Effect::RUN_ID.eq(run)))),
            persist(|| {
                let open = Approval::STATUS.eq(ApprovalStatus::Pending);
                storage.all(&scope, Query::all().filter(Approval::RUN_ID.eq(run)).filter(open))
            }),
            persist(|| storage.all(&scope, Query::all().filter(RunInput::RUN_ID.eq(run)))),
        )?;
        let (heard, inputs): (Vec<_>, Vec<_>) =
            inputs.into_iter().partition(|input| input.delivered_at.is_some());
        recorder.steps().recall(steps.into_iter().map(|step| step.value));
        let steps = recorder.known_steps();
        let attempts: Vec<_> =
            attempts.into_iter().filter(|attempt| attempt.id != self.claim.lease.attempt).collect();

        let result = |key| steps.get(key).and_then(|step| Some((step.status, step.result.clone()?)));
        let worked: Option<(StepStatus, Worked)> =
            result(AGENT).and_then(|(status, result)| Some((status, serde_json::from_value(result).ok()?)));
        let lost: Vec<_> = attempts
            .iter()
            .take_while(|attempt| attempt.outcome == Some(AttemptEnd::Lost))
            .map(|attempt| attempt.number)
            .collect();
        let mut earlier = Earlier {
            checkout: steps
                .done(PREPARE)
                .and_then(|result| serde_json::from_value::<Prepared>(result.clone()).ok())
                .filter(|prepared| may_adopt(prepared.attempt, &attempts, self.claim.run.failure_count)),
            delivered: steps.done(DELIVER).cloned(),
            usage: lost_usage(steps.turns(), &lost),
            said: heard.into_iter().map(|input| input.value.text).collect(),
            inputs,
            questions: questions.into_iter().map(|question| question.id).collect(),
            ..Earlier::default()
        };
        if let Some((status, worked)) = worked {
            if status == StepStatus::Completed && worked.outcome.as_deref() == Some("succeeded") {
                earlier.done = Some(Done { summary: worked.summary });
                if !lost.is_empty() {
                    earlier.tallies = worked.tool_calls;
                }
            }
            earlier.session = worked.session_id.zip(worked.place);
        }
        earlier.pushed = self.look_for_pushes(effects).await?;
        Ok(earlier)
    }

    /// The newest push that was made, by this attempt's looking or an earlier one's word.
    async fn look_for_pushes(&self, effects: Vec<Stored<Effect>>) -> Result<Option<Pushed>> {
        let mut found = None;
        for effect in effects {
            match (effect.kind, effect.status) {
                (EffectKind::Push, EffectStatus::Pending) => {
                    found = self.reconcile_push(effect).await?.or(found);
                }
                (EffectKind::Push, EffectStatus::Done) => found = Pushed::of(&effect).or(found),
                (EffectKind::Push, EffectStatus::Abandoned) => {}
                (kind, status) => {
                    tracing::debug!(%kind, %status, "an effect that this engine does not know is left as it is");
                }
            }
        }
        Ok(found)
    }

    /// Ends the run where earlier attempts have done all the work; `None` if there is something left to do.
    ///
    /// - A person who said something after that wants more.
    pub(super) async fn finish_earlier(
        &self,
        recorder: &mut Recorder,
        earlier: &Earlier,
        hello: &str,
    ) -> Result<Option<Ending>> {
        if !earlier.inputs.is_empty() || earlier.pushed.is_none() && earlier.delivered.is_none() {
            return Ok(None);
        }
        recorder.take(AgentEvent::system(hello)).await?;
        let summary = earlier.done.clone().unwrap_or_default().summary;
        let mut ending = Ending::of(Outcome::Succeeded { summary });
        match (&earlier.delivered, &earlier.pushed) {
            (Some(delivered), _) => {
                let delivered: Option<Delivered> = serde_json::from_value(delivered.clone()).ok();
                ending.summary = delivered.and_then(|delivered| delivered.summary);
                ending.events.push(AgentEvent::Log {
                    text: "An earlier attempt has done all the work; there is nothing left to do.".into(),
                });
            }
            (None, Some(pushed)) => self.finish_push(recorder, pushed, &mut ending).await?,
            (None, None) => return Ok(None),
        }
        Ok(Some(ending))
    }

    /// Goes on with what the agent of an earlier attempt has done.
    pub(super) async fn take_over(&self, recorder: &mut Recorder, done: Done) -> Result<Ending> {
        let text = "The agent came to its end in an earlier attempt; its work is brought home.";
        recorder.take(AgentEvent::Log { text: text.into() }).await?;
        Ok(Ending::of(Outcome::Succeeded { summary: done.summary }))
    }
}

/// Whether the checkout of an attempt may be taken over: nobody can be writing there any more.
///
/// - It ended by itself, and so did all that came after it: given back, or to be tried again.
/// - After a failure for good, which a person has requeued, the work is done anew.
fn may_adopt(owner: Id<RunAttempt>, newest_first: &[Stored<RunAttempt>], failures: i32) -> bool {
    for attempt in newest_first {
        match attempt.outcome {
            Some(AttemptEnd::Released) => {}
            Some(AttemptEnd::Failed) if failures > 0 => {}
            None
            | Some(AttemptEnd::Failed | AttemptEnd::Succeeded | AttemptEnd::Cancelled | AttemptEnd::Lost) => {
                return false;
            }
        }
        if attempt.id == owner {
            return true;
        }
    }
    false
}

/// What the lost attempts have used, as far as they wrote it down.
fn lost_usage<'a>(turns: impl Iterator<Item = &'a RunStep>, lost: &[i32]) -> Usage {
    turns
        .filter(|turn| attempt_of_turn(&turn.step_key).is_some_and(|number| lost.contains(&number)))
        .filter_map(|turn| turn.usage)
        .fold(Usage::default(), Usage::plus)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn attempts(ends: &[AttemptEnd]) -> Vec<Stored<RunAttempt>> {
        let attempt = |(number, end): (i32, &AttemptEnd)| Stored {
            id: Id::new(number.into()),
            version: 1,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            value: RunAttempt {
                run_id: Id::new(1),
                number,
                worker: "w".into(),
                heartbeat_at: DateTime::UNIX_EPOCH,
                outcome: Some(*end),
                error: None,
                ended_at: Some(DateTime::UNIX_EPOCH),
            },
        };
        let mut attempts: Vec<_> = (1..).zip(ends).map(attempt).collect();
        attempts.reverse();
        attempts
    }

    #[test]
    fn only_a_checkout_that_nobody_can_write_to_any_more_is_taken_over() {
        use AttemptEnd::{Failed, Lost, Released};
        let may = |ends: &[AttemptEnd], owner, failures| may_adopt(Id::new(owner), &attempts(ends), failures);
        assert!(may(&[Released], 1, 0));
        assert!(may(&[Failed], 1, 1), "to be tried again");
        assert!(!may(&[Failed], 1, 0), "requeued after it failed for good");
        assert!(!may(&[Lost], 1, 0));
        assert!(may(&[Lost, Released], 2, 0), "the lost one worked elsewhere");
        assert!(!may(&[Released, Lost], 1, 0), "the lost one may have taken it over");
        assert!(may(&[Released, Failed, Released], 1, 1));
        assert!(!may(&[Released], 7, 0), "of an attempt that is not known");
    }
}
