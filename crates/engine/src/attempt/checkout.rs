//! The checkout that an attempt works in.

use std::sync::Arc;

use lime_core::ports::{Workspace, WorkspaceSpec, Workspaces};
use lime_core::repos::{Repository, Worktree, WorktreeStatus};
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, RunAttempt, RunStatus, RunStep};
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Result, Stored};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::earlier::Earlier;
use super::{Attempt, PREPARE};
use crate::patience::persist;
use crate::recorder::Recorder;

const OPERATION: &str = "workspace.prepare";

/// A checkout, its row, and how to bring the work home.
pub(super) struct Checkout {
    pub(super) repository: Arc<Stored<Repository>>,
    pub(super) workspace: Workspace,
    pub(super) row: Stored<Worktree>,
    /// It was an earlier attempt's, or that of the run that this one goes on from.
    pub(super) adopted: bool,
    made_for: Id<AgentRun>,
}

/// What the step `prepare` keeps for later attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prepared {
    pub(super) worktree_id: Id<Worktree>,
    /// The attempt that works there.
    pub(super) attempt: Id<RunAttempt>,
    /// The run that it was made for, which is how the workspaces know it.
    pub(super) made_for: Id<AgentRun>,
    #[serde(flatten)]
    pub(super) workspace: Workspace,
}

