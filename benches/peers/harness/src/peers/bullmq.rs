//! BullMQ 6 on Redis.

use serde_json::json;

use super::Scripted;
use crate::Outcome;
use crate::ground::Ground;
use crate::node;

/// On a Redis that syncs every write before it answers, as our commits do.
pub(crate) async fn synced(ground: &Ground) -> Outcome<Scripted> {
    bullmq("bullmq", ground.synced_redis_url()?, "a Redis with appendfsync always", ground).await
}

/// On the Redis that was given.
pub(crate) async fn given(ground: &Ground) -> Outcome<Scripted> {
    bullmq("bullmq-given", ground.redis_url(), "the Redis given", ground).await
}

async fn bullmq(name: &'static str, redis_url: &str, on: &str, ground: &Ground) -> Outcome<Scripted> {
    node::install().await?;
    Ok(Scripted {
        name,
        setup: format!("BullMQ 6.7 with ioredis on {on}; one process, finished jobs are removed at once"),
        script: "bullmq.mjs",
        settings: json!({ "redisUrl": redis_url, "prefix": format!("{}_{name}", ground.prefix()) }),
    })
}
