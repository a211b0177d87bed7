//! The servers that everything runs on, and what is made there.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use url::Url;

use crate::Outcome;
use crate::args::Args;
use crate::own_redis::OwnRedis;

/// A PostgreSQL server, a Redis server, and a Redis server of our own that syncs every write.
pub(crate) struct Ground {
    admin: PgPool,
    url: Url,
    /// What all names begin with that are made.
    prefix: String,
    databases: AtomicU32,
    redis_url: String,
    own_redis: Result<OwnRedis, String>,
}

/// A database of one peer; it is dropped by [`Ground::clean`].
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) url: String,
}

impl Ground {
    pub(crate) async fn open(args: &Args) -> Outcome<Self> {
        let mut url = Url::parse(&args.database_url).map_err(|error| format!("--database-url: {error}"))?;
        if !url.query_pairs().any(|(name, _)| name == "sslmode") {
            // Some peers cannot speak TLS, and sqlx 0.9.0 stalls on it: see docs/performance.md.
            url.query_pairs_mut().append_pair("sslmode", "disable");
        }
        let admin = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5));
        let admin = admin.connect(url.as_str()).await;
        let admin = admin.map_err(|error| format!("PostgreSQL cannot be reached: {error}"))?;
        let prefix = format!("peers_{:08x}", fastrand::u32(..));
        let own_redis = OwnRedis::start().await.map_err(|error| error.to_string());
        let redis_url = args.redis_url.clone();
        Ok(Self { admin, url, prefix, databases: AtomicU32::new(0), redis_url, own_redis })
    }

    /// Makes a database.
    pub(crate) async fn database(&self) -> Outcome<Database> {
        let name = format!("{}_{}", self.prefix, self.databases.fetch_add(1, Ordering::Relaxed));
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&self.admin).await?;
        let mut url = self.url.clone();
        url.set_path(&name);
        Ok(Database { url: url.into() })
    }

    /// A prefix for keys on either Redis.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The Redis that was given.
    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// The Redis of our own, or why there is none.
    pub(crate) fn synced_redis_url(&self) -> Outcome<&str> {
        Ok(self.own_redis.as_ref().map_err(Clone::clone)?.url())
    }

    /// Writes out what earlier measurements have left to write, so that it is not the next one's burden.
    pub(crate) async fn calm(&self) {
        // Without the right to do so the server writes when it likes, which only makes figures less even.
        let _ = sqlx::query("CHECKPOINT").execute(&self.admin).await;
    }

    /// What it is measured on, in one line.
    pub(crate) async fn machine(&self) -> Outcome<String> {
        let cores = std::thread::available_parallelism()?;
        let server: String = sqlx::query_scalar(
            "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1)
                || ', fsync ' || current_setting('fsync')
                || ', synchronous_commit ' || current_setting('synchronous_commit')
                || ', shared_buffers ' || current_setting('shared_buffers')",
        )
        .fetch_one(&self.admin)
        .await?;
        Ok(format!("{cores} cores, {server}"))
    }

    /// Drops every database and key that was made, and stops the Redis of our own.
    pub(crate) async fn clean(&self) -> Outcome<()> {
        for number in 0..self.databases.load(Ordering::Relaxed) {
            let drop = format!("DROP DATABASE IF EXISTS {}_{number} WITH (FORCE)", self.prefix);
            sqlx::query(AssertSqlSafe(drop)).execute(&self.admin).await?;
        }
        if let Ok(redis) = &self.own_redis {
            redis.stop().await;
        }
        self.forget_keys().await
    }

    async fn forget_keys(&self) -> Outcome<()> {
        let client = redis::Client::open(self.redis_url.as_str())?;
        // Nobody there means that nothing was written there.
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return Ok(()) };
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{}*", self.prefix)).arg("COUNT").arg(1000);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut connection).await?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec_async(&mut connection).await?;
            }
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

impl Database {
    /// Connections to it, all of them open.
    pub(crate) async fn pool(&self, connections: u32) -> Outcome<PgPool> {
        let pool = PgPoolOptions::new().min_connections(connections).max_connections(connections);
        let pool = pool.acquire_timeout(Duration::from_secs(10)).connect(&self.url).await?;
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(pool.acquire().await?);
        }
        drop(open);
        Ok(pool)
    }

    /// Brings the planner's knowledge up to date, as a server that runs for long would.
    pub(crate) async fn vacuum(&self, pool: &PgPool) -> Outcome<()> {
        sqlx::query("VACUUM ANALYZE").execute(pool).await?;
        Ok(())
    }
}
