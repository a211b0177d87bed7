use clap::{Parser, ValueEnum};

/// Measures ours beside other job queues and bare SQL, and prints ratios.
///
/// It makes its own databases (peers_…) on the server and drops them, starts a Redis of its own that syncs every
/// write, and keeps to a prefix of its own on the Redis that it is given.
#[derive(Debug, Parser)]
#[command(name = "peers")]
pub(crate) struct Args {
    /// What to measure.
    #[arg(value_enum, default_value_t = Subject::All)]
    pub(crate) subject: Subject,

    /// A PostgreSQL server, as somebody who may create databases.
    #[arg(
        long,
        env = "DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://postgres@127.0.0.1:5432/postgres"
    )]
    pub(crate) database_url: String,

    /// A Redis server.
    #[arg(long, env = "REDIS_URL", hide_env_values = true, default_value = "redis://127.0.0.1:6379")]
    pub(crate) redis_url: String,

    /// How many jobs wait when a drain begins.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(500..=1_000_000))]
    pub(crate) jobs: u64,

    /// How often everything is measured, in turns; rates are medians over the rounds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub(crate) rounds: u32,

    /// How long jobs are enqueued in one measurement, in seconds.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,

    /// How many single jobs are enqueued on an idle system in each round.
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    pub(crate) samples: u32,

    /// Only these peers, as the tables name them.
    #[arg(long, value_delimiter = ',', value_name = "PEER,…")]
    pub(crate) only: Vec<String>,

    /// Only the measurements of the queue whose names have this in them, such as "drain" or "idle".
    #[arg(long, default_value = "", value_name = "PART")]
    pub(crate) measure: String,

    /// Prints one JSON document instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Enqueueing, draining and picking up jobs.
    Queue,
    /// Appending events, and telling subscribers.
    Events,
    /// Admissions to one budget and to many, and whole runs under budgets.
    Budgets,
    /// One tenant's calls under row-level security.
    Isolation,
    /// Whole runs through the engine, a quarter as many as there are jobs in a drain.
    Runs,
    /// All of them.
    All,
}

impl Args {
    /// Whether a peer was asked for.
    pub(crate) fn wants(&self, peer: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|it| it == peer)
    }
}
