use async_trait::async_trait;
use lime_core::governance::TimeZone;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::{Error, ErrorKind, Id, Result, Stored, Topic};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, SqlErr};
use tracing::Instrument;

use crate::PgStorage;
use crate::error::unnamed;
use crate::tables::tenant;

fn stored(operation: &'static str, model: tenant::Model) -> Result<Stored<Tenant>> {
    let unreadable = |invalid| {
        Error::new(ErrorKind::Corrupt, operation, format!("the stored tenant cannot be read: {invalid}"))
            .with("id", model.id)
    };
    let slug = Slug::parse(model.slug).map_err(unreadable)?;
    let time_zone = TimeZone::parse(&model.time_zone).map_err(unreadable)?;
    Ok(Stored {
        id: Id::new(model.id),
        version: model.version,
        created_at: model.created_at,
        updated_at: model.updated_at,
        value: Tenant { name: model.name, slug, max_concurrent_runs: model.max_concurrent_runs, time_zone },
    })
}

#[async_trait]
impl Tenants for PgStorage {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.create";
        tenant.validate().map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let row = tenant::ActiveModel {
            name: Set(tenant.name),
            slug: Set(tenant.slug.as_str().to_owned()),
            max_concurrent_runs: Set(tenant.max_concurrent_runs),
            time_zone: Set(tenant.time_zone.to_string()),
            ..Default::default()
        };
        let inserted = tenant::Entity::insert(row)
            .exec_with_returning(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, table = "tenants"))
            .await;
        match inserted {
            Ok(model) => stored(OPERATION, model),
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
                let message = format!("a tenant with the slug {} exists", tenant.slug.as_str());
                Err(Error::new(ErrorKind::AlreadyExists, OPERATION, message))
            }
            Err(error) => Err(unnamed(OPERATION, &error)),
        }
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.limit_runs";
        Tenant::check_limit(most).map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let limited = tenant::Entity::update_many()
            .col_expr(tenant::Column::MaxConcurrentRuns, Expr::value(most))
            .col_expr(tenant::Column::Version, Expr::col(tenant::Column::Version).add(1))
            .col_expr(tenant::Column::UpdatedAt, Expr::cust("clock_timestamp()"))
            .filter(tenant::Column::Id.eq(tenant.raw()))
            .exec_with_returning(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, %tenant, table = "tenants"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?
            .pop();
        let limited = limited.ok_or_else(|| Error::not_found(OPERATION, "tenant", tenant))?;
        self.news().wake(Topic::Queue);
        stored(OPERATION, limited)
    }

    async fn set_time_zone(&self, tenant: Id<Tenant>, zone: TimeZone) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.set_time_zone";
        let set = tenant::Entity::update_many()
            .col_expr(tenant::Column::TimeZone, Expr::value(zone.as_str()))
            .col_expr(tenant::Column::Version, Expr::col(tenant::Column::Version).add(1))
            .col_expr(tenant::Column::UpdatedAt, Expr::cust("clock_timestamp()"))
            .filter(tenant::Column::Id.eq(tenant.raw()))
            .exec_with_returning(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, %tenant, table = "tenants"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?
            .pop();
        stored(OPERATION, set.ok_or_else(|| Error::not_found(OPERATION, "tenant", tenant))?)
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        const OPERATION: &str = "tenants.by_slug";
        let found = tenant::Entity::find()
            .filter(tenant::Column::Slug.eq(slug.as_str()))
            .one(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, table = "tenants"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?;
        found.map(|model| stored(OPERATION, model)).transpose()
    }
}
