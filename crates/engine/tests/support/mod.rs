//! A factory in memory, with agents that do as they are told, and repositories and checkouts that are made up.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]
#![allow(unreachable_pub, dead_code, unused_imports, reason = "each test file uses its own part of it")]

pub mod agent;
pub mod ground;
pub mod watched;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::StreamExt;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::ports::{Claim, Claimant, Clock, Live, Queue, WorkerName};
use lime_core::repos::{RepoKind, Repository};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, AttemptEnd, MessageRole, RunAttempt, RunEvent, RunStatus, RunStep,
};
use lime_core::{Id, LookupExt, Query, Scope, Store, Stored};
use lime_engine::{Factory, FactoryBuilder, KeepWorktree, RunningWorker, Worker, WorkerConfig};

pub use agent::{Act, Play, STUB, Stub};
pub use ground::Ground;
pub use watched::Watched;

/// A clock that a test sets forward.
#[derive(Clone, Default)]
pub struct Hands(Arc<Mutex<TimeDelta>>);

impl Hands {
    pub fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += TimeDelta::from_std(by).unwrap();
    }
}

impl Clock for Hands {
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(std::time::SystemTime::now()) + *self.0.lock().unwrap()
    }
}

/// A tenant with a project and a repository, and a factory to work in it.
pub struct Scene {
    pub storage: MemoryStorage,
    pub watched: Watched,
    /// The storage's clock.
    pub hands: Hands,
    pub factory: Factory,
    pub scope: Scope,
    pub project: Stored<Project>,
    pub repository: Stored<Repository>,
    pub agent: Stub,
    pub ground: Ground,
}

impl Scene {
    /// One whose agent plays these, one after another, the last one again and again.
    pub async fn new(plays: impl IntoIterator<Item = Play>) -> Self {
        let ground = Ground::default();
        Self::with(plays, ground.clone(), |builder| builder.repos(ground.clone()).workspaces(ground)).await
    }

    /// One whose factory is put together further by the test.
    pub async fn with(
        plays: impl IntoIterator<Item = Play>,
        ground: Ground,
        build: impl FnOnce(FactoryBuilder) -> FactoryBuilder,
    ) -> Self {
        let hands = Hands::default();
        let storage = MemoryStorage::with_clock(hands.clone());
        let tenant = storage.create_tenant(Tenant::new("T", Slug::parse("t").unwrap())).await.unwrap();
        let scope = Scope::system(tenant.id, "test");
        let project = Project { max_concurrent_agents: 10, ..Project::new("P", "P") };
        let project = storage.insert(&scope, project).await.unwrap();
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
        let agent = Stub::new(plays, ground.clone());
        let watched = Watched::new(storage.clone());
        let factory = build(Factory::builder(watched.clone()).provider(agent.clone())).build();
        Self { storage, watched, hands, factory, scope, project, repository, agent, ground }
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

    pub async fn submit_one(&self) -> Id<AgentRun> {
        self.submit(self.a_run()).await
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
        self.work_with(run, WorkerConfig::default()).await
    }

    pub async fn work_with(
        &self,
        run: Id<AgentRun>,
        config: WorkerConfig,
    ) -> (Stored<AgentRun>, Vec<RunEvent>) {
        let worker = self.worker_with(config);
        let ended = self.end(run).await;
        stop(worker).await;
        (ended, self.log(run).await)
    }

    /// A worker as a crash takes it: it stops between two steps and clears nothing up.
    pub fn doomed_worker(&self) -> tokio::task::JoinHandle<()> {
        let config = WorkerConfig { poll: Duration::from_millis(20), ..WorkerConfig::default() };
        let worker = Worker::new(&self.factory, config).unwrap();
        tokio::spawn(worker.run(tokio_util::sync::CancellationToken::new(), Default::default()))
    }

    /// Takes the run as another worker does, once the lease of the one before has run out.
    pub async fn take_after_lease(&self) -> Vec<Claim> {
        self.hands.forward(WorkerConfig::default().lease * 2);
        let claimant = Claimant { worker: WorkerName::parse("other").unwrap(), providers: vec![STUB] };
        self.storage.claim(&claimant, 10, Duration::from_secs(30)).await.unwrap()
    }

    /// Waits for the run's end.
    pub async fn end(&self, run: Id<AgentRun>) -> Stored<AgentRun> {
        let ended = tokio::time::timeout(Duration::from_secs(20), self.factory.wait(&self.scope, run));
        ended.await.expect("the run ends").unwrap()
    }

    pub async fn run(&self, run: Id<AgentRun>) -> Stored<AgentRun> {
        self.factory.run(&self.scope, run).await.unwrap()
    }

    pub async fn until_status(&self, run: Id<AgentRun>, status: RunStatus) -> Stored<AgentRun> {
        until(&format!("the run is {status}"), async || self.run(run).await.status == status).await;
        self.run(run).await
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

    pub async fn steps(&self) -> Vec<Stored<RunStep>> {
        self.all().await
    }

    /// How the attempts ended, in order.
    pub async fn ends(&self) -> Vec<Option<AttemptEnd>> {
        self.all::<RunAttempt>().await.into_iter().map(|attempt| attempt.outcome).collect()
    }

    /// All there is of an entity.
    pub async fn all<E: lime_core::Entity>(&self) -> Vec<Stored<E>> {
        self.storage.all(&self.scope, Query::<E>::all()).await.unwrap()
    }
}

/// Stops a worker that has nothing to do any more, or hands back at once what it does.
pub async fn stop(worker: RunningWorker) {
    let stopped = tokio::time::timeout(Duration::from_secs(10), worker.stop(Duration::from_secs(5)));
    stopped.await.expect("the worker stops").unwrap();
}

/// Waits until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..4_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came so that {what}");
}

/// What was said in a log, by a role.
pub fn said(log: &[RunEvent], by: MessageRole) -> Vec<String> {
    log.iter()
        .filter_map(|recorded| match &recorded.event {
            AgentEvent::Message { role, text } if *role == by => Some(text.clone()),
            _ => None,
        })
        .collect()
}

/// The lines and error messages of a log, in one text.
pub fn told(log: &[RunEvent]) -> String {
    let lines = log.iter().filter_map(|recorded| match &recorded.event {
        AgentEvent::Message { text, .. } | AgentEvent::Log { text } => Some(text.as_str()),
        AgentEvent::Error { message, .. } => Some(message.as_str()),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A worker's configuration whose checkouts are kept so.
pub fn keeping(keep_worktrees: KeepWorktree) -> WorkerConfig {
    WorkerConfig { keep_worktrees, ..WorkerConfig::default() }
}
