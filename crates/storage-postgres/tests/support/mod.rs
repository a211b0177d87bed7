//! A database of its own for each test.
#![allow(unreachable_pub, reason = "this is a module of several tests")]
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::planning::Project;
use lime_core::ports::{Claim, Claimant, Queue, Settlement, WorkerName};
use lime_core::runs::{AgentEvent, AgentMode, AgentRun, Outcome, ProviderId};
use lime_core::{Scope, Store, Stored};
use lime_storage_postgres::sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbBackend, Statement,
};
use lime_storage_postgres::{PgStorage, PoolOptions};
use tokio::sync::OnceCell;

fn server_url() -> String {
    std::env::var("LIME_TEST_DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

fn admin() -> ConnectOptions {
    let mut connect = ConnectOptions::new(server_url());
    connect.acquire_timeout(Duration::from_secs(3)).sqlx_logging(false);
    connect
}

/// A fresh database on the server of `LIME_TEST_DATABASE_URL`, dropped at the end.
pub struct Fresh {
    pub url: String,
    name: String,
}

impl Fresh {
    /// Prints a line that begins with `skipped:` and gives nothing if no server answers.
    pub async fn create() -> Option<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let name = format!(
            "lime_test_{}_{}_{}",
            std::process::id(),
            since.subsec_nanos(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        static ANSWERS: OnceCell<bool> = OnceCell::const_new();
        let answers = || async { Database::connect(admin()).await.is_ok() };
        if !*ANSWERS.get_or_init(answers).await {
            lime_conformance::skip("no PostgreSQL server answers; set LIME_TEST_DATABASE_URL to one");
            return None;
        }
        let admin = Database::connect(admin()).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let server = server_url();
        let (base, query) =
            server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
        let (host, _) = base.rsplit_once('/').unwrap();
        let url = if query.is_empty() { format!("{host}/{name}") } else { format!("{host}/{name}?{query}") };
        Some(Self { url, name })
    }

    pub async fn storage(&self) -> PgStorage {
        PgStorage::connect(&self.url, &options()).await.unwrap()
    }

    pub async fn migrated(&self) -> PgStorage {
        let storage = self.storage().await;
        storage.migrate().await.unwrap();
        storage
    }
}

impl Drop for Fresh {
    /// On a thread and runtime of its own, since a test that panics has none to wait on.
    fn drop(&mut self) {
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let admin = Database::connect(admin()).await.unwrap();
                admin.execute_unprepared(&drop_it).await.unwrap();
            });
        });
        dropped.join().unwrap();
    }
}

pub fn options() -> PoolOptions {
    PoolOptions { live_poll: Duration::from_millis(50), ..PoolOptions::default() }
}

pub fn statement(sql: &str) -> Statement {
    Statement::from_string(DbBackend::Postgres, sql.to_owned())
}

/// The first column of every row, as text.
pub async fn texts(db: &DatabaseConnection, sql: &str) -> Vec<String> {
    let rows = db.query_all_raw(statement(sql)).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
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
