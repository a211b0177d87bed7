//! Brings commits to a repository: with leave, once, and never for a lease that is lost.

use std::time::Instant;

use lime_core::governance::{Action, ActionScope, Approval, ApprovalStatus, Verdict, verdict};
use lime_core::ports::{BranchState, CommitId};
use lime_core::repos::{CodeDiff, DiffStats, Repository};
use lime_core::runs::{AgentEvent, Effect, EffectKind};
use lime_core::{Error, ErrorKind, Id, LookupExt, Query, Result, Scope, Stored};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::checkout::{Checkout, Prepared, as_json};
use super::delivery::{Delivered, stat_line};
use super::dialogue::Dialogue;
use super::ending::Ending;
use super::questions::{Asked, LOOK, question, refusal};
use super::{Attempt, DELIVER, PREPARE};
use crate::asked::Stop;
use crate::effects::{Effects, Plan, Sight};
use crate::patience::persist;
use crate::recorder::Recorder;

const OPERATION: &str = "workspace.publish";

/// What a push is to bring about, and what was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Expected {
    repository: Id<Repository>,
    branch: String,
    was: Option<CommitId>,
    commit: CommitId,
}

/// A commit that an attempt brought to the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pushed {
    pub(super) branch: String,
    pub(super) commit: CommitId,
}

/// Whether the commit may be brought home.
pub(super) enum Leave {
    Given(Option<Id<Approval>>),
    Refused(String),
    /// The attempt has to stop.
    Stopped,
    /// A person said something more, which comes first.
    Spoken,
}

impl Expected {
    fn key(&self) -> String {
        let key = |branch: &str| format!("push:{}:{branch}:{}", self.repository, self.commit);
        let plain = key(&self.branch);
        if plain.chars().count() <= 200 {
            return plain;
        }
        // Cut, with all of it hashed, so that two long ones stay two.
        let hash = lime_core::governance::payload_hash(&json!(self.branch));
        key(&format!("{}~{}", self.branch.chars().take(40).collect::<String>(), &hash[..16]))
    }

    fn pushed(self) -> Pushed {
        Pushed { branch: self.branch, commit: self.commit }
    }
}

impl Pushed {
    /// What an effect says that it brought home.
    pub(super) fn of(effect: &Effect) -> Option<Self> {
        serde_json::from_value(effect.expected.clone()).ok().map(Expected::pushed)
    }
}

impl Attempt {
    /// Asks whoever must be asked whether the commit may be brought to the repository, and waits for the answer.
    pub(super) async fn leave_to_push(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
        commit: &CommitId,
        stats: &DiffStats,
    ) -> Result<Leave> {
        let (scope, branch) = (ActionScope::repo_push(), &checkout.workspace.branch);
        let policies = dialogue.questions.policies.clone();
        let policy = match verdict(&policies, self.claim.run.project_id, Action::Effect(&scope)) {
            Verdict::Allow => return Ok(Leave::Given(None)),
            Verdict::Deny => {
                let reason =
                    format!("A policy of this project does not allow runs to push; {branch} was left out.");
                return Ok(Leave::Refused(reason));
            }
            Verdict::Ask(policy) => policy,
        };
        let payload = json!({
            "repository": checkout.repository.full_name,
            "branch": branch,
            "baseCommit": checkout.workspace.base_commit,
            "commit": commit,
            "stats": stats,
        });
        let summary = format!("Push to {branch} of {}: {}.", checkout.repository.full_name, stat_line(stats));
        let action = branch.chars().take(200).collect();
        let question = question(policy, scope, action, None, summary, payload);
        let approval = match self.ask(recorder, &mut dialogue.questions, question).await? {
            Asked::Stored(approval) => *approval,
            Asked::Denied(reason) => return Ok(Leave::Refused(not_pushed(branch, &reason))),
        };
        dialogue.watchdog.hold(tokio::time::Instant::now());
        let leave = self.wait_for_leave(dialogue, branch, approval).await;
        dialogue.watchdog.release(tokio::time::Instant::now());
        leave
    }

