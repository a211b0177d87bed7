//! Tenants and projects in a database of ours.

use std::time::Duration;

use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::planning::Project;
use lime_core::ports::{Claimant, Queue, WorkerName};
use lime_core::runs::{AgentMode, AgentRun, ProviderId};
use lime_core::{Id, Scope, Store};
use lime_storage_postgres::{PgStorage, PoolOptions};

use crate::Outcome;
use crate::ground::{Database, Ground};

/// Whose runs they are.
pub(crate) const PROVIDER: ProviderId = ProviderId::from_static("replay");
/// How many tenants there are.
const TENANTS: u32 = 4;
/// How many projects each has; a project has at most ten runs at work, so they bound how many are.
const PROJECTS: u32 = 50;
/// Connections of one process.
const CONNECTIONS: u32 = 10;
/// Good for longer than any measurement takes.
pub(crate) const LEASE: Duration = Duration::from_secs(600);

/// A database with tenants and projects that runs can belong to.
pub(crate) struct Site {
    pub(crate) database: Database,
    tenants: Vec<(Scope, Vec<Id<Project>>)>,
}

impl Site {
    pub(crate) async fn open(ground: &Ground) -> Outcome<Self> {
        let database = ground.database().await?;
        let mut site = Self { database, tenants: Vec::new() };
        let storage = site.storage(true).await?;
        storage.migrate().await?;
        for number in 0..TENANTS {
            let tenant = Tenant::new("A tenant", Slug::parse(format!("tenant-{number}"))?);
            let tenant = storage.create_tenant(tenant).await?;
            let scope = Scope::system(tenant.id, "measuring");
            let mut projects = Vec::new();
            for number in 0..PROJECTS {
                let project = Project::new("A project", format!("P{number}"));
                let project = Project { max_concurrent_agents: 10, ..project };
                projects.push(storage.insert(&scope, project).await?.id);
            }
            site.tenants.push((scope, projects));
        }
        storage.close().await;
        Ok(site)
    }

    /// The connections of one more process, which is told of news by the others or looks for it.
    pub(crate) async fn storage(&self, notify: bool) -> Outcome<PgStorage> {
        let options = PoolOptions { max_connections: CONNECTIONS, notify, ..PoolOptions::default() };
        Ok(PgStorage::connect(&self.database.url, &options).await?)
    }

    /// Forgets all runs but some old ones that were taken and finished, so that the planner knows the tables, as it does
    /// on a server that has run for more than a minute.
    pub(crate) async fn empty(&self) -> Outcome<()> {
        const OLD: u64 = 1000;
        let pool = self.database.pool(1).await?;
        sqlx::query("TRUNCATE agent_runs, agent_events, run_queue, run_leases CASCADE")
            .execute(&pool)
            .await?;
        let storage = self.storage(false).await?;
        self.fill(&storage, OLD).await?;
        let claimant = claimant("before")?;
        loop {
            let leases = storage.take(&claimant, 500, LEASE).await?;
            if leases.is_empty() {
                break;
            }
            storage.finish(&leases).await?;
        }
        storage.close().await;
        self.database.vacuum(&pool).await
    }

    /// The tenants, in the order of their turns.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.tenants.iter().map(|(scope, _)| scope)
    }

    /// A run of the tenant and the project whose turn it is.
    pub(crate) fn run(&self, turn: u64) -> (Scope, AgentRun) {
        let turn = usize::try_from(turn).unwrap_or_default();
        let (scope, projects) = &self.tenants[turn % self.tenants.len()];
        let project = projects[(turn / self.tenants.len()) % projects.len()];
        (scope.clone(), a_run(project))
    }

    /// So many runs of one tenant, in all its projects.
    pub(crate) fn runs(&self, turn: u64, count: usize) -> (Scope, Vec<AgentRun>) {
        let (scope, projects) = &self.tenants[usize::try_from(turn).unwrap_or_default() % self.tenants.len()];
        (scope.clone(), projects.iter().cycle().take(count).map(|project| a_run(*project)).collect())
    }

    /// Submits so many runs.
    pub(crate) async fn fill(&self, storage: &PgStorage, count: u64) -> Outcome<()> {
        const AT_ONCE: u64 = 500;
        for from in (0..count).step_by(500) {
            let (scope, runs) = self.runs(from / AT_ONCE, usize::try_from(AT_ONCE.min(count - from))?);
            storage.submit_all(&scope, runs).await?;
        }
        Ok(())
    }
}

fn a_run(project: Id<Project>) -> AgentRun {
    AgentRun::new(project, PROVIDER, AgentMode::Implement, "Mend the failing test of the parser")
}

/// Who takes runs.
pub(crate) fn claimant(name: &str) -> Outcome<Claimant> {
    Ok(Claimant { worker: WorkerName::parse(name)?, providers: vec![PROVIDER] })
}
