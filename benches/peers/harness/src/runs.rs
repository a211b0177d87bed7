//! Whole runs through the engine, with agents and checkouts that do nothing: what is left is the engine and the storage.

mod idle;
mod times;

use std::time::{Duration, Instant};

use lime_core::ports::Queue;
use lime_core::repos::{RepoKind, Repository};
use lime_core::{Id, LookupExt, Query, Store};
use lime_engine::{Factory, KeepWorktree, Worker, WorkerConfig};
use lime_storage_postgres::PgStorage;
use sqlx::PgPool;

use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::ground::Ground;
use crate::peer::rate;
use crate::peers::ours::Site;
use crate::report::{Column, Section, Table, Unit};
use crate::target::{Against, Target};
use crate::{Outcome, roster, say};

use idle::{EVENTS, IdleAgent, NoCheckouts};
use times::Times;

const WHOLE: &str = "whole no-op runs";
const OURS: &str = roster::OURS;
const TARGETS: [Target; 1] = [Target::rate(WHOLE, OURS, Against::Fixed, 1000.0)];
/// The model of the runs, for those under budgets.
pub(crate) const MODEL: &str = "gpt-5";
/// How many runs the worker works at once.
const CONCURRENCY: usize = 200;
/// After this long a round has failed.
const LIMIT: Duration = Duration::from_secs(120);
/// How many runs are submitted in one call.
const BATCH: u64 = 500;

pub(crate) async fn measure(args: &Args, ground: &Ground) -> Outcome<Section> {
    let times = Times::listen()?;
    let site = Site::open(ground).await?;
    let mut figures = Figures::default();
    figures.introduce(
        OURS,
        format!(
            "one worker of {CONCURRENCY} runs at once; each is claimed, has its steps, {EVENTS} events of its agent, \
             an empty diff, and is settled"
        ),
    );
    let mut table = String::new();
    for round in 1..=args.rounds {
        ground.calm().await;
        times.reset();
        let began = cpu_time();
        match tokio::time::timeout(LIMIT, work(&site, args.jobs / 4)).await {
            Ok(Ok(rate)) => {
                figures.add(WHOLE, OURS, rate);
                say::line(&format!("round {round} of {}  {WHOLE}  {OURS}  {rate:.0}/s", args.rounds));
            }
            Ok(Err(error)) => figures.fail(WHOLE, OURS, &error.to_string()),
            Err(_) => figures.fail(WHOLE, OURS, "takes too long"),
        }
        table = times.table(args.jobs / 4, cpu_time().saturating_sub(began));
    }
    Ok(Section {
        title: "runs".to_owned(),
        tables: vec![Table {
            title: "runs a second, from the first claim to the last settlement".to_owned(),
            columns: vec![Column {
                title: WHOLE,
                measure: WHOLE,
                statistic: Statistic::Median,
                unit: Unit::PerSecond,
            }],
            ours: OURS,
        }],
        targets: TARGETS.to_vec(),
        figures,
        notes: vec![table],
    })
}

/// Works so many runs, and gives how many a second.
pub(crate) async fn work(site: &Site, count: u64) -> Outcome<f64> {
    site.empty().await?;
    let storage = site.storage(true).await?;
    let pool = site.database.pool(1).await?;
    fill(site, &storage, count).await?;
    site.database.vacuum(&pool).await?;
    let factory = Factory::builder(storage.clone())
        .provider(IdleAgent)
        .repos(NoCheckouts)
        .workspaces(NoCheckouts)
        .build();
    let config = WorkerConfig {
        concurrency: CONCURRENCY,
        keep_worktrees: KeepWorktree::Never,
        ..WorkerConfig::default()
    };
    let began = Instant::now();
    let worker = Worker::new(&factory, config)?.spawn();
    while left(&pool).await? > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed();
    worker.stop(Duration::from_secs(5)).await?;
    storage.close().await;
    let well: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM agent_runs AS run WHERE status = 'succeeded' AND
             (SELECT count(*) FROM agent_events AS event
              WHERE event.tenant_id = run.tenant_id AND event.agent_run_id = run.id AND type = 'message') >= $1",
    )
    .bind(i64::try_from(EVENTS)?)
    .fetch_one(&pool)
    .await?;
    if well.unsigned_abs() != count {
        return Err(format!("{well} of {count} runs have succeeded with all their events").into());
    }
    Ok(rate(count, took))
}

async fn fill(site: &Site, storage: &PgStorage, count: u64) -> Outcome<()> {
    let mut repositories: Vec<Id<Repository>> = Vec::new();
    for scope in site.scopes() {
        let stored = storage.all(scope, Query::<Repository>::all()).await?;
        repositories.push(match stored.first() {
            Some(repository) => repository.id,
            None => storage.insert(scope, repository()).await?.id,
        });
    }
    for (turn, from) in (0..count).step_by(usize::try_from(BATCH)?).enumerate() {
        let (scope, mut runs) = site.runs(turn as u64, usize::try_from(BATCH.min(count - from))?);
        for run in &mut runs {
            run.model = Some(MODEL.to_owned());
            run.repository_id = Some(repositories[turn % repositories.len()]);
        }
        storage.submit_all(&scope, runs).await?;
    }
    Ok(())
}

fn repository() -> Repository {
    Repository {
        connector_id: None,
        provider: RepoKind::Local,
        external_repo_id: None,
        owner: "measured".into(),
        name: "nothing".into(),
        full_name: "/measured/nothing".into(),
        clone_url: "/measured/nothing".into(),
        default_branch: "main".into(),
        is_enabled: true,
    }
}

async fn left(pool: &PgPool) -> Outcome<i64> {
    Ok(sqlx::query_scalar("SELECT (SELECT count(*) FROM run_queue) + (SELECT count(*) FROM run_leases)")
        .fetch_one(pool)
        .await?)
}

/// The time that this process has had on a processor, as Linux tells it; none elsewhere.
fn cpu_time() -> Duration {
    /// A hundredth of a second, on every Linux there is.
    const TICK: Duration = Duration::from_millis(10);
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Duration::ZERO };
    // The name in parentheses may have anything in it; the 14th and 15th words are the times.
    let words = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    words.filter_map(|ticks| ticks.parse::<u32>().ok()).map(|ticks| TICK * ticks).sum()
}
