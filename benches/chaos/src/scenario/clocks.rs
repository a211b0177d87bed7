//! The workers' clocks are wrong by ten minutes, in both directions: nobody's lease ends early.

use assembly_lime::Result;
use tokio::time::Instant;

use super::{Plan, conclude, finish};
use crate::fleet::Fleet;
use crate::report::Report;

const TEN_MINUTES_S: i64 = 600;

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("the workers' clocks are wrong by ten minutes");
    let ground = plan.ground().await?;
    ground.submit_everywhere(plan.runs.min(500), "Do the work.").await?;
    let kit = plan.kit(&ground, plan.work()).await?;
    let mut fleet = Fleet::start(kit, 0)?;
    for worker in 0..plan.workers.max(3) {
        fleet.add([0, TEN_MINUTES_S, -TEN_MINUTES_S][worker % 3])?;
    }
    let began = Instant::now();
    finish(&ground, &mut fleet).await?;
    report.seconds("worked in", began.elapsed());
    let early = ground.number("SELECT count(*) AS n FROM run_attempts WHERE outcome = 'lost'").await?;
    report.expect(early == 0, || format!("leases that ended early: {early}"));
    conclude(ground, fleet, report).await
}
