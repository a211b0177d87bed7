//! The stores of Assembly Lime on PostgreSQL 15 and later, by SeaORM.
//!
//! - [`PgStorage`] is all of [`lime_core::ports::Storage`]: one generic store for every entity that is a [`Row`],
//!   and purpose-built code where an invariant spans rows: [`Queue`](lime_core::ports::Queue),
//!   [`EventLog`](lime_core::ports::EventLog) and [`Tenants`](lime_core::identity::Tenants).
//! - Tables come from [`Migrator`]; `docs/drm.md` is their reference.
//! - With the feature `embedded`, `Embedded` is a whole PostgreSQL in the process, in a folder, without a server.
//! - With the feature `testing`, `TestDatabase` is a database of its own for each test.
//!
//! ```no_run
//! use lime_storage_postgres::{PgStorage, PoolOptions};
//!
//! # async fn open() -> lime_core::Result<()> {
//! let storage = PgStorage::connect("postgres://postgres@127.0.0.1/lime", &PoolOptions::default()).await?;
//! storage.migrate().await?;
//! # Ok(())
//! # }
//! ```

mod api_keys;
mod approvals;
mod batch;
mod budgets;
mod connections;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod events;
mod fence;
mod identities;
mod instructions;
mod listen;
mod members;
mod migrations;
mod news;
mod nul;
mod pool;
mod queue;
mod retention;
mod row;
mod storage;
mod store;
mod survey;
mod tables;
mod tenants;
#[cfg(feature = "testing")]
mod testing;

pub use connections::{Connections, Transaction};
#[cfg(feature = "embedded")]
pub use embedded::Embedded;
pub use migrations::Migrator;
pub use retention::{Purge, Purged};
pub use row::{Key, Row};
pub use sea_orm;
pub use storage::{PgStorage, PoolOptions};
pub use survey::{HeldLease, LineState, LogState, Migrations, ServerState, TenantLoad};
#[cfg(feature = "testing")]
pub use testing::TestDatabase;
