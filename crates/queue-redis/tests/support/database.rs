//! A database of its own for each test.

use std::time::Duration;

use lime_storage_postgres::sea_orm::{ConnectOptions, ConnectionTrait, Database};
use lime_storage_postgres::{PgStorage, PoolOptions};
use tokio::sync::OnceCell;

use super::unique;

fn server() -> String {
    std::env::var("LIME_TEST_DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".into())
}

fn admin() -> ConnectOptions {
    let mut connect = ConnectOptions::new(server());
    connect.acquire_timeout(Duration::from_secs(3)).sqlx_logging(false);
    connect
}

/// A fresh database on the server of `LIME_TEST_DATABASE_URL`, dropped at the end.
pub struct Fresh {
    url: String,
    name: String,
}

impl Fresh {
    /// Prints a line that begins with `skipped:` and gives nothing if no server answers.
    pub async fn create() -> Option<Self> {
        static ANSWERS: OnceCell<bool> = OnceCell::const_new();
        let answers = || async { Database::connect(admin()).await.is_ok() };
        if !*ANSWERS.get_or_init(answers).await {
            lime_conformance::skip("no PostgreSQL server answers; set LIME_TEST_DATABASE_URL to one");
            return None;
        }
        let name = format!("lime_redis_{}", unique().replace('-', "_"));
        let admin = Database::connect(admin()).await.unwrap();
        admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.unwrap();
        admin.close().await.unwrap();
        let server = server();
        let (base, query) = server.split_once('?').unwrap_or((&server, ""));
        let (host, _) = base.rsplit_once('/').unwrap();
        Some(Self { url: format!("{host}/{name}?{query}"), name })
    }

    pub async fn storage(&self) -> PgStorage {
        let storage = PgStorage::connect(&self.url, &PoolOptions::default()).await.unwrap();
        storage.migrate().await.unwrap();
        storage
    }
}

impl Drop for Fresh {
    /// On a thread and runtime of its own, since a test that panics has none to wait on.
    fn drop(&mut self) {
        let drop_it = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let admin = Database::connect(admin()).await.unwrap();
                admin.execute_unprepared(&drop_it).await.unwrap();
            });
        });
        dropped.join().unwrap();
    }
}
