//! Databases for tests.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use lime_core::{Error, ErrorKind, Result};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use tokio::sync::{Mutex, OnceCell};

use crate::error::connecting;
use crate::{PgStorage, PoolOptions};

/// A database of one test's own on a server, dropped with this.
///
/// - The server is that of `LIME_TEST_DATABASE_URL`, as somebody who may create databases; without it, `postgres` on
///   127.0.0.1:5432 with no password.
/// - Tests that run at once share one migrated database as the template of theirs, so that each gets its own in a
///   fraction of a second; it is dropped with the last of them.
pub struct TestDatabase {
    name: String,
    url: String,
    /// Kept for as long as there are copies of it.
    _template: Option<Arc<TestDatabase>>,
}

impl TestDatabase {
    /// An empty database.
    ///
    /// - Fails with `Unavailable` if no server answers within 3 seconds; after that, at once for the rest of the process.
    pub async fn empty() -> Result<Self> {
        Self::create(None).await
    }

    /// A database with all tables.
    ///
    /// - Fails as [`empty`](TestDatabase::empty) does.
    pub async fn migrated() -> Result<Self> {
        static TEMPLATE: Mutex<Weak<TestDatabase>> = Mutex::const_new(Weak::new());
        let mut kept = TEMPLATE.lock().await;
        let template = match kept.upgrade() {
            Some(template) => template,
            None => {
                let fresh = Self::empty().await?;
                let storage = PgStorage::connect(&fresh.url, &PoolOptions::default()).await?;
                storage.migrate().await?;
                storage.close().await;
                Arc::new(fresh)
            }
        };
        *kept = Arc::downgrade(&template);
        drop(kept);
        Self::create(Some(template)).await
    }

    /// What [`PgStorage::connect`] takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn create(template: Option<Arc<Self>>) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        static IS_SILENT: OnceCell<bool> = OnceCell::const_new();
        let is_silent = || async { admin().await.is_err_and(|error| error.kind() == ErrorKind::Unavailable) };
        if *IS_SILENT.get_or_init(is_silent).await {
            return Err(silent());
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lime_test_{}_{}_{count}", std::process::id(), since.subsec_nanos());
        let url = beside(&server(), &name)?;
        let source = template.as_ref().map_or("template1", |template| &template.name);
        let admin = admin().await?;
        let created = admin.execute_unprepared(&format!("CREATE DATABASE {name} TEMPLATE {source}")).await;
        created.map_err(|error| crate::error::unnamed("test_database.create", &error))?;
        Ok(Self { name, url, _template: template })
    }
}

impl fmt::Debug for TestDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TestDatabase").field(&self.name).finish()
    }
}

impl Drop for TestDatabase {
    /// On a thread and runtime of its own, since a test that panics has none to wait on.
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.ok()?.block_on(async { admin().await.ok()?.execute_unprepared(&statement).await.ok() })
        });
        if !matches!(dropping.join(), Ok(Some(_))) {
            tracing::warn!(database = self.name, "a test's database could not be dropped");
        }
    }
}

fn server() -> String {
    std::env::var("LIME_TEST_DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

async fn admin() -> Result<DatabaseConnection> {
    let mut connect = ConnectOptions::new(server());
    connect.max_connections(1).acquire_timeout(Duration::from_secs(3)).sqlx_logging(false);
    Database::connect(connect).await.map_err(|error| {
        let error = connecting(&error);
        if error.kind() == ErrorKind::Unavailable { silent().because(error) } else { error }
    })
}

fn silent() -> Error {
    let message = "no PostgreSQL server answers; set LIME_TEST_DATABASE_URL to one";
    Error::new(ErrorKind::Unavailable, "test_database.create", message)
}

/// The URL of another database on the same server.
fn beside(server: &str, database: &str) -> Result<String> {
    let (head, query) = match server.split_once('?') {
        Some((head, query)) => (head, format!("?{query}")),
        None => (server, String::new()),
    };
    let (head, _) = head.rsplit_once('/').ok_or_else(|| {
        Error::invalid("test_database.create", "LIME_TEST_DATABASE_URL names no database of its server")
    })?;
    Ok(format!("{head}/{database}{query}"))
}
