//! What the storage tests start from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lime_core::identity::{Slug, Tenant};
use lime_core::planning::{Board, Project, Ticket, Workflow};
use lime_core::ports::{Claim, Claimant, Storage, WorkerName};
use lime_core::repos::{RepoKind, Repository};
use lime_core::runs::{AgentMode, AgentRun, Lease, Outcome, ProviderId};
use lime_core::{Id, Scope, Stored};

/// The storage under test.
pub type Subject = Arc<dyn Storage>;

/// A lease that outlives every test.
pub const LONG: Duration = Duration::from_secs(600);

/// The provider of most runs.
pub const PROVIDER: ProviderId = ProviderId::from_static("replay");
/// A provider with a name of every character.
pub const OTHER_PROVIDER: ProviderId = ProviderId::from_static("my-own_2");

/// A tenant of its own, with a project.
#[derive(Debug)]
pub struct Scene {
    /// The tenant's scope.
    pub scope: Scope,
    /// A project of the tenant.
    pub project: Stored<Project>,
}

impl Scene {
    /// Sets the scene: names are new each time, so that tests can share a database.
    pub async fn new(storage: &Subject) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let unique =
            format!("t{}-{}-{}", std::process::id(), since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tenant = Tenant { name: "A tenant".into(), slug: Slug::parse(unique).unwrap() };
        let tenant = storage.create_tenant(tenant).await.unwrap();
        let scope = Scope::system(tenant.id, "conformance");
        let project = storage.insert(&scope, Project::new("A project", "AL")).await.unwrap();
        Self { scope, project }
    }

    /// A run that has not been stored.
    pub fn a_run(&self) -> AgentRun {
        AgentRun::new(self.project.id, PROVIDER, AgentMode::Implement, "do it")
    }

    /// A run that waits in the queue.
    pub async fn queued(&self, storage: &Subject) -> Stored<AgentRun> {
        storage.submit(&self.scope, self.a_run()).await.unwrap()
    }

    /// A run that a worker has leased for long.
    pub async fn running(&self, storage: &Subject) -> Claim {
        let run = self.queued(storage).await;
        claim(storage, run.id, LONG).await
    }

    /// A board and a ticket on it.
    pub async fn ticket(&self, storage: &Subject) -> Stored<Ticket> {
        let board =
            Board { project_id: self.project.id, name: "Board".into(), workflow: Workflow::delivery() };
        let board = storage.insert(&self.scope, board).await.unwrap();
        let ticket = Ticket::new(self.project.id, board.id, "backlog", "A ticket");
        storage.insert(&self.scope, ticket).await.unwrap()
    }

    /// A repository.
    pub async fn repository(&self, storage: &Subject) -> Stored<Repository> {
        let repository = Repository {
            connector_id: None,
            provider: RepoKind::Local,
            external_repo_id: None,
            owner: "me".into(),
            name: "repo".into(),
            full_name: "/srv/me/repo".into(),
            clone_url: "/srv/me/repo".into(),
            default_branch: "main".into(),
            is_enabled: true,
        };
        storage.insert(&self.scope, repository).await.unwrap()
    }
}

/// The worker of the tests.
pub fn worker() -> Claimant {
    Claimant { worker: WorkerName::parse("conformance").unwrap(), providers: vec![PROVIDER, OTHER_PROVIDER] }
}

/// Leases just this run; whatever else waits is left as it is in the end.
pub async fn claim(storage: &Subject, run: Id<AgentRun>, lease: Duration) -> Claim {
    let mut others = Vec::new();
    let claim = loop {
        let found =
            storage.claim(&worker(), 1, lease).await.unwrap().pop().expect("the run waits in the queue");
        if found.lease.run == run {
            break found;
        }
        others.push(found);
    };
    for other in others {
        storage.release(&other.lease).await.unwrap();
    }
    claim
}

/// A settlement with this outcome and nothing else.
pub fn settlement(outcome: Outcome) -> lime_core::ports::Settlement {
    lime_core::ports::Settlement::new(outcome)
}

/// A lease that was never given.
pub fn forged(claim: &Claim) -> Lease {
    Lease { attempt: Id::new(claim.lease.attempt.raw() + 1_000_000), ..claim.lease }
}
