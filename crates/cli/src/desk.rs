//! What every command works with.

use std::time::Duration;

use lime_core::identity::Slug;
use lime_storage_postgres::{PgStorage, PoolOptions};

use crate::args::Lime;
use crate::exit::Failure;
use crate::out::Out;

/// An open database, and how the operator wants to be answered.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) storage: PgStorage,
    pub(crate) tenant: Option<Slug>,
    pub(crate) out: Out,
    pub(crate) yes: bool,
}

impl Desk {
    /// Lets the connections go; one that is busy, or whose server does not answer, is left behind.
    pub(crate) async fn close(self) {
        const LAST_WAIT: Duration = Duration::from_secs(2);
        drop(tokio::time::timeout(LAST_WAIT, self.storage.close()).await);
    }

    pub(crate) async fn open(lime: &Lime) -> Result<Self, Failure> {
        let url = lime.database_url.as_deref().ok_or_else(|| {
            Failure::usage(
                "which database? Set DATABASE_URL, or give --database-url postgres://user@host/database",
            )
        })?;
        Ok(Self {
            storage: PgStorage::connect(url, &options()).await?,
            tenant: lime.tenant.clone(),
            out: Out { json: lime.json },
            yes: lime.yes,
        })
    }
}

/// A person at a terminal needs few connections, and an answer soon.
fn options() -> PoolOptions {
    PoolOptions { max_connections: 3, acquire_timeout: Duration::from_secs(5), ..PoolOptions::default() }
}