impl Attempt {
    pub(super) fn workspaces(&self) -> Result<&dyn Workspaces> {
        self.parts.workspaces.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, OPERATION, "this factory was not given workspaces")
        })
    }

    /// Takes over the checkout that there is, or makes one; `false` if the attempt has to stop meanwhile.
    pub(super) async fn check_out(
        &self,
        recorder: &mut Recorder,
        earlier: &Earlier,
        slot: &mut Option<Checkout>,
    ) -> Result<bool> {
        let checkout = match Box::pin(recorder.during(self.prepare(earlier))).await {
            Ok(Some(checkout)) => slot.insert(checkout),
            Ok(None) => return Ok(false),
            Err(error) => {
                recorder.steps().fail(PREPARE, error.message());
                return Err(error);
            }
        };
        let prepared = Prepared {
            worktree_id: checkout.row.id,
            attempt: self.claim.lease.attempt,
            made_for: checkout.made_for,
            workspace: checkout.workspace.clone(),
        };
        recorder.steps().complete(PREPARE, as_json(&prepared)?);
        let Workspace { branch, base, .. } = &checkout.workspace;
        let text = match checkout.adopted {
            true => format!("Going on in the checkout of the branch {branch}."),
            false => format!("Working on the branch {branch}, from {base}."),
        };
        recorder.take(AgentEvent::Log { text }).await?;
        Ok(true)
    }

    async fn prepare(&self, earlier: &Earlier) -> Result<Option<Checkout>> {
        let (scope, run) = (self.claim.scope(), &self.claim.run);
        let Some(repository) = run.repository_id else {
            return Err(Error::invalid(OPERATION, "the run's repository is gone; there is nowhere to work"));
        };
        let repository = self.shelf.repository(&scope, repository).await?;
        let access = self.parts.repos(repository.provider, OPERATION)?.access(&scope, &repository).await?;
        let base =
            earlier.pushed.as_ref().map(|pushed| pushed.branch.clone()).or_else(|| run.base_ref.clone());
        let mut spec = WorkspaceSpec {
            tenant: self.claim.lease.tenant,
            run: run.id,
            attempt: self.claim.lease.attempt,
            repository: repository.id,
            access,
            base: base.unwrap_or_else(|| repository.default_branch.clone()),
            branch: run.branch.clone().unwrap_or_else(|| format!("lime/run-{}", run.id)),
            place: None,
        };
        let mut found = earlier.checkout.clone();
        if found.is_none()
            && let Some(parent) = run.parent_run_id
        {
            let parents = self.parents_checkout(parent).await?;
            spec.place = parents.as_ref().map(|(prepared, _)| prepared.workspace.path.clone());
            found = parents.filter(|(_, kept)| *kept).map(|(prepared, _)| prepared);
        }
        if let Some(prepared) = found
            && let Some(workspace) = self.adopt(&spec, &prepared).await?
            && let Some(row) = self.take_row(&prepared, &repository, &workspace).await?
        {
            let made_for = prepared.made_for;
            return Ok(Some(Checkout { repository, workspace, row, adopted: true, made_for }));
        }
        // Only this may be broken off, since it clears up after itself: a checkout that is made gets its row.
        let workspace = tokio::select! {
            workspace = self.workspaces()?.prepare(&spec) => workspace?,
            _ = self.asked.stopped() => return Ok(None),
        };
        match self.insert_row(&repository, &workspace).await {
            Ok(row) => Ok(Some(Checkout { repository, workspace, row, adopted: false, made_for: run.id })),
            Err(error) => {
                self.remove(&workspace).await;
                Err(error)
            }
        }
    }

    async fn adopt(&self, spec: &WorkspaceSpec, prepared: &Prepared) -> Result<Option<Workspace>> {
        let spec = WorkspaceSpec {
            run: prepared.made_for,
            base: prepared.workspace.base.clone(),
            place: None,
            ..spec.clone()
        };
        match self.workspaces()?.adopt(&spec, &prepared.workspace).await {
            Ok(adopted) => Ok(adopted),
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "an earlier checkout cannot be taken over; a fresh one is made");
                Ok(None)
            }
        }
    }

    /// The last checkout of the run that this one goes on from, and whether its work can be taken over.
    ///
    /// - None where its worker was lost: its agent may still write there.
    async fn parents_checkout(&self, parent: Id<AgentRun>) -> Result<Option<(Prepared, bool)>> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let prepare =
            || Query::all().filter(RunStep::RUN_ID.eq(parent)).filter(RunStep::STEP_KEY.eq(PREPARE));
        let step = persist(|| storage.find(&scope, prepare())).await?;
        let prepared = step.and_then(|step| serde_json::from_value::<Prepared>(step.value.result?).ok());
        let Some(prepared) = prepared else { return Ok(None) };
        let attempt: Stored<RunAttempt> = persist(|| Lookup::get(storage, &scope, prepared.attempt)).await?;
        if matches!(attempt.outcome, None | Some(AttemptEnd::Lost)) {
            return Ok(None);
        }
        let run: Stored<AgentRun> = persist(|| Lookup::get(storage, &scope, parent)).await?;
        let row = match persist(|| Lookup::<Worktree>::get(storage, &scope, prepared.worktree_id)).await {
            Ok(row) => Some(row),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let kept =
            row.is_some_and(|row| row.status == WorktreeStatus::Active && row.agent_run_id == Some(parent));
        Ok(Some((prepared, kept && run.status != RunStatus::Succeeded)))
    }

    /// The row of a checkout that is taken over, which is this run's from now on; `None` if another run was quicker.
    async fn take_row(
        &self,
        prepared: &Prepared,
        repository: &Stored<Repository>,
        workspace: &Workspace,
    ) -> Result<Option<Stored<Worktree>>> {
        let (scope, storage) = (self.claim.scope(), &*self.parts.storage);
        let ours = Some(self.claim.lease.run);
        let row = match persist(|| Lookup::<Worktree>::get(storage, &scope, prepared.worktree_id)).await {
            Ok(row) if row.agent_run_id == ours => return Ok(Some(row)),
            Ok(row) => row,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.insert_row(repository, workspace).await.map(Some);
            }
            Err(error) => return Err(error),
        };
        let value = Worktree { agent_run_id: ours, ..row.value };
        let row = Stored { value, ..row };
        match persist(|| storage.update(&scope, &row)).await {
            Ok(row) => Ok(Some(row)),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let now: Stored<Worktree> = persist(|| Lookup::get(storage, &scope, row.id)).await?;
                Ok((now.agent_run_id == ours).then_some(now))
            }
            Err(error) => Err(error),
        }
    }

    async fn insert_row(
        &self,
        repository: &Stored<Repository>,
        workspace: &Workspace,
    ) -> Result<Stored<Worktree>> {
        let (scope, storage) = (self.claim.scope(), &self.parts.storage);
        let row = self.new_row(repository, workspace);
        persist(|| storage.insert(&scope, row.clone())).await
    }

    fn new_row(&self, repository: &Stored<Repository>, workspace: &Workspace) -> Worktree {
        let run = &self.claim.run;
        Worktree {
            project_id: run.project_id,
            ticket_id: run.ticket_id,
            agent_run_id: Some(run.id),
            repository_id: Some(repository.id),
            branch: workspace.branch.clone(),
            base_branch: workspace.base.clone(),
            path: workspace.path.display().to_string(),
            status: WorktreeStatus::Active,
            env_copied: false,
            deps_installed: false,
            init_script_run: false,
            last_error: None,
            merged_at: None,
            removed_at: None,
        }
    }

    /// Whether there is anything in the checkout that is worth keeping.
    pub(super) async fn has_work(&self, checkout: Option<&Checkout>) -> bool {
        let (Some(checkout), Ok(workspaces)) = (checkout, self.workspaces()) else {
            return false;
        };
        match workspaces.changes(&checkout.workspace).await {
            Ok(changes) => !changes.paths.is_empty(),
            Err(error) => {
                tracing::warn!(%error, "the checkout cannot be looked at, so it is kept");
                true
            }
        }
    }

    /// Removes the checkout from the disk, unless it is to be kept, and says so in its row as far as it may.
    pub(super) async fn clean_up(&self, checkout: Option<Checkout>, remove: bool) {
        let Some(Checkout { workspace, mut row, .. }) = checkout else {
            return;
        };
        if !remove {
            return;
        }
        if self.remove(&workspace).await {
            row.value.status = WorktreeStatus::Removed;
            row.value.removed_at = Some(self.parts.clock.now());
        } else {
            row.value.status = WorktreeStatus::Error;
            row.value.last_error = Some("it could not be removed from the disk".into());
        }
        if let Err(error) = self.parts.storage.update(&self.claim.scope(), &row).await {
            tracing::debug!(%error, "the row of the checkout stays as it was");
        }
    }

    async fn remove(&self, workspace: &Workspace) -> bool {
        let removed = match self.workspaces() {
            Ok(workspaces) => workspaces.remove(workspace).await,
            Err(error) => Err(error),
        };
        removed
            .inspect_err(|error| tracing::warn!(%error, path = %workspace.path.display(), "a checkout stays"))
            .is_ok()
    }
}

/// A value of ours as JSON, which it always can be.
pub(super) fn as_json(value: &impl Serialize) -> Result<Json> {
    serde_json::to_value(value).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "steps.result", "a result cannot be kept").because(error)
    })
}
