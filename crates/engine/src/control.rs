//! What people do to runs: put them on hold, talk to them, answer their questions, go on from them.

use lime_core::governance::{Approval, Decision};
use lime_core::ports::{BranchState, Request};
use lime_core::repos::Repository;
use lime_core::runs::{AgentRun, RunInput};
use lime_core::{Error, Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use tracing::instrument;

use crate::Factory;

const FOLLOW_UP: &str = "factory.follow_up";

impl Factory {
    /// Asks for a run to be cancelled, and gives it as it is then; [`wait`](Factory::wait) for its end.
    ///
    /// - One that nobody works is cancelled at once, another one as soon as its worker hears of it.
    /// - Cancelling one that has ended changes nothing.
    #[instrument(skip(self), fields(tenant = %scope.tenant()))]
    pub async fn cancel(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.storage().request(scope, run, Request::Cancel).await
    }

    /// Asks for a run to be put on hold, and gives it as it is then.
    ///
    /// - One that is worked stops its agent and keeps its checkout; nothing of it is burnt.
    /// - Fails with `Conflict` if it has ended.
    #[instrument(skip(self), fields(tenant = %scope.tenant()))]
    pub async fn pause(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.storage().request(scope, run, Request::Pause).await
    }

    /// Lets a run go on that was put on hold: in its checkout and its agent's session, where they are still there.
    ///
    /// - Fails with `Conflict` if it has ended.
    #[instrument(skip(self), fields(tenant = %scope.tenant()))]
    pub async fn resume(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.storage().request(scope, run, Request::Resume).await
    }

    /// Puts a run that failed back into the line; it is worked anew.
    ///
    /// - What it had already brought to the repository is found, and not made again.
    /// - Fails with `Conflict` if it has not failed, with `AlreadyExists` while another run has its unique key.
    #[instrument(skip(self), fields(tenant = %scope.tenant()))]
    pub async fn requeue(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        self.storage().request(scope, run, Request::Requeue).await
    }

    /// Says something to the agent of a run: at once if it works, else when it next does.
    ///
    /// - Fails with `Conflict` if the run has ended: [follow it up](Factory::follow_up) then.
    #[instrument(skip(self, text), fields(tenant = %scope.tenant()))]
    pub async fn say(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        text: impl Into<String> + Send,
    ) -> Result<Stored<RunInput>> {
        self.storage().say(scope, run, text.into()).await
    }

    /// The questions of a run, open and answered, oldest first.
    pub async fn approvals(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Vec<Stored<Approval>>> {
        self.storage().all(scope, Query::all().filter(Approval::RUN_ID.eq(run))).await
    }

    /// Answers a question of a run.
    ///
    /// - The note is for the agent, and in the log.
    /// - Fails as [`Approvals::decide`](lime_core::ports::Approvals::decide) does.
    #[instrument(skip(self, note), fields(tenant = %scope.tenant()))]
    pub async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        self.storage().decide(scope, approval, decision, note).await
    }

    /// Goes on from a run that has ended: a new run in the same session of the agent.
    ///
    /// - It is for the same project, ticket, repository, agent, provider, model and mode, with the same limits. It starts
    ///   from the branch of the other run, goes to it, and works where that one worked.
    /// - A checkout that was kept since its run did not succeed is taken over, with the work in it.
    /// - Where the session's history is gone, or another machine's, the run fails as `session_gone`.
    /// - Fails with `Invalid` if the other run has not ended or never had a session, and as
    ///   [`submit`](Factory::submit) does.
    #[instrument(skip(self, prompt), fields(tenant = %scope.tenant()))]
    pub async fn follow_up(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        prompt: impl Into<String> + Send,
    ) -> Result<Stored<AgentRun>> {
        let prompt = prompt.into();
        let parent = self.run(scope, run).await?;
        if !parent.status.is_final() {
            let message = format!(
                "the run {run} is {} and has not ended; say it to that run, or wait for its end",
                parent.status
            );
            return Err(Error::invalid(FOLLOW_UP, message));
        }
        if parent.provider_session_id.is_none() {
            let message =
                format!("the run {run} ended before its agent had a session; submit a new run instead");
            return Err(Error::invalid(FOLLOW_UP, message));
        }
        let base_ref = self.base_after(scope, &parent).await?;
        let Stored { id, value: parent, .. } = parent;
        let next = AgentRun {
            ticket_id: parent.ticket_id,
            repository_id: parent.repository_id,
            agent_id: parent.agent_id,
            session_id: parent.session_id,
            channel_id: parent.channel_id,
            model: parent.model,
            base_ref,
            branch: parent.branch,
            allowed_paths: parent.allowed_paths,
            constraints: parent.constraints,
            priority: parent.priority,
            parent_run_id: Some(id),
            provider_session_id: parent.provider_session_id,
            ..AgentRun::new(parent.project_id, parent.provider, parent.mode, prompt)
        };
        self.submit(scope, next).await
    }

    /// Where a run goes on from another: its branch, or what that one started from if it never came to the repository.
    async fn base_after(&self, scope: &Scope, parent: &AgentRun) -> Result<Option<String>> {
        let (Some(branch), Some(repository)) = (&parent.branch, parent.repository_id) else {
            return Ok(parent.base_ref.clone());
        };
        let repository: Stored<Repository> = Lookup::get(self.storage(), scope, repository).await?;
        let repos = self.parts.repos(repository.provider, FOLLOW_UP)?;
        Ok(match repos.branch_state(scope, &repository, branch).await? {
            BranchState::Missing => parent.base_ref.clone(),
            BranchState::At(_) | BranchState::CheckedOut { .. } => Some(branch.clone()),
        })
    }
}
