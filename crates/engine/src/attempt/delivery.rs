//! Brings the work home: the diff, the commit, the branch, the ticket.

use lime_core::planning::Ticket;
use lime_core::ports::Changes;
use lime_core::repos::{CodeDiff, DiffStats, Worktree};
use lime_core::runs::{AgentEvent, AgentMode, Effect, EffectStatus, Failure, FailureKind, Outcome};
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Result, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::Attempt;
use super::checkout::{Checkout, as_json};
use super::dialogue::Dialogue;
use super::ending::Ending;
use super::push::{Leave, Pushed};
use crate::paths::outside;
use crate::patience::persist;
use crate::recorder::Recorder;

/// How often a ticket that somebody else changes at the same time is tried again.
const TICKET_TRIES: usize = 5;
/// The most characters of a commit's first line.
const SUBJECT_CHARS: usize = 72;

/// How the delivery ended.
pub(super) enum Delivery {
    /// It is done, with this result.
    Done(Json),
    /// It must not be done.
    Refused(Failure),
    /// The attempt has to stop.
    Stopped,
    /// A person said something more, which the agent hears first.
    Spoken,
}

/// What the step `deliver` keeps for later attempts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivered {
    pub(super) commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_diff_id: Option<Id<CodeDiff>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) branch: Option<String>,
    /// The summary of the run, where it is not the agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) summary: Option<String>,
}

impl Attempt {
    /// Commits what the agent changed and brings it to the repository; what it says goes into the ending.
    pub(super) async fn deliver(
        &self,
        recorder: &mut Recorder,
        checkout: &Checkout,
        dialogue: &mut Dialogue,
        ending: &mut Ending,
    ) -> Result<Delivery> {
        let run = &self.claim.run;
        let workspaces = self.workspaces()?;
        let workspace = &checkout.workspace;
        let changes = recorder.during(workspaces.changes(workspace)).await?;
        if matches!(run.mode, AgentMode::Plan | AgentMode::Review) {
            if !changes.paths.is_empty() {
                let text = format!(
                    "A run to {} changes nothing; {} were left out.",
                    run.mode,
                    files(changes.paths.len())
                );
                ending.events.push(AgentEvent::Log { text });
            }
            return as_json(&Delivered::default()).map(Delivery::Done);
        }
        if let Some(allowed) = &run.allowed_paths {
            let outside = outside(&changes.paths, allowed);
            if !outside.is_empty() {
                let message = format!(
                    "the agent changed {}, which this run may not change; allowed: {}",
                    some(&outside),
                    allowed.join(", ")
                );
                return Err(Error::new(ErrorKind::PermissionDenied, "workspace.deliver", message));
            }
        }
        let message = self.commit_message(ending);
        let commit = if changes.paths.is_empty() {
            None // commits of the agent that cancel each other out are not worth a branch
        } else {
            recorder.during(workspaces.commit(workspace, &message, &self.parts.author)).await?
        };
        // A crash, or a person who had something to add, may have left diffs that were never brought home.
        let has_others = self.claim.attempt_number > 1 || dialogue.proposed;
        let Some(commit) = commit else {
            if has_others {
                self.forget_diffs(None).await?;
            }
            ending.events.push(AgentEvent::system("No changes."));
            let summary = ending.summary.get_or_insert_with(|| "No changes.".into()).clone();
            let delivered = Delivered { summary: Some(summary), ..Delivered::default() };
            return as_json(&delivered).map(Delivery::Done);
        };
        // Before the push: whoever is asked about it can see it, and after a crash it can be told.
        let summary = stat_line(&changes.stats);
        let diff = self.store_diff(checkout, &commit, &changes, &summary).await?;
        if has_others {
            self.forget_diffs(Some(diff)).await?;
        }
        dialogue.proposed = true;
        let unified_diff = changes.unified_diff;
        recorder.take(AgentEvent::Diff { unified_diff, summary: Some(summary.clone()) }).await?;
        let mut leave = self.leave_to_push(recorder, checkout, dialogue, &commit, &changes.stats).await?;
        if let Leave::Given(approval) = leave {
            leave = self.push(recorder, checkout, dialogue, &commit, approval).await?;
        }
        match leave {
            Leave::Given(_) => {}
            Leave::Refused(reason) => {
                return Ok(Delivery::Refused(Failure::new(FailureKind::PermissionDenied, reason)));
            }
            Leave::Stopped => return Ok(Delivery::Stopped),
            Leave::Spoken => return Ok(Delivery::Spoken),
        }
        self.note_on_ticket(&workspace.branch, Some(checkout.row.id), &changes.stats).await?;
        let short = commit.get(..12).unwrap_or(&commit);
        let text = format!("Committed {short} to {}: {summary}.", workspace.branch);
        ending.events.push(AgentEvent::system(text));
        let delivered = Delivered {
            commit: Some(commit),
            code_diff_id: Some(diff),
            branch: Some(workspace.branch.clone()),
            summary: None,
        };
        as_json(&delivered).map(Delivery::Done)
    }

