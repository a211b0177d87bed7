//! pg-boss 12 on PostgreSQL.

use serde_json::json;

use super::Scripted;
use crate::Outcome;
use crate::ground::Ground;
use crate::node;

/// More workers than these only wait for each other.
const WORKERS: usize = 4;
/// How many jobs a worker takes, and acknowledges, at a time.
const TAKES: usize = 500;

pub(crate) async fn open(ground: &Ground) -> Outcome<Scripted> {
    node::install().await?;
    let database = ground.database().await?;
    Ok(Scripted {
        name: "pg-boss",
        setup: format!(
            "pg-boss 12.34; up to {WORKERS} workers that take and acknowledge {TAKES} at a time; NOTIFY in the idle \
             pick-up alone"
        ),
        script: "pgboss.mjs",
        settings: json!({ "databaseUrl": database.url, "workers": WORKERS, "batchSize": TAKES }),
    })
}
