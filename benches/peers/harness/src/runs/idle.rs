//! An agent that says a few words, and checkouts of which there is nothing on the disk.

use std::path::PathBuf;

use async_trait::async_trait;
use lime_core::ports::{
    AgentProvider, AgentSession, Author, BranchState, Changes, CommitId, CommittedFiles, FilesWanted,
    Readiness, RepoAccess, RepoDescription, RepoProvider, SessionReport, SessionSpec, ToolAnswer, Workspace,
    WorkspaceSpec, Workspaces,
};
use lime_core::repos::{DiffStats, RepoKind, Repository};
use lime_core::runs::{AgentEvent, MessageRole, Outcome, ProviderId, Usage};
use lime_core::{Error, ErrorKind, Result, Scope};

use crate::peers::ours::PROVIDER;

/// How many events each session has.
pub(super) const EVENTS: usize = 10;

pub(super) struct IdleAgent;

struct IdleSession {
    said: usize,
}

#[async_trait]
impl AgentProvider for IdleAgent {
    fn id(&self) -> ProviderId {
        PROVIDER
    }

    async fn readiness(&self) -> Readiness {
        Readiness::Ready("it does nothing".into())
    }

    async fn start(&self, _: SessionSpec) -> Result<Box<dyn AgentSession>> {
        Ok(Box::new(IdleSession { said: 0 }))
    }
}

#[async_trait]
impl AgentSession for IdleSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        self.said += 1;
        let text =
            format!("This is the {}th of the things that I have to say about the failing test.", self.said);
        (self.said <= EVENTS).then_some(AgentEvent::Message { role: MessageRole::Assistant, text })
    }

    async fn answer(&mut self, _: &str, _: ToolAnswer) {}

    async fn send(&mut self, _: &str) -> Result<bool> {
        Ok(false)
    }

    async fn cancel(&mut self) {
        self.said = EVENTS;
    }

    async fn report(self: Box<Self>) -> SessionReport {
        SessionReport {
            outcome: Outcome::Succeeded { summary: Some("Nothing was to be done.".into()) },
            session_id: None,
            usage: Usage::default(),
            denials: Vec::new(),
            diagnostics: None,
        }
    }
}

/// Checkouts in which nothing ever changes.
pub(super) struct NoCheckouts;

#[async_trait]
impl Workspaces for NoCheckouts {
    async fn prepare(&self, spec: &WorkspaceSpec) -> Result<Workspace> {
        let path = PathBuf::from(format!("/nowhere/{}", spec.attempt));
        Ok(Workspace {
            git_dir: path.with_extension("git"),
            path,
            branch: spec.branch.clone(),
            base: spec.base.clone(),
            base_commit: "b".repeat(40),
            branch_was: None,
        })
    }

    async fn adopt(&self, _: &WorkspaceSpec, _: &Workspace) -> Result<Option<Workspace>> {
        Ok(None)
    }

    async fn committed_files(&self, _: &Workspace, _: &FilesWanted) -> Result<CommittedFiles> {
        Ok(CommittedFiles::default())
    }

    async fn changes(&self, _: &Workspace) -> Result<Changes> {
        let stats = DiffStats { files_changed: 0, insertions: 0, deletions: 0 };
        Ok(Changes { unified_diff: String::new(), stats, paths: Vec::new() })
    }

    async fn commit(&self, _: &Workspace, _: &str, _: &Author) -> Result<Option<CommitId>> {
        Ok(None)
    }

    async fn publish(&self, _: &Workspace, _: &RepoAccess, _: &CommitId) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _: &Workspace) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl RepoProvider for NoCheckouts {
    fn kind(&self) -> RepoKind {
        RepoKind::Local
    }

    async fn describe(&self, _: &str) -> Result<RepoDescription> {
        Err(Error::new(ErrorKind::NotFound, "repos.describe", "there is nothing there"))
    }

    async fn access(&self, _: &Scope, repository: &Repository) -> Result<RepoAccess> {
        Ok(RepoAccess { url: repository.clone_url.clone(), token: None })
    }

    async fn branch_state(&self, _: &Scope, _: &Repository, _: &str) -> Result<BranchState> {
        Ok(BranchState::Missing)
    }
}
