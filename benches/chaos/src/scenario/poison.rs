//! One run kills its worker each time: it gets three attempts, and its neighbours all they need.

use assembly_lime::{Error, Result};
use tokio::time::Instant;

use super::{Plan, conclude, finish};
use crate::fleet::Fleet;
use crate::report::Report;
use crate::work::POISON;

/// How many others there are.
const NEIGHBOURS: usize = 1_000;

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("one run kills its worker each time");
    let ground = plan.ground().await?;
    let neighbours = NEIGHBOURS.min(plan.runs);
    ground.submit_everywhere(neighbours / 2, "Do the work.").await?;
    let field = ground.fields.first().ok_or_else(|| Error::invalid("chaos.poison", "there is no tenant"))?;
    let poison = ground.submit(field, 1, &format!("Take the {POISON}.")).await?;
    ground.submit_everywhere(neighbours - neighbours / 2, "Do the work.").await?;
    let kit = plan.kit(&ground, plan.work()).await?;
    let mut fleet = Fleet::start(kit, plan.workers)?;
    let began = Instant::now();
    finish(&ground, &mut fleet).await?;
    report.seconds("worked in", began.elapsed());

    let run = poison.first().map_or(0, |run| run.raw());
    let attempts =
        ground.number(&format!("SELECT count(*) AS n FROM run_attempts WHERE run_id = {run}")).await?;
    let dead = format!(
        "SELECT count(*) AS n FROM agent_runs
         WHERE id = {run} AND status = 'failed' AND stop_reason = 'worker_lost' AND crash_count = 3"
    );
    let dead = ground.number(&dead).await?;
    let others = format!("SELECT count(*) AS n FROM agent_runs WHERE id <> {run} AND status = 'succeeded'");
    let others = ground.number(&others).await?;
    report.figure("attempts at it", attempts);
    report.figure("neighbours that succeeded", others);
    report.expect(attempts == 3, || format!("it was tried {attempts} times"));
    report.expect(dead == 1, || "it is no dead letter".to_owned());
    let all = i64::try_from(neighbours).unwrap_or(i64::MAX);
    report.expect(others == all, || format!("of {all} neighbours, {others} succeeded"));
    conclude(ground, fleet, report).await
}
