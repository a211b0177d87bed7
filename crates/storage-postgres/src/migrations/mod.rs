//! The tables, as plain SQL: SeaQuery cannot say `ON DELETE SET NULL (column)`, nor a partial index's reason.

use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::sea_orm::ConnectionTrait;
use sea_orm_migration::{DbErr, MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

/// Every migration of this crate, for `sea-orm-migration`; [`PgStorage::migrate`](crate::PgStorage::migrate)
/// applies them.
///
/// - Down removes every table, and leaves the extension `citext`, which others in the database may use.
#[derive(Debug)]
pub struct Migrator;

struct Sql {
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($name:literal) => {
        Box::new(Sql {
            name: $name,
            up: include_str!(concat!($name, "/up.sql")),
            down: include_str!(concat!($name, "/down.sql")),
        })
    };
}

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            migration!("m0001_identity"),
            migration!("m0002_repositories"),
            migration!("m0003_planning"),
            migration!("m0004_runs"),
            migration!("m0005_work"),
            migration!("m0006_queue"),
            migration!("m0007_events"),
            migration!("m0008_identity_access"),
            migration!("m0009_budgets"),
            migration!("m0010_instructions"),
            migration!("m0011_isolation"),
            migration!("m0012_secrets"),
        ]
    }
}

impl MigrationName for Sql {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "async_trait needs the signature as the trait spells it")]
impl MigrationTrait for Sql {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.up).await.map(|_| ())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.down).await.map(|_| ())
    }
}
