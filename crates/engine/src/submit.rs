use lime_core::planning::Project;
use lime_core::ports::BranchState;
use lime_core::repos::Repository;
use lime_core::runs::AgentRun;
use lime_core::{Error, ErrorKind, Lookup, Result, Scope, Stored};
use tracing::instrument;

use crate::Factory;

const OPERATION: &str = "factory.submit";

impl Factory {
    /// Submits a run: it is stored, waits for a worker, and is event 1 of its own log.
    ///
    /// - A run for a ticket works in the ticket's repository unless it names one.
    /// - Refused with `Invalid`: a prompt of nothing, a run without a repository, one in an archived project or a
    ///   disabled repository, a provider that this factory was not given (unless it was given none at all).
    /// - Refused with `Conflict`: a branch that somebody has checked out, since the work could not be brought there.
    #[instrument(skip_all, fields(tenant = %scope.tenant(), project = %run.project_id, provider = %run.provider))]
    pub async fn submit(&self, scope: &Scope, mut run: AgentRun) -> Result<Stored<AgentRun>> {
        if run.input_prompt.trim().is_empty() {
            return Err(Error::invalid(OPERATION, "the prompt is empty; say what the agent shall do"));
        }
        self.check_provider(&run)?;
        let project: Stored<Project> = Lookup::get(self.storage(), scope, run.project_id).await?;
        if project.archived_at.is_some() {
            return Err(Error::invalid(OPERATION, format!("the project {} is archived", project.key)));
        }
        if run.repository_id.is_none()
            && let Some(ticket) = run.ticket_id
        {
            run.repository_id = Lookup::get(self.storage(), scope, ticket).await?.repository_id;
        }
        let Some(repository) = run.repository_id else {
            return Err(Error::invalid(
                OPERATION,
                "the run has no repository to work in, and neither has its ticket",
            ));
        };
        let repository: Stored<Repository> = Lookup::get(self.storage(), scope, repository).await?;
        if !repository.is_enabled {
            return Err(Error::invalid(
                OPERATION,
                format!("the repository {} is disabled", repository.full_name),
            ));
        }
        if let Some(branch) = &run.branch {
            self.check_branch(scope, &repository, branch).await?;
        }
        let stored = self.storage().submit(scope, run).await?;
        tracing::info!(run = %stored.id, "submitted");
        Ok(stored)
    }

    fn check_provider(&self, run: &AgentRun) -> Result<()> {
        let providers = &self.parts.providers;
        if providers.is_empty() || providers.contains_key(&run.provider) {
            return Ok(());
        }
        let mut known: Vec<_> = providers.keys().map(|id| id.as_str()).collect();
        known.sort_unstable();
        let message = format!("there is no provider `{}` here; there is: {}", run.provider, known.join(", "));
        Err(Error::invalid(OPERATION, message))
    }

    async fn check_branch(&self, scope: &Scope, repository: &Repository, branch: &str) -> Result<()> {
        let repos = self.parts.repos(repository.provider, OPERATION)?;
        match repos.branch_state(scope, repository, branch).await? {
            BranchState::Missing | BranchState::At(_) => Ok(()),
            BranchState::CheckedOut { dirty, .. } => {
                let state = if dirty { ", with changes that are not committed" } else { "" };
                let message = format!(
                    "the branch `{branch}` is checked out in {}{state}; name another branch, or none for a fresh one",
                    repository.full_name
                );
                Err(Error::new(ErrorKind::Conflict, OPERATION, message))
            }
        }
    }
}
