//! Workers are killed at random times.

use std::time::Duration;

use assembly_lime::Result;
use tokio::time::{Instant, sleep};

use super::{Plan, conclude, database_time, finish, longest_orphanage};
use crate::fleet::Fleet;
use crate::report::Report;

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("workers are killed at random times");
    let ground = plan.ground().await?;
    let began = Instant::now();
    ground.submit_everywhere(plan.runs, "Do the work.").await?;
    report.figure("runs", plan.runs);
    report.seconds("submitted in", began.elapsed());

    let kit = plan.kit(&ground, plan.work()).await?;
    let mut fleet = Fleet::start(kit, plan.workers)?;
    let began = Instant::now();
    let total = i64::try_from(plan.runs).unwrap_or(i64::MAX);
    let mut dead = Vec::new();
    for kill in 0..plan.kills {
        // Spread over the work that there is, at a random moment of each share.
        let share = total / i64::try_from(plan.kills + 1).unwrap_or(1);
        let goal = total - share * i64::try_from(kill + 1).unwrap_or(1);
        while ground.unfinished().await? > goal {
            sleep(Duration::from_millis(50)).await;
        }
        sleep(Duration::from_millis(fastrand::u64(0..=plan.work_ms))).await;
        let victim = fastrand::usize(0..fleet.len());
        let died_at = database_time(&ground).await?;
        dead.push((fleet.kill(victim).await?, died_at));
    }
    finish(&ground, &mut fleet).await?;
    report.figure("workers killed", dead.len());
    report.seconds("worked in", began.elapsed());

    let mut longest = 0;
    for (worker, died_at) in &dead {
        longest = longest.max(longest_orphanage(&ground, worker, died_at).await?);
    }
    report.figure("longest until an orphan was taken up", format!("{longest} ms"));
    report.figure("lease", format!("{} ms", plan.lease_ms));
    let most = i64::try_from(2 * plan.lease_ms).unwrap_or(i64::MAX);
    report.expect(plan.untimed || longest <= most, || {
        format!("an orphan was taken up after {longest} ms, more than two leases")
    });
    conclude(ground, fleet, report).await
}