    fn commit_message(&self, ending: &Ending) -> String {
        let run = &self.claim.run;
        let asked = run.input_prompt.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let subject = match asked.chars().count() {
            0..=SUBJECT_CHARS => asked.to_owned(),
            _ => format!("{}…", asked.chars().take(SUBJECT_CHARS - 1).collect::<String>().trim_end()),
        };
        let mut message = subject;
        if let Outcome::Succeeded { summary: Some(summary) } = &ending.outcome {
            message.push_str("\n\n");
            message.push_str(summary.trim());
        }
        message.push_str(&format!("\n\nLime-Run: {}\nLime-Provider: {}\n", run.id, run.provider));
        message
    }

    /// Stores the diff of a commit, unless an earlier attempt has.
    async fn store_diff(
        &self,
        checkout: &Checkout,
        commit: &str,
        changes: &Changes,
        summary: &str,
    ) -> Result<Id<CodeDiff>> {
        let (storage, scope) = (&self.parts.storage, self.claim.scope());
        if checkout.adopted {
            let of_run = || Query::all().filter(CodeDiff::AGENT_RUN_ID.eq(self.claim.lease.run));
            let known = persist(|| storage.all(&scope, of_run())).await?;
            if let Some(known) = known.into_iter().find(|known| known.head_ref == commit) {
                return Ok(known.id);
            }
        }
        let diff = CodeDiff {
            agent_run_id: Some(self.claim.lease.run),
            repository_id: checkout.repository.id,
            base_ref: checkout.workspace.base_commit.clone(),
            head_ref: commit.to_owned(),
            unified_diff: changes.unified_diff.replace('\0', "\u{FFFD}"),
            summary: Some(summary.to_owned()),
            stats: changes.stats,
        };
        persist(|| storage.insert(&scope, diff.clone())).await.map(|stored| stored.id)
    }

    /// Deletes the diffs that were to be brought home and were not, but for one that now is to be.
    async fn forget_diffs(&self, but: Option<Id<CodeDiff>>) -> Result<()> {
        let (storage, scope, run) = (&self.parts.storage, self.claim.scope(), self.claim.lease.run);
        let of_run = || Query::all().filter(CodeDiff::AGENT_RUN_ID.eq(run));
        let diffs = persist(|| storage.all(&scope, of_run())).await?;
        let made =
            || Query::all().filter(Effect::RUN_ID.eq(run)).filter(Effect::STATUS.eq(EffectStatus::Done));
        let made = persist(|| storage.all(&scope, made())).await?;
        let made: Vec<_> = made.iter().filter_map(|effect| Pushed::of(effect)).collect();
        let is_made = |diff: &Stored<CodeDiff>| made.iter().any(|made| made.commit == diff.head_ref);
        for diff in diffs.iter().filter(|diff| but != Some(diff.id) && !is_made(diff)) {
            match persist(|| storage.delete(&scope, diff)).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Writes the branch and the size of the work on the ticket.
    pub(super) async fn note_on_ticket(
        &self,
        branch: &str,
        worktree: Option<Id<Worktree>>,
        stats: &DiffStats,
    ) -> Result<()> {
        let Some(id) = self.claim.run.ticket_id else {
            return Ok(());
        };
        let (storage, scope) = (&*self.parts.storage, self.claim.scope());
        for tries_left in (0..TICKET_TRIES).rev() {
            let mut ticket: Stored<Ticket> = persist(|| Lookup::get(storage, &scope, id)).await?;
            let count = |number: u32| i32::try_from(number).ok();
            ticket.value.branch = Some(branch.to_owned());
            ticket.value.worktree_id = worktree.or(ticket.value.worktree_id);
            let now = self.parts.clock.now();
            let progress = &mut ticket.value.progress;
            progress.diff_summary = Some(stat_line(stats));
            progress.files_changed = count(stats.files_changed);
            progress.lines_added = count(stats.insertions);
            progress.lines_removed = count(stats.deletions);
            progress.started_at.get_or_insert(self.claim.run.started_at.unwrap_or(now));
            progress.completed_at = Some(now);
            match persist(|| storage.update(&scope, &ticket)).await {
                Err(error) if error.kind() == ErrorKind::Conflict && tries_left > 0 => {}
                result => return result.map(|_| ()),
            }
        }
        Ok(())
    }
}

fn files(count: usize) -> String {
    if count == 1 { "1 file".into() } else { format!("{count} files") }
}

fn some(paths: &[&str]) -> String {
    match paths {
        [one] => (*one).to_owned(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        [] => String::new(),
    }
}

pub(super) fn stat_line(stats: &DiffStats) -> String {
    format!("{} changed, +{} -{}", files(stats.files_changed as usize), stats.insertions, stats.deletions)
}
