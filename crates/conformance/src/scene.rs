//! What the storage tests start from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use lime_core::governance::{ActionScope, Decision};
use lime_core::identity::{Slug, Tenant, User, UserStatus};
use lime_core::planning::{Board, Project, Ticket, Workflow};
use lime_core::ports::{Claim, Claimant, Question, Settlement, Storage, WorkerName};
use lime_core::repos::{RepoKind, Repository};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, Failure, FailureKind, Lease, Outcome, ProviderId, RunAttempt, RunEvent,
    RunStatus,
};
use lime_core::{Id, Lookup, LookupExt, Query, Scope, Stored};
use serde_json::json;

/// The storage under test.
pub type Subject = Arc<dyn Storage>;

/// A lease that outlives every test.
pub const LONG: Duration = Duration::from_secs(600);
/// A lease that runs out within a test.
pub const SHORT: Duration = Duration::from_millis(100);
/// A lease that runs out within a test, and lasts for the next call, however busy the machine is.
pub const BRIEF: Duration = Duration::from_secs(2);
/// Far more than anything here takes; only what hangs gets there.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The provider of most runs.
pub const PROVIDER: ProviderId = ProviderId::from_static("replay");
/// A provider with a name of every character.
pub const OTHER_PROVIDER: ProviderId = ProviderId::from_static("my-own_2");

/// A tenant of its own, with a project.
#[derive(Debug)]
pub struct Scene {
    /// The tenant's scope.
    pub scope: Scope,
    /// A project of the tenant, for as many agents at once as there may be.
    pub project: Stored<Project>,
}

