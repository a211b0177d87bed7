//! One worker process.

use std::path::PathBuf;
use std::time::Duration;

use assembly_lime::git::{GitWorkspaces, LocalRepos};
use assembly_lime::ports::{AgentProvider, AgentSession, Clock, Readiness, SessionSpec, WorkerName};
use assembly_lime::postgres::{PgStorage, PoolOptions};
use assembly_lime::replay::{Recording, ReplayProvider};
use assembly_lime::runs::ProviderId;
use assembly_lime::{Error, ErrorKind, Factory, KeepWorktree, Result, Worker, WorkerConfig};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// The word in a prompt that kills the worker that starts an agent on it.
pub(crate) const POISON: &str = "poison";

#[derive(Debug, Clone, Args)]
pub(crate) struct WorkArgs {
    #[arg(long, env = "CHAOS_DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// Where checkouts go.
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) concurrency: usize,
    #[arg(long)]
    pub(crate) lease_ms: u64,
    /// The recording that its agents play.
    #[arg(long)]
    pub(crate) recording: PathBuf,
    /// How wrong its clock is, in seconds.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    pub(crate) clock_off_by: i64,
}

/// Works until it is told to stop.
pub(crate) async fn work(args: WorkArgs) -> Result<()> {
    let mut stop = signal(SignalKind::terminate()).map_err(|error| {
        Error::new(ErrorKind::Unexpected, "chaos.work", "the signal cannot be heard").because(error)
    })?;
    let lease = Duration::from_millis(args.lease_ms);
    let options = PoolOptions { max_connections: 6, ..PoolOptions::default() };
    let storage = PgStorage::connect(&args.database_url, &options).await?;
    let replay = ReplayProvider::new(Recording::load(&args.recording)?);
    let factory = Factory::builder(storage)
        .provider(Deadly(replay))
        .repos(LocalRepos::new())
        .workspaces(GitWorkspaces::new(&args.folder)?)
        .clock(Wrong(TimeDelta::seconds(args.clock_off_by)))
        .build();
    let config = WorkerConfig {
        name: WorkerName::parse(args.name).map_err(|invalid| invalid.refused("chaos.work", "worker"))?,
        concurrency: args.concurrency,
        lease,
        heartbeat: lease / 3,
        poll: Duration::from_millis(200),
        keep_worktrees: KeepWorktree::Never,
        ..WorkerConfig::default()
    };
    let worker = Worker::new(&factory, config)?.spawn();
    stop.recv().await;
    worker.stop(Duration::from_secs(5)).await
}

/// Plays recordings, unless the prompt kills it.
struct Deadly(ReplayProvider);

#[async_trait]
impl AgentProvider for Deadly {
    fn id(&self) -> ProviderId {
        self.0.id()
    }

    async fn readiness(&self) -> Readiness {
        self.0.readiness().await
    }

    async fn start(&self, spec: SessionSpec) -> Result<Box<dyn AgentSession>> {
        if spec.request.prompt.contains(POISON) {
            let killed = kill_process(getpid(), Signal::KILL);
            return Err(Error::new(ErrorKind::Unexpected, "chaos.work", format!("still alive: {killed:?}")));
        }
        self.0.start(spec).await
    }
}

/// A clock that is wrong by as much.
struct Wrong(TimeDelta);

impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        DateTime::<Utc>::from(std::time::SystemTime::now()) + self.0
    }
}
