//! Questions to people about what the agent wants to do.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lime_core::governance::{
    Action, ActionScope, Approval, ApprovalPolicy, ApprovalStatus, Verdict, payload_hash, verdict,
};
use lime_core::ports::{AgentSession, Question, ToolAnswer};
use lime_core::runs::AgentEvent;
use lime_core::{ErrorKind, Id, LookupExt, Query, Result, Stored};
use serde_json::Value as Json;
use tokio::time::Instant;

use super::Attempt;
use super::dialogue::Dialogue;
use crate::patience::persist;
use crate::recorder::Recorder;

/// How often an answer is looked for that nobody has told of.
pub(super) const LOOK: Duration = Duration::from_secs(1);

const POLICY_DENIES: &str =
    "A policy of this project does not allow it. Do it another way, or go on without it.";

/// The questions of one attempt.
pub(super) struct Questions {
    pub(super) policies: Arc<[ApprovalPolicy]>,
    /// What the run has asked, as scope, action and hash; not read yet, if none.
    asked: Option<HashSet<(ActionScope, String, String)>>,
    /// Open ones that no agent waits for.
    left: Vec<Id<Approval>>,
    open: Vec<Open>,
    /// Calls that wait until the open question about the same action is answered, which they would make void.
    waiting: VecDeque<Call>,
    look_at: Option<Instant>,
}

/// A question that is open, and the call that waits for its answer.
struct Open {
    approval: Id<Approval>,
    scope: ActionScope,
    action: String,
    call_id: String,
}

/// A call that needs leave.
struct Call {
    call_id: String,
    scope: ActionScope,
    action: String,
    summary: String,
    payload: Json,
}

/// What came of asking.
pub(super) enum Asked {
    /// The question is stored, open or answered.
    Stored(Box<Stored<Approval>>),
    /// It cannot be asked, so it is denied for this reason.
    Denied(String),
}

impl Questions {
    pub(super) fn new(policies: Arc<[ApprovalPolicy]>, left: Vec<Id<Approval>>) -> Self {
        Self { policies, asked: None, left, open: Vec::new(), waiting: VecDeque::new(), look_at: None }
    }

    /// When an answer is to be looked for.
    pub(super) fn due(&self) -> Option<Instant> {
        self.look_at
    }

    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|time| time <= now)
    }

    /// The agent has ended, and waits for nothing.
    pub(super) fn end_session(&mut self) {
        self.left.extend(self.open.drain(..).map(|open| open.approval));
        self.waiting.clear();
        self.look_at = None;
    }

    /// The open questions that nobody waits for.
    pub(super) fn leftovers(&mut self) -> Vec<Id<Approval>> {
        std::mem::take(&mut self.left)
    }

    fn is_open(&self, call: &Call) -> bool {
        self.open.iter().any(|open| open.scope == call.scope && open.action == call.action)
    }
}

impl Attempt {
    /// Answers a call that the agent asks leave for, at once or after a person has.
    pub(super) async fn consider(
        &self,
        recorder: &mut Recorder,
        session: &mut dyn AgentSession,
        dialogue: &mut Dialogue,
        event: AgentEvent,
    ) -> Result<()> {
        let AgentEvent::Approval { scope, action, call_id, summary, payload, .. } = event else {
            return Ok(());
        };
        let call = Call {
            call_id: call_id.unwrap_or_default(),
            scope,
            action: action.chars().take(200).collect(),
            summary,
            payload: payload.unwrap_or_default(),
        };
        if call.scope.as_str() == ActionScope::TOOL
            && let Err(denied) = dialogue.tools.check(&call.action, &call.payload)
        {
            session.answer(&call.call_id, ToolAnswer::Deny(denied.to_string())).await;
            return Ok(());
        }
        if dialogue.questions.is_open(&call) {
            dialogue.questions.waiting.push_back(call);
            return Ok(());
        }
        self.ask_for(recorder, session, dialogue, call).await
    }

    async fn ask_for(
        &self,
        recorder: &mut Recorder,
        session: &mut dyn AgentSession,
        dialogue: &mut Dialogue,
        call: Call,
    ) -> Result<()> {
        let policies = dialogue.questions.policies.clone();
        let action = match call.scope.as_str() {
            ActionScope::TOOL => Action::Tool { tool: &call.action, input: &call.payload },
            _ => Action::Effect(&call.scope),
        };
        let policy = match verdict(&policies, self.claim.run.project_id, action) {
            Verdict::Allow => {
                session.answer(&call.call_id, ToolAnswer::Allow).await;
                return Ok(());
            }
            Verdict::Deny => {
                session.answer(&call.call_id, ToolAnswer::Deny(POLICY_DENIES.into())).await;
                return Ok(());
            }
            Verdict::Ask(policy) => policy,
        };
        let Call { call_id, scope, action, summary, payload } = call;
        let question = question(policy, scope, action, Some(call_id.clone()), summary, payload);
        match self.ask(recorder, &mut dialogue.questions, question).await? {
            Asked::Denied(reason) => session.answer(&call_id, ToolAnswer::Deny(reason)).await,
            Asked::Stored(approval) if approval.status == ApprovalStatus::Pending => {
                let Approval { scope, action, .. } = approval.value;
                let now = Instant::now();
                dialogue.questions.open.push(Open { approval: approval.id, scope, action, call_id });
                dialogue.questions.look_at.get_or_insert(now + LOOK);
                dialogue.watchdog.hold(now);
            }
            Asked::Stored(approval) => session.answer(&call_id, answer(&approval)).await,
        }
        Ok(())
    }

