//! A factory in memory, with an agent that does as it is told and mocked repositories and checkouts.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]
#![allow(unreachable_pub, reason = "a module that several test binaries may share")]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::ports::{
    AgentProvider, AgentSession, BranchState, Changes, Live, MockRepoProvider, MockWorkspaces, Readiness,
    RepoAccess, SessionReport, SessionSpec, Workspace,
};
use lime_core::repos::{DiffStats, RepoKind, Repository};
use lime_core::runs::{AgentEvent, AgentMode, AgentRun, Denial, Outcome, ProviderId, RunEvent, Usage};
use lime_core::{Id, Scope, Store, Stored};
use lime_engine::{Factory, KeepWorktree, RunningWorker, Worker, WorkerConfig};
use tokio::sync::Notify;

pub const STUB: ProviderId = ProviderId::from_static("stub");

/// What the stub does when it is started.
#[derive(Clone)]
pub enum Act {
    /// Says something.
    Event(AgentEvent),
    /// Waits until it is cancelled.
    Hang,
    /// Waits until the test lets it go on.
    Gate(Arc<Notify>),
    /// Panics.
    Panic,
}

/// An agent that acts by a list and ends with an outcome.
#[derive(Clone)]
pub struct Stub {
    pub acts: Vec<Act>,
    pub outcome: Outcome,
    pub usage: Usage,
    /// What it was started with.
    pub specs: Arc<Mutex<Vec<SessionSpec>>>,
}

struct StubSession {
    acts: VecDeque<Act>,
    outcome: Outcome,
    usage: Usage,
    cancelled: bool,
}

#[async_trait]
impl AgentProvider for Stub {
    fn id(&self) -> ProviderId {
        STUB
    }

    async fn readiness(&self) -> Readiness {
        Readiness::Ready("a stub".into())
    }

    async fn start(&self, spec: SessionSpec) -> lime_core::Result<Box<dyn AgentSession>> {
        self.specs.lock().unwrap().push(spec);
        Ok(Box::new(StubSession {
            acts: self.acts.clone().into(),
            outcome: self.outcome.clone(),
            usage: self.usage,
            cancelled: false,
        }))
    }
}

#[async_trait]
impl AgentSession for StubSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        tokio::task::yield_now().await;
        if self.cancelled {
            return None;
        }
        match self.acts.front() {
            Some(Act::Hang) => std::future::pending().await,
            Some(Act::Gate(gate)) => gate.clone().notified().await,
            Some(Act::Panic) => panic!("the stub was told to panic"),
            _ => {}
        }
        loop {
            match self.acts.pop_front() {
                Some(Act::Event(event)) => return Some(event),
                Some(Act::Gate(_)) => {}
                Some(Act::Hang | Act::Panic) | None => return None,
            }
        }
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
    }

    async fn report(self: Box<Self>) -> SessionReport {
        SessionReport {
            outcome: if self.cancelled { Outcome::Cancelled } else { self.outcome },
            session_id: None,
            usage: self.usage,
            denials: Vec::<Denial>::new(),
            diagnostics: Some("exit code 1; stderr: boom".into()),
        }
    }
}

/// A tenant with a project and a repository, and a factory to work in it.
pub struct Scene {
    pub storage: MemoryStorage,
    pub factory: Factory,
    pub scope: Scope,
    pub project: Stored<Project>,
    pub repository: Stored<Repository>,
    pub specs: Arc<Mutex<Vec<SessionSpec>>>,
}

/// The parts of a scene that a test may change.
pub struct Setting {
    pub acts: Vec<Act>,
    pub outcome: Outcome,
    pub usage: Usage,
    pub workspaces: MockWorkspaces,
    pub repos: MockRepoProvider,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            acts: vec![],
            outcome: Outcome::Succeeded { summary: Some("I did it.".into()) },
            usage: Usage::default(),
            workspaces: workspaces(changes(&["src/a.rs"])),
            repos: repos(BranchState::Missing),
        }
    }
}

pub fn changes(paths: &[&str]) -> Changes {
    let diff = paths.iter().map(|path| format!("diff --git a/{path} b/{path}\n")).collect();
    let count = u32::try_from(paths.len()).unwrap();
    Changes {
        unified_diff: diff,
        stats: DiffStats { files_changed: count, insertions: 2 * count, deletions: count },
        paths: paths.iter().map(|&path| path.into()).collect(),
    }
}

