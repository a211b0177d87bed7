//! What the workers work on: a database, tenants, projects and git repositories.

use std::path::{Path, PathBuf};
use std::time::Duration;

use assembly_lime::git::LocalRepos;
use assembly_lime::identity::{Slug, Tenant, Tenants};
use assembly_lime::planning::Project;
use assembly_lime::ports::Queue;
use assembly_lime::postgres::sea_orm::{ConnectionTrait, Database, DbBackend, QueryResult, Statement};
use assembly_lime::postgres::{PgStorage, PoolOptions};
use assembly_lime::repos::{RepoKind, Repository};
use assembly_lime::runs::{AgentMode, AgentRun};
use assembly_lime::{Error, ErrorKind, Factory, Id, Result, Scope, Store, Stored};
use tempfile::TempDir;
use tokio::process::Command;

/// How many runs are submitted at once.
const BATCH: usize = 500;

/// A database of its own with tenants in it, and a folder with repositories; all of it goes with [`Ground::clear`].
pub(crate) struct Ground {
    pub(crate) url: String,
    pub(crate) storage: PgStorage,
    pub(crate) folder: TempDir,
    pub(crate) fields: Vec<Field>,
    server: String,
    database: String,
}

/// A tenant with a project and a repository.
pub(crate) struct Field {
    pub(crate) scope: Scope,
    pub(crate) project: Id<Project>,
    pub(crate) repository: Stored<Repository>,
}

/// How many tenants there are, and how many of their runs may be worked at once.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) tenants: usize,
    /// Projects of each tenant, each with a repository of its own.
    pub(crate) projects: usize,
    pub(crate) most: Option<i32>,
}

pub(crate) fn broken(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unexpected, "chaos", what)
}

fn lost(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "chaos.database", "the database does not answer").because(error)
}

/// The URL of another database on the same server.
fn beside(server: &str, database: &str) -> Result<String> {
    let (head, query) = server.split_once('?').unwrap_or((server, ""));
    let (head, _) =
        head.rsplit_once('/').ok_or_else(|| Error::invalid("chaos.database", "the URL names no database"))?;
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Ok(format!("{head}/{database}{query}"))
}

async fn admin(server: &str, statement: &str) -> Result<()> {
    let admin = Database::connect(server).await.map_err(lost)?;
    let done = admin.execute_unprepared(statement).await.map_err(lost);
    admin.close().await.map_err(lost)?;
    done.map(|_| ())
}

impl Ground {
    pub(crate) async fn prepare(server: &str, layout: &Layout) -> Result<Self> {
        let database = format!("chaos_{:016x}", fastrand::u64(..));
        admin(server, &format!("CREATE DATABASE {database}")).await?;
        let url = beside(server, &database)?;
        let options = PoolOptions { max_connections: 8, ..PoolOptions::default() };
        let storage = PgStorage::connect(&url, &options).await?;
        storage.migrate().await?;
        let folder = TempDir::with_prefix("chaos-").map_err(|error| broken(format!("no folder: {error}")))?;
        let factory = Factory::builder(storage.clone()).repos(LocalRepos::new()).build();
        let mut fields = Vec::new();
        for number in 0..layout.tenants {
            let slug = Slug::parse(format!("tenant-{number}")).map_err(|error| broken(error.to_string()))?;
            let tenant = storage.create_tenant(Tenant::new(format!("Tenant {number}"), slug)).await?;
            storage.limit_runs(tenant.id, layout.most).await?;
            let scope = Scope::system(tenant.id, "chaos");
            for project in 0..layout.projects {
                let repository = repository(folder.path(), &format!("repo-{number}-{project}")).await?;
                let location = repository.display().to_string();
                let repository = factory.connect_repository(&scope, RepoKind::Local, &location).await?;
                let mut project = Project::new(format!("Project {project}"), format!("P{project}"));
                project.max_concurrent_agents = 10;
                let project = storage.insert(&scope, project).await?.id;
                fields.push(Field { scope: scope.clone(), project, repository });
            }
        }
        Ok(Self { url, storage, folder, fields, server: server.to_owned(), database })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A recording that takes about so long, and changes a file.
    pub(crate) async fn recording(&self, length: Duration) -> Result<PathBuf> {
        let path = self.path().join(format!("work-{}.toml", length.as_millis()));
        let third = length.as_millis() / 3;
        let text = format!(
            r#"version = 1
name = "work"

[[step]]
wait_ms = {third}
say = "I begin."

[[step]]
wait_ms = {third}
write = "work.txt"
content = "done by {{{{run_id}}}}\n"

[[step]]
wait_ms = {third}
usage = {{ input_tokens = 10, output_tokens = 5, cost_micros = 7 }}

[[step]]
say = "Done."
"#
        );
        tokio::fs::write(&path, text).await.map_err(|error| broken(format!("no recording: {error}")))?;
        Ok(path)
    }

    /// Submits runs to one field, many at once.
    pub(crate) async fn submit(
        &self,
        field: &Field,
        count: usize,
        prompt: &str,
    ) -> Result<Vec<Id<AgentRun>>> {
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let batch = (count - ids.len()).min(BATCH);
            let run = || {
                let mut run = AgentRun::new(
                    field.project,
                    assembly_lime::replay::ReplayProvider::ID,
                    AgentMode::Implement,
                    prompt,
                );
                run.repository_id = Some(field.repository.id);
                run
            };
            let runs = (0..batch).map(|_| run()).collect();
            ids.extend(self.storage.submit_all(&field.scope, runs).await?.iter().map(|run| run.id));
        }
        Ok(ids)
    }

