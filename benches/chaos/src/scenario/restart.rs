//! The database is restarted every few seconds while the workers work.

use std::time::Duration;

use assembly_lime::Result;
use tokio::time::{Instant, sleep};

use super::{Plan, conclude};
use crate::cluster::{Cluster, Stop};
use crate::fleet::Fleet;
use crate::ground::{Ground, Layout, broken};
use crate::report::Report;

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("the database is restarted again and again");
    let Some(cluster) = Cluster::start().await? else {
        report.figure("not played", "there are no PostgreSQL programs to make a cluster with");
        return Ok(report);
    };
    let ground = Ground::prepare(&cluster.url(), &Layout { tenants: 4, projects: 5, most: None }).await?;
    let kit = plan.kit(&ground, plan.work()).await?;
    let mut fleet = Fleet::start(kit, plan.workers)?;
    let until = Instant::now() + Duration::from_secs(plan.restarts_for);
    let (mut restarts, mut submitted) = (0, 0);
    let hurry = plan.restarts_for < 60;
    while Instant::now() < until {
        // Only what was stored counts: a submission that met a restart is not repeated.
        if ground.unfinished().await.unwrap_or(i64::MAX) < 200 {
            submitted += 200;
            if ground.submit_everywhere(200, "Do the work.").await.is_err() {
                report.figure("submissions that met a restart", 1);
            }
        }
        let pause = if hurry { fastrand::u64(1_000..=3_000) } else { fastrand::u64(5_000..=20_000) };
        sleep(Duration::from_millis(pause)).await;
        // A crash as often as an orderly end.
        let stop = if restarts % 2 == 0 { Stop::Immediate } else { Stop::Fast };
        cluster.restart(stop).await?;
        restarts += 1;
    }
    finish_patiently(&ground, &mut fleet).await?;
    report.figure("restarts", restarts);
    report.figure("runs asked for", submitted);
    let report = conclude(ground, fleet, report).await;
    cluster.stop().await?;
    report
}

/// As [`super::finish`], but the database may be away for a moment.
async fn finish_patiently(ground: &Ground, fleet: &mut Fleet) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        fleet.replace_dead()?;
        match ground.unfinished().await {
            Ok(0) => return Ok(()),
            Ok(left) if Instant::now() > until => return Err(broken(format!("{left} runs do not end"))),
            Ok(_) | Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}
