//! Workers are stopped for three leases, and go on: what they do then must change nothing.

use std::time::Duration;

use assembly_lime::{Error, Result};
use tokio::time::{Instant, sleep};

use super::{Plan, conclude, finish};
use crate::fleet::Fleet;
use crate::ground::{Ground, broken};
use crate::report::Report;

/// How long a lease is here: three of them are waited for in each round.
const LEASE: Duration = Duration::from_millis(600);
/// Long enough that a worker is caught in the middle of it.
const WORK: Duration = Duration::from_millis(400);

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("workers are stopped for three leases, and go on");
    let plan = Plan { lease_ms: 600, ..plan.clone() };
    let ground = plan.ground().await?;
    let kit = plan.kit(&ground, WORK).await?;
    let workers = plan.workers.max(2);
    let mut fleet = Fleet::start(kit, workers)?;
    let began = Instant::now();
    let mut caught = 0;
    for _ in 0..plan.rounds {
        ground.submit_everywhere(workers * plan.concurrency * 2, "Do the work.").await?;
        let worker = busy(&ground, &fleet).await?;
        // At a random moment: while it prepares, works, delivers or settles.
        sleep(Duration::from_millis(fastrand::u64(0..=600))).await;
        caught += held_by(&ground, fleet.name(worker)).await?;
        fleet.freeze(worker)?;
        sleep(LEASE * 3).await;
        fleet.thaw(worker)?;
        finish(&ground, &mut fleet).await?;
    }
    report.figure("rounds", plan.rounds);
    report.figure("runs held by a worker when it was stopped", caught);
    report.seconds("in", began.elapsed());
    report.expect(caught > 0, || "no worker was caught with a run; nothing was tested".to_owned());
    conclude(ground, fleet, report).await
}

/// A worker that is at work.
async fn busy(ground: &Ground, fleet: &Fleet) -> Result<usize> {
    for _ in 0..600 {
        let rows = ground
            .rows("SELECT worker FROM run_attempts WHERE outcome IS NULL ORDER BY random() LIMIT 1")
            .await?;
        if let Some(row) = rows.first() {
            let name: String = row.try_get("", "worker").map_err(|error| broken(error.to_string()))?;
            if let Some(index) = fleet.index_of(&name) {
                return Ok(index);
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(Error::invalid("chaos.freeze", "no worker takes up work within 30 s"))
}

async fn held_by(ground: &Ground, worker: &str) -> Result<i64> {
    let held =
        format!("SELECT count(*) AS n FROM run_attempts WHERE outcome IS NULL AND worker = '{worker}'");
    ground.number(&held).await
}
