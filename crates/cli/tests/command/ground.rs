//! A database of its own for each test, and an operator at its terminal.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::planning::Project;
use lime_core::ports::{Claim, Claimant, Queue, Settlement, WorkerName};
use lime_core::runs::{AgentMode, AgentRun, Outcome, ProviderId};
use lime_core::{Scope, Store, Stored};
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};
use serde_json::Value as Json;
use tokio::process::Command;

/// How long one command may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A fresh database on the server of `LIME_TEST_DATABASE_URL`, dropped at the end.
pub(crate) struct Ground {
    pub(crate) url: String,
    _database: TestDatabase,
}

/// What a command left: its status and what it said.
pub(crate) struct Seen {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ground {
    /// Prints a line that begins with `skipped:` and gives nothing if no server answers.
    pub(crate) async fn empty() -> Option<Self> {
        lime_conformance::or_skip(TestDatabase::empty().await).map(Self::on)
    }

    /// The same, with its tables.
    pub(crate) async fn migrated() -> Option<Self> {
        lime_conformance::or_skip(TestDatabase::migrated().await).map(Self::on)
    }

    fn on(database: TestDatabase) -> Self {
        Self { url: database.url().to_owned(), _database: database }
    }

    pub(crate) async fn storage(&self) -> PgStorage {
        let options = PoolOptions { max_connections: 3, ..PoolOptions::default() };
        PgStorage::connect(&self.url, &options).await.unwrap()
    }

    /// The command in an environment of its own, with this database.
    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = lime(args);
        command.env("DATABASE_URL", &self.url);
        command
    }

    pub(crate) async fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Seen {
        Seen::of(self.command(args)).await
    }

    /// Runs a command that succeeds, with `--json`, and gives its document.
    pub(crate) async fn json(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Json {
        let mut command = self.command(args);
        command.arg("--json");
        let seen = Seen::of(command).await;
        assert_eq!(seen.code, 0);
        seen.json()
    }
}

/// The command in an environment of its own.
pub(crate) fn lime(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lime"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Seen {
    pub(crate) async fn of(mut command: Command) -> Self {
        let output = in_time(command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let code = output.status.code().unwrap();
        let seen = Self { code, stdout: text(output.stdout), stderr: text(output.stderr) };
        eprintln!("{code}\n{}{}", seen.stdout, seen.stderr);
        assert!(!seen.stderr.contains("panicked"));
        seen
    }

    /// The one document on standard output.
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// What comes of it, if that does not take too long.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it took too long")
}

/// The names of an object's fields, sorted: its shape.
pub(crate) fn fields(document: &Json) -> Vec<&str> {
    let mut names: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// A tenant with a project of the key `WEB`.
pub(crate) async fn tenant(storage: &PgStorage, slug: &str) -> (Scope, Stored<Project>) {
    let tenant = Tenant::new(slug, Slug::parse(slug).unwrap());
    let scope = Scope::system(storage.create_tenant(tenant).await.unwrap().id, "a test");
    let project = storage.insert(&scope, Project::new("Website", "WEB")).await.unwrap();
    (scope, project)
}

pub(crate) async fn submit(
    storage: &PgStorage,
    scope: &Scope,
    project: &Stored<Project>,
    prompt: &str,
) -> Stored<AgentRun> {
    let run = AgentRun::new(project.id, ProviderId::from_static("replay"), AgentMode::Implement, prompt);
    storage.submit(scope, run).await.unwrap()
}

/// Takes the next run in the line up.
pub(crate) async fn claim(storage: &PgStorage, lease: Duration) -> Claim {
    let claimant = Claimant {
        worker: WorkerName::parse("a test").unwrap(),
        providers: vec![ProviderId::from_static("replay")],
    };
    in_time(async {
        loop {
            if let Some(claim) = storage.claim(&claimant, 1, lease).await.unwrap().pop() {
                return claim;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// A lease that outlives the test.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// Ends a run well.
pub(crate) async fn succeed(storage: &PgStorage, claim: &Claim) {
    let outcome = Outcome::Succeeded { summary: Some("All done.".into()) };
    storage.settle(&claim.lease, Settlement::new(outcome)).await.unwrap();
}