    async fn wait_for_leave(
        &self,
        dialogue: &mut Dialogue,
        branch: &str,
        mut approval: Stored<Approval>,
    ) -> Result<Leave> {
        let mut news = self.asked.listen();
        loop {
            if approval.status.allows() {
                return Ok(Leave::Given(Some(approval.id)));
            }
            if approval.status != ApprovalStatus::Pending {
                return Ok(Leave::Refused(not_pushed(branch, &refusal(&approval))));
            }
            let told = *news.borrow_and_update();
            if told.stop.is_some() {
                return Ok(Leave::Stopped);
            }
            if self.is_spoken_to(dialogue, told.inputs).await? {
                return Ok(Leave::Spoken);
            }
            tokio::select! {
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            approval = self.answer_to(approval.id).await?;
        }
    }

    /// Whether a person has said something since the last look; it is for the next session.
    async fn is_spoken_to(&self, dialogue: &mut Dialogue, inputs: i32) -> Result<bool> {
        if inputs > dialogue.heard {
            dialogue.heard = inputs;
            dialogue.inputs = self.undelivered().await?;
        }
        Ok(!dialogue.inputs.is_empty())
    }

    /// Brings the commit to the repository, once.
    ///
    /// - The lease is proven right before, and the branch is moved only from where it was.
    pub(super) async fn push(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
        commit: &CommitId,
        approval: Option<Id<Approval>>,
    ) -> Result<Leave> {
        let (scope, workspace) = (self.claim.scope(), &checkout.workspace);
        let (storage, lease) = (&*self.parts.storage, self.claim.lease);
        let repos = self.parts.repos(checkout.repository.provider, OPERATION)?;
        let access = recorder.during(repos.access(&scope, &checkout.repository)).await?;
        recorder.flush().await?;
        let (held_until, signals) = persist(|| async {
            let begun = Instant::now();
            let signals = storage.heartbeat(&lease, self.config.lease).await?;
            Ok((begun + self.config.lease, signals))
        })
        .await?;
        if signals.pause {
            self.asked.ask(Stop::Pause);
        }
        if signals.cancel {
            self.asked.ask(Stop::Cancel);
        }
        if self.asked.stop().is_some_and(|stop| stop != Stop::HandBack) {
            return Ok(Leave::Stopped);
        }
        if self.is_spoken_to(dialogue, signals.inputs).await? {
            return Ok(Leave::Spoken);
        }
        let expected = Expected {
            repository: checkout.repository.id,
            branch: workspace.branch.clone(),
            was: workspace.branch_was.clone(),
            commit: commit.clone(),
        };
        let plan =
            Plan { kind: EffectKind::Push, key: expected.key(), expected: as_json(&expected)?, approval };
        let look = || self.look_at_branch(&checkout.repository, &expected);
        let act = || async {
            // A worker that was stopped in its tracks finds its lease run out by the clock, before it asks anybody.
            if Instant::now() >= held_until {
                return Err(Error::stale_lease(OPERATION, &lease));
            }
            self.workspaces()?.publish(workspace, &access, commit).await?;
            Ok(json!({ "commit": commit }))
        };
        self.effects(&scope).perform(plan, look, act).await?;
        Ok(Leave::Given(approval))
    }

    fn effects<'a>(&'a self, scope: &'a Scope) -> Effects<'a> {
        Effects { storage: &*self.parts.storage, clock: &*self.parts.clock, scope, lease: self.claim.lease }
    }

    async fn look_at_branch(&self, repository: &Stored<Repository>, expected: &Expected) -> Result<Sight> {
        let repos = self.parts.repos(repository.provider, OPERATION)?;
        let state = repos.branch_state(&self.claim.scope(), repository, &expected.branch).await?;
        let there = match state {
            BranchState::Missing => None,
            BranchState::At(commit) | BranchState::CheckedOut { commit, .. } => Some(commit),
        };
        Ok(if there.as_ref() == Some(&expected.commit) {
            Sight::Made(json!({ "commit": expected.commit }))
        } else if there == expected.was {
            Sight::Unmade
        } else {
            let there = there.map_or("gone".to_owned(), |commit| format!("at {commit}"));
            Sight::Other(format!("the branch {} is {there} by now", expected.branch))
        })
    }

    /// Looks whether a push that an earlier attempt was about to make was made.
    pub(super) async fn reconcile_push(&self, effect: Stored<Effect>) -> Result<Option<Pushed>> {
        let scope = self.claim.scope();
        let Ok(expected) = serde_json::from_value::<Expected>(effect.expected.clone()) else {
            tracing::warn!(effect = %effect.id, "what a push was to bring about cannot be read; it is left as it is");
            return Ok(None);
        };
        let repository = match self.shelf.repository(&scope, expected.repository).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            repository => repository?,
        };
        let sight = persist(|| self.look_at_branch(&repository, &expected)).await?;
        let made = self.effects(&scope).reconcile(effect, sight).await?;
        Ok(made.map(|_| expected.pushed()))
    }

    /// Does what comes after a push that an earlier attempt has made.
    pub(super) async fn finish_push(
        &self,
        recorder: &mut Recorder,
        pushed: &Pushed,
        ending: &mut Ending,
    ) -> Result<()> {
        recorder.enter(DELIVER);
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let of_run = || Query::all().filter(CodeDiff::AGENT_RUN_ID.eq(self.claim.lease.run)).newest_first();
        let diffs = persist(|| storage.all(&scope, of_run())).await?;
        let diff = diffs.into_iter().find(|diff| diff.head_ref == pushed.commit);
        let prepared = recorder.known_steps().get(PREPARE).and_then(|step| step.result.clone());
        let prepared = prepared.and_then(|result| serde_json::from_value::<Prepared>(result).ok());
        if let Some(diff) = &diff {
            let worktree = prepared.map(|prepared| prepared.worktree_id);
            self.note_on_ticket(&pushed.branch, worktree, &diff.stats).await?;
        }
        let short = pushed.commit.get(..12).unwrap_or(&pushed.commit);
        let text = format!("An earlier attempt has brought {short} to {}.", pushed.branch);
        ending.events.push(AgentEvent::system(text));
        let delivered = Delivered {
            commit: Some(pushed.commit.clone()),
            code_diff_id: diff.map(|diff| diff.id),
            branch: Some(pushed.branch.clone()),
            summary: None,
        };
        recorder.steps().complete(DELIVER, as_json(&delivered)?);
        Ok(())
    }
}

fn not_pushed(branch: &str, reason: &str) -> String {
    format!("The work was not pushed to {branch}. {reason}")
}
