//! Redis, where a fleet has one.

use std::collections::HashMap;
use std::time::Duration;

use redis::{Client, RedisResult, Value, from_redis_value_ref};
use tokio::time::timeout;

use super::Finding;
use crate::environment;

/// The variable that workers find it by.
const URL: &str = "REDIS_URL";
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// The oldest version that the queue works on.
const OLDEST: u32 = 7;
const WITHOUT: &str = "no run is lost without it, and workers find their work in the database meanwhile: start it, or \
                       correct REDIS_URL";

/// Looks at the one that `REDIS_URL` names, if it names one.
pub(super) async fn look() -> Option<Finding> {
    const CHECK: &str = "redis";
    let url = environment::variable(URL)?;
    Some(match timeout(PATIENCE, version(&url)).await {
        Ok(Ok(version)) => {
            let said = format!("Redis {version} answers");
            match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
                Some(major) if major >= OLDEST => Finding::ok(CHECK, said),
                Some(_) | None => Finding::warn(CHECK, said, "move to Redis 7 or newer"),
            }
        }
        // Its category says enough; what else an error holds may come from the URL.
        Ok(Err(error)) => Finding::fail(CHECK, format!("it does not answer: {}", error.category()), WITHOUT),
        Err(_) => {
            Finding::fail(CHECK, format!("it does not answer within {} s", PATIENCE.as_secs()), WITHOUT)
        }
    })
}

/// Asks by `HELLO`, which every user of a Redis may say.
async fn version(url: &str) -> RedisResult<String> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    let about: HashMap<String, Value> = redis::cmd("HELLO").query_async(&mut connection).await?;
    let version = about.get("version").and_then(|version| from_redis_value_ref::<String>(version).ok());
    Ok(version.unwrap_or_else(|| "of an unknown version".to_owned()))
}
