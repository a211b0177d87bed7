//! A database of its own for each test.
#![allow(unreachable_pub, reason = "this is a module of several tests")]
#![allow(dead_code, reason = "each test file takes what it needs")]

#[cfg(feature = "embedded")]
pub mod copies;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::planning::Project;
use lime_core::ports::{Claim, Claimant, Queue, Settlement, WorkerName};
use lime_core::runs::{AgentEvent, AgentMode, AgentRun, Outcome, ProviderId};
use lime_core::{Scope, Store, Stored};
use lime_storage_postgres::sea_orm::{ConnectionTrait, DbBackend, Statement};
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

/// A migrated database on the server; a line that begins with `skipped:` and nothing if none answers.
pub async fn database() -> Option<TestDatabase> {
    lime_conformance::or_skip(TestDatabase::migrated().await)
}

pub async fn open(database: &TestDatabase) -> PgStorage {
    PgStorage::connect(database.url(), &options()).await.unwrap()
}

pub fn options() -> PoolOptions {
    PoolOptions { live_poll: Duration::from_millis(50), ..PoolOptions::default() }
}

pub fn statement(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql.to_owned())
}

/// The first column of every row, as text.
pub async fn texts(db: &impl ConnectionTrait, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(statement(sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// The first column of every row, as the owner sees it, who sees what others do too.
pub async fn texts_of_owner(storage: &PgStorage, sql: &str) -> Vec<String> {
    let rows = storage.owner(async |owner| owner.query_all_raw(statement(sql)).await).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// Does what only the owner of the tables may.
pub async fn as_owner(storage: &PgStorage, sql: &str) {
    storage.owner(async |owner| owner.execute_unprepared(sql).await).await.unwrap();
}

/// A tenant with a project.
pub async fn scene(storage: &PgStorage) -> (Scope, Stored<Project>) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let slug = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let tenant = Tenant::new("T", Slug::parse(slug).unwrap());
    let scope = Scope::system(storage.create_tenant(tenant).await.unwrap().id, "a test");
    let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
    (scope, project)
}

/// A lease that outlives every test.
pub const LONG: Duration = Duration::from_secs(600);

/// A run that has not been stored.
pub fn a_run(project: &Stored<Project>) -> AgentRun {
    AgentRun::new(project.id, ProviderId::from_static("replay"), AgentMode::Implement, "do it")
}

pub async fn submit(storage: &PgStorage, scope: &Scope, project: &Stored<Project>) -> Stored<AgentRun> {
    storage.submit(scope, a_run(project)).await.unwrap()
}

/// Leases the only run that waits.
pub async fn claim(storage: &PgStorage, lease: Duration) -> Claim {
    storage.claim(&worker(), 1, lease).await.unwrap().pop().unwrap()
}

pub fn worker() -> Claimant {
    let providers = vec![ProviderId::from_static("replay")];
    Claimant { worker: WorkerName::parse("a test").unwrap(), providers }
}

pub fn log(text: impl Into<String>) -> AgentEvent {
    AgentEvent::Log { text: text.into() }
}

pub fn settlement(outcome: Outcome) -> Settlement {
    Settlement::new(outcome)
}
