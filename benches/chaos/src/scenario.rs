//! What is done to the workers and the database.

mod clocks;
mod fairness;
mod freeze;
mod kill;
mod poison;
mod restart;

use std::time::Duration;

use assembly_lime::Result;
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::check::check;
use crate::fleet::{Fleet, Kit};
use crate::ground::{Ground, Layout, broken};
use crate::report::Report;

/// How much, and what.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// Which scenario to play.
    #[arg(long, value_enum, default_value_t = Scenario::Kill)]
    pub(crate) scenario: Scenario,
    /// How many runs are submitted.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) runs: usize,
    /// How many worker processes there are.
    #[arg(long, default_value_t = 8)]
    pub(crate) workers: usize,
    /// How many runs each of them works at once.
    #[arg(long, default_value_t = 4)]
    pub(crate) concurrency: usize,
    /// How many workers are killed, at random times.
    #[arg(long, default_value_t = 10)]
    pub(crate) kills: usize,
    /// How often a worker is stopped for three leases, and let go on.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
    /// For how long the database is restarted again and again, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) restarts_for: u64,
    /// How long a lease is, in milliseconds.
    #[arg(long, default_value_t = 3_000)]
    pub(crate) lease_ms: u64,
    /// How long a run's agent works, in milliseconds.
    #[arg(long, default_value_t = 150)]
    pub(crate) work_ms: u64,
    /// Tells times and does not judge them: for a machine that has other things to do.
    #[arg(long)]
    pub(crate) untimed: bool,
    /// Makes the random times the same again; printed by each scenario.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A server on which databases may be made, as a superuser.
    #[arg(
        long,
        env = "LIME_TEST_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://postgres@127.0.0.1:5432/postgres"
    )]
    pub(crate) database_url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Workers are killed at random times.
    Kill,
    /// Workers are stopped for three leases, and go on.
    Freeze,
    /// The database is restarted again and again.
    Restart,
    /// The workers' clocks are wrong by ten minutes.
    Clocks,
    /// One run kills its worker each time.
    Poison,
    /// One tenant has a thousand times as many runs as the other.
    Fairness,
    /// All of them.
    All,
}

/// Plays the scenarios, and gives whether everything held.
pub(crate) async fn play(plan: &Plan) -> Result<bool> {
    let seed = plan.seed.unwrap_or_else(|| fastrand::u64(..));
    fastrand::seed(seed);
    println!("seed {seed}");
    let wanted = |scenario| plan.scenario == scenario || plan.scenario == Scenario::All;
    let mut held = true;
    let mut tell = |report: Report| {
        report.print();
        held &= report.wrongs.is_empty();
    };
    if wanted(Scenario::Kill) {
        tell(kill::play(plan).await?);
    }
    if wanted(Scenario::Freeze) {
        tell(freeze::play(plan).await?);
    }
    if wanted(Scenario::Clocks) {
        tell(clocks::play(plan).await?);
    }
    if wanted(Scenario::Poison) {
        tell(poison::play(plan).await?);
    }
    if wanted(Scenario::Fairness) {
        tell(fairness::play(plan).await?);
    }
    if wanted(Scenario::Restart) {
        tell(restart::play(plan).await?);
    }
    Ok(held)
}

impl Plan {
    fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    fn work(&self) -> Duration {
        Duration::from_millis(self.work_ms)
    }

    /// Ground for this many runs at once, on the plan's server.
    async fn ground(&self) -> Result<Ground> {
        let layout = Layout { tenants: 4, projects: 5, most: None };
        Ground::prepare(&self.database_url, &layout).await
    }

    async fn kit(&self, ground: &Ground, work: Duration) -> Result<Kit> {
        Ok(Kit {
            database_url: ground.url.clone(),
            folder: ground.path().join("checkouts"),
            recording: ground.recording(work).await?,
            concurrency: self.concurrency,
            lease: self.lease(),
        })
    }
}

/// Waits until every run has ended; fails if none ends for a long time.
async fn finish(ground: &Ground, fleet: &mut Fleet) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut left = ground.unfinished().await?;
    let mut since = Instant::now();
    while left > 0 {
        sleep(Duration::from_millis(200)).await;
        fleet.replace_dead()?;
        let now = ground.unfinished().await?;
        if now < left {
            (left, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            return Err(broken(format!("{left} runs do not end, and none has for {PATIENCE:?}")));
        }
    }
    Ok(())
}

/// Stops the workers, checks everything, and clears up.
async fn conclude(ground: Ground, fleet: Fleet, mut report: Report) -> Result<Report> {
    fleet.stop().await?;
    report.figure("runs that succeeded", ground.number(&ended("succeeded")).await?);
    report.figure("runs that failed", ground.number(&ended("failed")).await?);
    report.figure("attempts", ground.number("SELECT count(*) AS n FROM run_attempts").await?);
    report.figure(
        "attempts lost with their worker",
        ground.number("SELECT count(*) AS n FROM run_attempts WHERE outcome = 'lost'").await?,
    );
    report.wrongs.extend(check(&ground).await?);
    if report.wrongs.is_empty() {
        ground.clear().await?;
    } else {
        report.wrongs.push(format!("the database is kept: {}", ground.kept()));
    }
    Ok(report)
}

fn ended(status: &str) -> String {
    format!("SELECT count(*) AS n FROM agent_runs WHERE status = '{status}'")
}

/// How long the attempts that a dead worker had begun were without a successor, at most, in milliseconds.
///
/// - From the worker's death, on the database's clock, or from the last rescue of what it had, whichever is later.
async fn longest_orphanage(ground: &Ground, worker: &str, died_at: &str) -> Result<i64> {
    ground
        .number(&format!(
            "SELECT coalesce(max(extract(epoch FROM next.created_at - '{died_at}'::timestamptz) * 1000), 0)::bigint AS n
             FROM run_attempts AS lost JOIN run_attempts AS next
               ON next.tenant_id = lost.tenant_id AND next.run_id = lost.run_id AND next.number = lost.number + 1
             WHERE lost.worker = '{worker}' AND lost.outcome = 'lost'"
        ))
        .await
}

/// The time now on the database's clock, as it writes it.
async fn database_time(ground: &Ground) -> Result<String> {
    let rows = ground.rows("SELECT clock_timestamp()::text AS now").await?;
    let row = rows.first().ok_or_else(|| broken("the database has no time"))?;
    row.try_get("", "now").map_err(|error| broken(format!("the database has no time: {error}")))
}
