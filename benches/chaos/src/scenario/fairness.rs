//! One tenant has a thousand times as many runs as the other, which must not wait for them.

use std::time::Duration;

use assembly_lime::{Error, Result};
use tokio::time::{Instant, sleep};

use super::{Plan, conclude};
use crate::fleet::Fleet;
use crate::ground::{Ground, Layout};
use crate::report::Report;

/// How many runs of a tenant may be worked at once, and how many there is room for.
const CAP: i32 = 4;
/// What the small tenant has.
const FEW: usize = 10;

pub(super) async fn play(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("one tenant has 10,000 runs, another ten");
    let layout = Layout { tenants: 2, projects: 1, most: Some(CAP) };
    let ground = Ground::prepare(&plan.database_url, &layout).await?;
    let [many, few] = &ground.fields[..] else {
        return Err(Error::invalid("chaos.fairness", "there are not two tenants"));
    };
    ground.submit(many, 10_000, "Do the work.").await?;
    let plan = Plan { concurrency: 3, ..plan.clone() };
    let work = Duration::from_millis(300);
    let kit = plan.kit(&ground, work).await?;
    // Six places: the many may have four of them.
    let fleet = Fleet::start(kit, 2)?;
    let mut most = 0;
    let mut watch = async |ground: &Ground| -> Result<()> {
        let at_work = "SELECT coalesce(max(n), 0) AS n FROM (
            SELECT count(*) AS n FROM agent_runs WHERE status = 'running' GROUP BY tenant_id) AS tenants";
        most = ground.number(at_work).await?.max(most);
        Ok(())
    };
    for _ in 0..20 {
        watch(&ground).await?;
        sleep(work / 3).await;
    }
    ground.submit(few, FEW, "Do the work.").await?;
    let left = format!(
        "SELECT count(*) AS n FROM agent_runs WHERE ended_at IS NULL AND project_id = {}",
        few.project.raw()
    );
    let began = Instant::now();
    while ground.number(&left).await? > 0 {
        if began.elapsed() > Duration::from_secs(60) {
            return Err(Error::invalid(
                "chaos.fairness",
                "the small tenant's runs do not end within a minute",
            ));
        }
        watch(&ground).await?;
        sleep(work / 10).await;
    }
    // How long a run that was next in its tenant's line waited: from its submission or its forerunner's start.
    let waits = format!(
        "WITH starts AS (
             SELECT run.created_at, run.started_at, run.ended_at,
                    row_number() OVER (ORDER BY run.started_at) AS place
             FROM agent_runs AS run WHERE project_id = {}
         )
         SELECT coalesce((percentile_disc(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM
                    later.started_at - greatest(later.created_at, freed.ended_at)) * 1000))::bigint, 0) AS n
         FROM starts AS later LEFT JOIN starts AS freed ON freed.place = later.place - {CAP}",
        few.project.raw()
    );
    let waited = ground.number(&waits).await?;
    let length = ground
        .number(
            "SELECT (percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms))::bigint AS n FROM agent_runs
             WHERE ended_at IS NOT NULL",
        )
        .await?;
    report.figure("a run's length (median)", format!("{length} ms"));
    report.figure("the small tenant's wait for a place (p95)", format!("{waited} ms"));
    report.figure("a tenant's runs at work at once, at most", most);
    report.expect(plan.untimed || waited <= 2 * length, || {
        format!("the small tenant waited {waited} ms, more than two runs")
    });
    report.expect(most <= CAP.into(), || {
        format!("{most} runs of one tenant were worked at once, more than {CAP}")
    });
    let cancel = "SELECT id AS n FROM agent_runs WHERE ended_at IS NULL ORDER BY id";
    for row in ground.rows(cancel).await? {
        let run: i64 = row.try_get("", "n").map_err(|error| crate::ground::broken(error.to_string()))?;
        let request = assembly_lime::ports::Request::Cancel;
        assembly_lime::ports::Queue::request(
            &ground.storage,
            &many.scope,
            assembly_lime::Id::new(run),
            request,
        )
        .await?;
    }
    let since = Instant::now();
    while ground.unfinished().await? > 0 && since.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(100)).await;
    }
    conclude(ground, fleet, report).await
}