    /// Asks a person, unless the run has asked too much already.
    pub(super) async fn ask(
        &self,
        recorder: &mut Recorder,
        questions: &mut Questions,
        question: Question,
    ) -> Result<Asked> {
        // The log tells what led to a question before it tells of it.
        recorder.flush().await?;
        if question.payload.to_string().len() > AgentEvent::MAX_TEXT_BYTES {
            let reason = format!(
                "It is too large for a person to judge; keep it below {} KiB.",
                AgentEvent::MAX_TEXT_BYTES >> 10
            );
            return Ok(Asked::Denied(reason));
        }
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let asked = match &mut questions.asked {
            Some(asked) => asked,
            slot => {
                let of_run = || Query::all().filter(Approval::RUN_ID.eq(self.claim.lease.run));
                let known = persist(|| storage.all(&scope, of_run())).await?;
                let key = |known: Stored<Approval>| {
                    (known.value.scope, known.value.action, known.value.payload_hash)
                };
                slot.insert(known.into_iter().map(key).collect())
            }
        };
        let key = (question.scope.clone(), question.action.clone(), payload_hash(&question.payload));
        if !asked.contains(&key) && asked.len() >= self.config.max_questions {
            let reason = format!(
                "This run has asked people {} questions already, and may ask no more. Go on without it.",
                asked.len()
            );
            return Ok(Asked::Denied(reason));
        }
        let approval = match persist(|| storage.ask(&self.claim.lease, question.clone())).await {
            Ok(approval) => approval,
            Err(error) if error.kind() == ErrorKind::Invalid => {
                return Ok(Asked::Denied(format!("It cannot be asked: {}.", error.message())));
            }
            Err(error) => return Err(error),
        };
        asked.insert(key);
        questions.left.retain(|left| *left != approval.id);
        Ok(Asked::Stored(Box::new(approval)))
    }

    /// Looks for answers, and hands them to the agent.
    pub(super) async fn look_for_answers(
        &self,
        recorder: &mut Recorder,
        session: &mut dyn AgentSession,
        dialogue: &mut Dialogue,
    ) -> Result<()> {
        let mut at = 0;
        while let Some(open) = dialogue.questions.open.get(at) {
            let approval = self.answer_to(open.approval).await?;
            if approval.status == ApprovalStatus::Pending {
                at += 1;
                continue;
            }
            let open = dialogue.questions.open.remove(at);
            session.answer(&open.call_id, answer(&approval)).await;
        }
        for call in std::mem::take(&mut dialogue.questions.waiting) {
            if dialogue.questions.is_open(&call) {
                dialogue.questions.waiting.push_back(call);
            } else {
                self.ask_for(recorder, session, dialogue, call).await?;
            }
        }
        let now = Instant::now();
        if dialogue.questions.open.is_empty() {
            dialogue.questions.look_at = None;
            dialogue.watchdog.release(now);
        } else {
            dialogue.questions.look_at = Some(now + LOOK);
        }
        Ok(())
    }

    pub(super) async fn answer_to(&self, question: Id<Approval>) -> Result<Stored<Approval>> {
        persist(|| self.parts.storage.answer(&self.claim.lease, question)).await
    }
}

/// The question that a policy asks for.
pub(super) fn question(
    policy: &ApprovalPolicy,
    scope: ActionScope,
    action: String,
    call_id: Option<String>,
    summary: String,
    payload: Json,
) -> Question {
    let summary = if summary.trim().is_empty() { format!("May it do this: {action}?") } else { summary };
    Question {
        scope,
        action,
        call_id,
        intent_summary: summary.chars().take(1_000).collect(),
        payload,
        approvers: policy.approvers.clone(),
        expires_after_s: policy.expires_after_s,
        on_expiry: policy.on_expiry,
    }
}

/// What an answered question means for the call.
fn answer(approval: &Approval) -> ToolAnswer {
    if approval.status.allows() { ToolAnswer::Allow } else { ToolAnswer::Deny(refusal(approval)) }
}

/// Why an answered question means no.
pub(super) fn refusal(approval: &Approval) -> String {
    let note = approval.note.as_deref().map(str::trim).filter(|note| !note.is_empty());
    match (approval.status, note) {
        (ApprovalStatus::Denied, Some(note)) => format!("A person refused it: {note}"),
        (ApprovalStatus::Expired, _) => "Nobody answered in time, which means no.".into(),
        (ApprovalStatus::Void, _) => "What was asked about has changed, so the question is void.".into(),
        (
            ApprovalStatus::Pending
            | ApprovalStatus::Approved
            | ApprovalStatus::Denied
            | ApprovalStatus::Defaulted,
            _,
        ) => "A person refused it.".into(),
    }
}