    /// Spreads runs over all fields.
    pub(crate) async fn submit_everywhere(&self, count: usize, prompt: &str) -> Result<()> {
        let each = count / self.fields.len();
        let more = count % self.fields.len();
        for (index, field) in self.fields.iter().enumerate() {
            self.submit(field, each + usize::from(index < more), prompt).await?;
        }
        Ok(())
    }

    pub(crate) async fn rows(&self, statement: &str) -> Result<Vec<QueryResult>> {
        let statement = Statement::from_string(DbBackend::Postgres, statement.to_owned());
        self.storage.connection().query_all_raw(statement).await.map_err(lost)
    }

    /// A number that a statement gives in its first column, called `n`.
    pub(crate) async fn number(&self, statement: &str) -> Result<i64> {
        let row = self.rows(statement).await?;
        let row = row.first().ok_or_else(|| broken(format!("no row from: {statement}")))?;
        row.try_get("", "n").map_err(lost)
    }

    /// How many runs have not ended.
    pub(crate) async fn unfinished(&self) -> Result<i64> {
        self.number("SELECT count(*) AS n FROM agent_runs WHERE ended_at IS NULL").await
    }

    /// Where the evidence is, for whoever looks into what is broken.
    pub(crate) fn kept(&self) -> &str {
        &self.database
    }

    pub(crate) async fn clear(self) -> Result<()> {
        self.storage.close().await;
        admin(&self.server, &format!("DROP DATABASE {} WITH (FORCE)", self.database)).await
    }
}

/// A bare repository with one commit, which keeps a log of every change of every branch.
async fn repository(folder: &Path, name: &str) -> Result<PathBuf> {
    let seed = folder.join(format!("{name}-seed"));
    let bare = folder.join(format!("{name}.git"));
    let seed_text = seed.display().to_string();
    git(&["init", "-q", "-b", "main", &seed_text]).await?;
    tokio::fs::write(seed.join("README.md"), "A ground for chaos.\n")
        .await
        .map_err(|error| broken(format!("no file: {error}")))?;
    git(&["-C", &seed_text, "add", "."]).await?;
    let author = ["-c", "user.name=Chaos", "-c", "user.email=chaos@example.invalid"];
    git(&[&["-C", &seed_text], &author[..], &["commit", "-q", "-m", "Begin"]].concat()).await?;
    let bare_text = bare.display().to_string();
    git(&["clone", "-q", "--bare", &seed_text, &bare_text]).await?;
    git(&["-C", &bare_text, "config", "core.logAllRefUpdates", "always"]).await?;
    Ok(bare)
}

pub(crate) async fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .await
        .map_err(|error| broken(format!("git cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(broken(format!("git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
