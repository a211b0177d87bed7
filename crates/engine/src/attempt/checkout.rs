//! The checkout that an attempt works in.

use lime_core::ports::{Workspace, WorkspaceSpec, Workspaces};
use lime_core::repos::{Repository, Worktree, WorktreeStatus};
use lime_core::{Error, ErrorKind, Lookup, Result, Stored};
use serde_json::json;

use super::Attempt;

/// A checkout, its row, and how to bring the work home.
pub(super) struct Checkout {
    pub(super) repository: Stored<Repository>,
    pub(super) workspace: Workspace,
    pub(super) row: Stored<Worktree>,
}

impl Checkout {
    pub(super) fn as_json(&self) -> serde_json::Value {
        json!({
            "worktreeId": self.row.id,
            "branch": self.workspace.branch,
            "base": self.workspace.base,
            "baseCommit": self.workspace.base_commit,
        })
    }
}

impl Attempt {
    pub(super) fn workspaces(&self) -> Result<&dyn Workspaces> {
        self.parts.workspaces.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "workspace.prepare", "this factory was not given workspaces")
        })
    }

    /// Makes the checkout, and a row of it; nothing if the attempt has to stop meanwhile.
    pub(super) async fn prepare(&self) -> Result<Option<Checkout>> {
        let (scope, run) = (self.claim.scope(), &self.claim.run);
        let Some(repository) = run.repository_id else {
            return Err(Error::invalid(
                "workspace.prepare",
                "the run's repository is gone; there is nowhere to work",
            ));
        };
        let storage = &*self.parts.storage;
        let repository: Stored<Repository> = Lookup::get(storage, &scope, repository).await?;
        let access =
            self.parts.repos(repository.provider, "workspace.prepare")?.access(&scope, &repository).await?;
        let spec = WorkspaceSpec {
            tenant: self.claim.lease.tenant,
            run: run.id,
            attempt: self.claim.lease.attempt,
            repository: repository.id,
            access,
            base: run.base_ref.clone().unwrap_or_else(|| repository.default_branch.clone()),
            branch: run.branch.clone().unwrap_or_else(|| format!("lime/run-{}", run.id)),
        };
        // Only this may be broken off, since it clears up after itself: a checkout that is made gets its row.
        let workspace = tokio::select! {
            workspace = self.workspaces()?.prepare(&spec) => workspace?,
            _ = self.wish.wait() => return Ok(None),
        };
        let row = Worktree {
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
        };
        match storage.insert(&scope, row).await {
            Ok(row) => Ok(Some(Checkout { repository, workspace, row })),
            Err(error) => {
                self.remove(&workspace).await;
                Err(error)
            }
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
