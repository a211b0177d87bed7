//! Brings the work home: the diff, the commit, the branch, the ticket.

use lime_core::planning::Ticket;
use lime_core::ports::Changes;
use lime_core::repos::{CodeDiff, DiffStats};
use lime_core::runs::{AgentEvent, AgentMode, Outcome};
use lime_core::{Error, ErrorKind, Lookup, Result, Stored};
use serde_json::{Value as Json, json};

use super::checkout::Checkout;
use super::{Attempt, Ending};
use crate::paths::outside;
use crate::recorder::persist;

/// How often a ticket that somebody else changes at the same time is tried again.
const TICKET_TRIES: usize = 5;
/// The most characters of a commit's first line.
const SUBJECT_CHARS: usize = 72;

impl Attempt {
    /// Commits what the agent changed and brings it to the repository; what it says goes into the ending.
    pub(super) async fn deliver(&self, checkout: &Checkout, ending: &mut Ending) -> Result<Json> {
        let run = &self.claim.run;
        let workspaces = self.workspaces()?;
        let workspace = &checkout.workspace;
        let changes = workspaces.changes(workspace).await?;
        if matches!(run.mode, AgentMode::Plan | AgentMode::Review) {
            if !changes.paths.is_empty() {
                let text = format!(
                    "A run to {} changes nothing; {} were left out.",
                    run.mode,
                    files(changes.paths.len())
                );
                ending.events.push(AgentEvent::Log { text });
            }
            return Ok(json!({ "commit": null }));
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
            workspaces.commit(workspace, &message, &self.parts.author).await?
        };
        let Some(commit) = commit else {
            ending.events.push(AgentEvent::system("No changes."));
            ending.summary.get_or_insert_with(|| "No changes.".into());
            return Ok(json!({ "commit": null }));
        };
        let repos = self.parts.repos(checkout.repository.provider, "workspace.deliver")?;
        let access = repos.access(&self.claim.scope(), &checkout.repository).await?;
        self.prove_lease().await?;
        workspaces.publish(workspace, &access, &commit).await?;

        let summary = stat_line(&changes.stats);
        let diff = self.store_diff(checkout, &commit, &changes, &summary).await?;
        self.note_on_ticket(checkout, &changes.stats, &summary).await?;
        ending
            .events
            .push(AgentEvent::Diff { unified_diff: changes.unified_diff, summary: Some(summary.clone()) });
        let short = commit.get(..12).unwrap_or(&commit);
        let text = format!("Committed {short} to {}: {summary}.", workspace.branch);
        ending.events.push(AgentEvent::system(text));
        Ok(json!({ "commit": commit, "codeDiffId": diff.id, "branch": workspace.branch }))
    }

    /// The last look before something leaves the house: nothing outlives its lease.
    async fn prove_lease(&self) -> Result<()> {
        let storage = &self.parts.storage;
        persist(|| storage.heartbeat(&self.claim.lease, self.config.lease)).await.map(|_| ())
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

    async fn store_diff(
        &self,
        checkout: &Checkout,
        commit: &str,
        changes: &Changes,
        summary: &str,
    ) -> Result<Stored<CodeDiff>> {
        let diff = CodeDiff {
            agent_run_id: Some(self.claim.lease.run),
            repository_id: checkout.repository.id,
            base_ref: checkout.workspace.base_commit.clone(),
            head_ref: commit.to_owned(),
            unified_diff: changes.unified_diff.replace('\0', "\u{FFFD}"),
            summary: Some(summary.to_owned()),
            stats: changes.stats,
        };
        let (storage, scope) = (&self.parts.storage, self.claim.scope());
        persist(|| storage.insert(&scope, diff.clone())).await
    }

    /// Writes the branch and the size of the work on the ticket.
    async fn note_on_ticket(&self, checkout: &Checkout, stats: &DiffStats, summary: &str) -> Result<()> {
        let Some(id) = self.claim.run.ticket_id else {
            return Ok(());
        };
        let (storage, scope) = (&*self.parts.storage, self.claim.scope());
        for tries_left in (0..TICKET_TRIES).rev() {
            let mut ticket: Stored<Ticket> = Lookup::get(storage, &scope, id).await?;
            let count = |number: u32| i32::try_from(number).ok();
            ticket.value.branch = Some(checkout.workspace.branch.clone());
            ticket.value.worktree_id = Some(checkout.row.id);
            let now = self.parts.clock.now();
            let progress = &mut ticket.value.progress;
            progress.diff_summary = Some(summary.to_owned());
            progress.files_changed = count(stats.files_changed);
            progress.lines_added = count(stats.insertions);
            progress.lines_removed = count(stats.deletions);
            progress.started_at.get_or_insert(self.claim.run.started_at.unwrap_or(now));
            progress.completed_at = Some(now);
            match storage.update(&scope, &ticket).await {
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

fn stat_line(stats: &DiffStats) -> String {
    format!("{} changed, +{} -{}", files(stats.files_changed as usize), stats.insertions, stats.deletions)
}
