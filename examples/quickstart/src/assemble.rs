//! Puts a factory together: the part to start your own from.

use std::path::Path;

use assembly_lime::git::{GitWorkspaces, LocalRepos};
use assembly_lime::postgres::{Embedded, PgStorage, PoolOptions};
use assembly_lime::{Factory, KeepWorktree, Result, RunningWorker, Worker, WorkerConfig};

use crate::agent::Agent;
use crate::place::Place;
use crate::show::text::tilde;

/// The database: in this process, or on a server.
pub(crate) struct Database {
    /// Where it is, for a person.
    pub(crate) name: String,
    storage: PgStorage,
    embedded: Option<Embedded>,
}

impl Database {
    /// A whole PostgreSQL in this process, which keeps its data in a folder.
    pub(crate) async fn embedded(folder: &Path) -> Result<Self> {
        let embedded = Embedded::open(folder).await?;
        Ok(Self { name: tilde(folder), storage: embedded.storage(), embedded: Some(embedded) })
    }

    /// One on a server, for as many processes as you like.
    pub(crate) async fn server(url: &str) -> Result<Self> {
        let storage = PgStorage::connect(url, &PoolOptions::default()).await?;
        storage.migrate().await?;
        Ok(Self { name: "your server".to_owned(), storage, embedded: None })
    }

    /// Whether nobody else can use it at the same time.
    pub(crate) fn is_private(&self) -> bool {
        self.embedded.is_some()
    }

    /// Ends it, after the worker: that still writes what it leaves.
    pub(crate) async fn close(self) -> Result<()> {
        match self.embedded {
            Some(embedded) => embedded.close().await,
            None => {
                self.storage.close().await;
                Ok(())
            }
        }
    }
}

/// A factory is a storage, the agents that runs may ask for, the kinds of repository that it knows, and where
/// checkouts are made; each of them can be another that keeps the same contract.
pub(crate) fn factory(database: &Database, agent: Agent, place: &Place) -> Result<Factory> {
    let factory = Factory::builder(database.storage.clone())
        .repos(LocalRepos::new())
        .workspaces(GitWorkspaces::new(place.work())?);
    let factory = match agent {
        Agent::Claude(claude) => factory.provider(claude),
        Agent::Codex(codex) => factory.provider(codex),
        Agent::Replay(replay) => factory.provider(replay),
    };
    Ok(factory.build())
}

/// A worker takes what is submitted and works it; here it lives in the same process, elsewhere in many.
pub(crate) fn worker(factory: &Factory, keep: bool) -> Result<RunningWorker> {
    let keep_worktrees = if keep { KeepWorktree::Always } else { KeepWorktree::Unfinished };
    let worker = Worker::new(factory, WorkerConfig { keep_worktrees, ..WorkerConfig::default() })?;
    Ok(worker.spawn())
}