/// Checkouts that can be made and removed, but not delivered.
pub fn bare_workspaces(found: Changes) -> MockWorkspaces {
    let mut mock = MockWorkspaces::new();
    mock.expect_prepare().returning(|spec| {
        Ok(Workspace {
            path: PathBuf::from(format!("/checkouts/{}", spec.attempt)),
            git_dir: "/mirror".into(),
            branch: spec.branch.clone(),
            base: spec.base.clone(),
            base_commit: "b".repeat(40),
            branch_was: None,
        })
    });
    mock.expect_changes().returning(move |_| Ok(found.clone()));
    mock.expect_remove().returning(|_| Ok(()));
    mock
}

pub fn workspaces(found: Changes) -> MockWorkspaces {
    let nothing = found.paths.is_empty();
    let mut mock = bare_workspaces(found);
    mock.expect_commit().returning(move |_, _, _| Ok((!nothing).then(|| "c".repeat(40))));
    mock.expect_publish().returning(|_, _, _| Ok(()));
    mock
}

pub fn repos(state: BranchState) -> MockRepoProvider {
    let mut mock = MockRepoProvider::new();
    mock.expect_kind().return_const(RepoKind::Local);
    mock.expect_access()
        .returning(|_, repository| Ok(RepoAccess { url: repository.clone_url.clone(), token: None }));
    mock.expect_branch_state().returning(move |_, _, _| Ok(state.clone()));
    mock
}

impl Scene {
    pub async fn new(setting: Setting) -> Self {
        let storage = MemoryStorage::default();
        let tenant = Tenant { name: "T".into(), slug: Slug::parse("t").unwrap() };
        let tenant = storage.create_tenant(tenant).await.unwrap();
        let scope = Scope::system(tenant.id, "test");
        let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
        let repository = Repository {
            connector_id: None,
            provider: RepoKind::Local,
            external_repo_id: None,
            owner: "o".into(),
            name: "n".into(),
            full_name: "/o/n".into(),
            clone_url: "/o/n".into(),
            default_branch: "main".into(),
            is_enabled: true,
        };
        let repository = storage.insert(&scope, repository).await.unwrap();
        let specs = Arc::<Mutex<Vec<SessionSpec>>>::default();
        let Setting { acts, outcome, usage, workspaces, repos } = setting;
        let factory = Factory::builder(storage.clone())
            .provider(Stub { acts, outcome, usage, specs: specs.clone() })
            .repos(repos)
            .workspaces(workspaces)
            .build();
        Self { storage, factory, scope, project, repository, specs }
    }

    pub fn a_run(&self) -> AgentRun {
        AgentRun {
            repository_id: Some(self.repository.id),
            ..AgentRun::new(self.project.id, STUB, AgentMode::Implement, "Add a flag\n\nand test it")
        }
    }

    pub async fn submit(&self, run: AgentRun) -> Id<AgentRun> {
        self.factory.submit(&self.scope, run).await.unwrap().id
    }

    pub fn worker(&self) -> RunningWorker {
        self.worker_with(WorkerConfig::default())
    }

    pub fn worker_with(&self, config: WorkerConfig) -> RunningWorker {
        let config = WorkerConfig { poll: Duration::from_millis(20), ..config };
        Worker::new(&self.factory, config).unwrap().spawn()
    }

    /// Works the run with a worker of its own, and gives its end and its log.
    pub async fn work(&self, run: Id<AgentRun>) -> (Stored<AgentRun>, Vec<RunEvent>) {
        self.work_with(run, KeepWorktree::default()).await
    }

    pub async fn work_with(
        &self,
        run: Id<AgentRun>,
        keep_worktrees: KeepWorktree,
    ) -> (Stored<AgentRun>, Vec<RunEvent>) {
        let worker = self.worker_with(WorkerConfig { keep_worktrees, ..WorkerConfig::default() });
        let ended = tokio::time::timeout(Duration::from_secs(20), self.factory.wait(&self.scope, run));
        let ended = ended.await.expect("the run ends").unwrap();
        worker.stop(Duration::from_secs(20)).await.unwrap();
        (ended, self.log(run).await)
    }

    /// The whole log, as a client sees it.
    pub async fn log(&self, run: Id<AgentRun>) -> Vec<RunEvent> {
        let lives: Vec<_> = self.factory.watch(&self.scope, run, 0).collect().await;
        lives
            .into_iter()
            .map(|live| match live.unwrap() {
                Live::Recorded(event) => event,
                Live::Ephemeral(event) => panic!("{event:?} was kept"),
            })
            .collect()
    }
}