impl Scene {
    /// Sets the scene: names are new each time, so that tests can share a database.
    pub async fn new(storage: &Subject) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let unique =
            format!("t{}-{}-{}", std::process::id(), since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed));
        let tenant = Tenant::new("A tenant", Slug::parse(unique).unwrap());
        let tenant = storage.create_tenant(tenant).await.unwrap();
        let scope = Scope::system(tenant.id, "conformance");
        let project = Project { max_concurrent_agents: 10, ..Project::new("A project", "AL") };
        let project = storage.insert(&scope, project).await.unwrap();
        Self { scope, project }
    }

    /// Another project of the tenant, for this many agents at once.
    pub async fn another_project(&self, storage: &Subject, key: &str, most: i32) -> Stored<Project> {
        let project = Project { max_concurrent_agents: most, ..Project::new("Another project", key) };
        storage.insert(&self.scope, project).await.unwrap()
    }

    /// A person of the tenant.
    pub async fn person(&self, storage: &Subject, email: &str) -> Stored<User> {
        let user = User { email: email.into(), name: None, github_user_id: None, status: UserStatus::Active };
        storage.insert(&self.scope, user).await.unwrap()
    }

    /// A run that has not been stored.
    pub fn a_run(&self) -> AgentRun {
        AgentRun::new(self.project.id, PROVIDER, AgentMode::Implement, "do it")
    }

    /// A run that waits in the line.
    pub async fn queued(&self, storage: &Subject) -> Stored<AgentRun> {
        storage.submit(&self.scope, self.a_run()).await.unwrap()
    }

    /// This many runs that wait in the line, in its order.
    pub async fn many_queued(&self, storage: &Subject, count: usize) -> Vec<Id<AgentRun>> {
        let runs = storage.submit_all(&self.scope, vec![self.a_run(); count]).await.unwrap();
        runs.into_iter().map(|run| run.id).collect()
    }

    /// A run that a worker has leased for long.
    pub async fn running(&self, storage: &Subject) -> Claim {
        let run = self.queued(storage).await;
        claim(storage, run.id, LONG).await
    }

    /// A run whose worker is lost: its lease has run out.
    pub async fn lost(&self, storage: &Subject) -> Claim {
        let claim = self.running(storage).await;
        run_out(storage, &claim.lease).await;
        claim
    }

    /// A run that has failed.
    pub async fn failed(&self, storage: &Subject) -> Stored<AgentRun> {
        let claim = self.running(storage).await;
        storage.settle(&claim.lease, Settlement::new(failed())).await.unwrap()
    }

    /// A run as it is now.
    pub async fn run(&self, storage: &Subject, run: Id<AgentRun>) -> Stored<AgentRun> {
        Lookup::get(&**storage, &self.scope, run).await.unwrap()
    }

    /// The attempts at a run, in order.
    pub async fn attempts(&self, storage: &Subject, run: Id<AgentRun>) -> Vec<RunAttempt> {
        let query = Query::all().filter(RunAttempt::RUN_ID.eq(run));
        let attempts = (**storage).all(&self.scope, query).await.unwrap();
        attempts.into_iter().map(|attempt| attempt.value).collect()
    }

    /// The log of a run, which has no gap.
    pub async fn log(&self, storage: &Subject, run: Id<AgentRun>) -> Vec<RunEvent> {
        let log = storage.read(&self.scope, run, 0, 100_000).await.unwrap();
        assert!(log.iter().zip(1..).all(|(event, n)| event.seq == n), "the log has a gap: {log:?}");
        log
    }

    /// The events of a run's log.
    pub async fn events(&self, storage: &Subject, run: Id<AgentRun>) -> Vec<AgentEvent> {
        self.log(storage, run).await.into_iter().map(|event| event.event).collect()
    }

    /// The states that the log of a run tells of, in order.
    pub async fn states(&self, storage: &Subject, run: Id<AgentRun>) -> Vec<RunStatus> {
        let state = |event: AgentEvent| match event {
            AgentEvent::Status { status, .. } => Some(status),
            _ => None,
        };
        self.events(storage, run).await.into_iter().filter_map(state).collect()
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

/// Looks again and again until there is something; what it is about is told when there never is.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let patiently = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, patiently).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// Waits until this many runs can be taken.
pub async fn in_line(storage: &Subject, ready: usize) {
    let what = format!("{ready} runs are ready");
    eventually(&what, async || {
        let depth = storage.depth().await.unwrap();
        (depth.ready == ready as u64).then_some(())
    })
    .await;
}

/// Takes this many runs, as soon as they are there; their attempts have not begun.
pub async fn take_when_there(storage: &Subject, count: usize, lease: Duration) -> Vec<Lease> {
    let mut taken = Vec::new();
    let what = format!("{count} runs are taken");
    eventually(&what, async || {
        taken.extend(storage.take(&worker(), count - taken.len(), lease).await.unwrap());
        (taken.len() >= count).then_some(())
    })
    .await;
    assert_eq!(taken.len(), count, "more was taken than was asked for");
    taken
}

/// Begins the attempts of leases that hold, for long.
pub async fn begin(storage: &Subject, leases: &[Lease]) -> Vec<Claim> {
    let claims = storage.start(&worker(), leases, LONG).await.unwrap();
    assert_eq!(claims.len(), leases.len(), "a lease that holds was left out");
    claims
}

/// Leases just this run and begins its attempt; whatever else waits is left as it is in the end.
pub async fn claim(storage: &Subject, run: Id<AgentRun>, lease: Duration) -> Claim {
    let mut others = Vec::new();
    let ours = eventually("the run is taken", async || {
        let (mut ours, rest): (Vec<_>, Vec<_>) =
            storage.take(&worker(), 100, LONG).await.unwrap().into_iter().partition(|lease| lease.run == run);
        others.extend(rest);
        ours.pop()
    })
    .await;
    if !others.is_empty() {
        storage.finish(&others).await.unwrap();
        storage.sweep().await.unwrap();
    }
    storage.start(&worker(), &[ours], lease).await.unwrap().pop().expect("the lease has just been given")
}

/// Lets a lease run out that an attempt has begun, and under which it has said something.
pub async fn run_out(storage: &Subject, lease: &Lease) {
    let at_work = AgentEvent::Log { text: "at work".into() };
    storage.append(lease, vec![at_work].into()).await.unwrap();
    storage.heartbeat(lease, SHORT).await.unwrap();
    outlast(SHORT).await;
}

/// Waits until a lease of this length, given before, has run out.
pub async fn outlast(lease: Duration) {
    tokio::time::sleep(lease + SHORT / 2).await;
}

/// Ends runs in some way.
pub async fn end(storage: &Subject, leases: impl IntoIterator<Item = Lease>) {
    for lease in leases {
        storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
}

/// A settlement with this outcome and nothing else.
pub fn settlement(outcome: Outcome) -> Settlement {
    Settlement::new(outcome)
}

/// A failure that nobody tries again.
pub fn failed() -> Outcome {
    Outcome::Failed(Failure::new(FailureKind::Internal, "It broke."))
}

/// A success.
pub fn succeeded() -> Outcome {
    Outcome::Succeeded { summary: None }
}

/// A question about a call of this tool, which waits long for its answer.
pub fn question(tool: &str) -> Question {
    Question {
        scope: ActionScope::tool(),
        action: tool.into(),
        call_id: Some("call-1".into()),
        intent_summary: "May I run this?".into(),
        payload: json!({ "command": "ls" }),
        approvers: vec![],
        expires_after_s: 600,
        on_expiry: Decision::Deny,
    }
}

/// A lease that was never given.
pub fn forged(lease: &Lease) -> Lease {
    Lease { attempt: Id::new(lease.attempt.raw() + 1_000_000), ..*lease }
}

/// The time of day so much from now, as PostgreSQL keeps it.
pub fn from_now(length: Duration) -> DateTime<Utc> {
    let time: DateTime<Utc> = (SystemTime::now() + length).into();
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap()
}
