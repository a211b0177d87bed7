use async_trait::async_trait;
use lime_core::governance::TimeZone;
use lime_core::identity::{BuiltInRole, Role, Slug, Tenant, Tenants};
use lime_core::{Error, ErrorKind, Id, Invalid, Result, Stored, Topic};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryResult, SqlErr,
};
use tracing::Instrument;

use crate::PgStorage;
use crate::error::unnamed;
use crate::storage::{commit, sql};
use crate::tables::{from_json, tenant, to_json};

fn stored(operation: &'static str, model: tenant::Model) -> Result<Stored<Tenant>> {
    let read = |model: tenant::Model| {
        Ok(Tenant {
            name: model.name,
            slug: Slug::parse(model.slug)?,
            max_concurrent_runs: model.max_concurrent_runs,
            time_zone: TimeZone::parse(&model.time_zone)?,
            logo_url: model.logo_url,
            settings: from_json("settings_json", model.settings_json)?,
        })
    };
    let (id, version) = (Id::new(model.id), model.version);
    let (created_at, updated_at) = (model.created_at, model.updated_at);
    let value = read(model).map_err(|invalid: Invalid| {
        let message = format!("the stored tenant cannot be read: {invalid}");
        Error::new(ErrorKind::Corrupt, operation, message).with("id", id)
    })?;
    Ok(Stored { id, version, created_at, updated_at, value })
}

/// A row with every column of `tenants`.
pub(crate) fn read(operation: &'static str, row: &QueryResult) -> Result<Stored<Tenant>> {
    let model = tenant::Model::from_query_result(row, "").map_err(|error| unnamed(operation, &error))?;
    stored(operation, model)
}

/// What is written of a tenant.
fn row(tenant: Tenant) -> tenant::ActiveModel {
    tenant::ActiveModel {
        name: Set(tenant.name),
        slug: Set(tenant.slug.as_str().to_owned()),
        max_concurrent_runs: Set(tenant.max_concurrent_runs),
        time_zone: Set(tenant.time_zone.as_str().to_owned()),
        logo_url: Set(tenant.logo_url),
        settings_json: Set(to_json(&tenant.settings)),
        ..Default::default()
    }
}

fn check(operation: &'static str, tenant: &Tenant) -> Result<()> {
    tenant.validate().map_err(|invalid| invalid.refused(operation, "tenant"))
}

/// The error of a write, of which the slug is the only thing that others may have.
fn unwritten(operation: &'static str, slug: &Slug, error: &DbErr) -> Error {
    if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) {
        let message = format!("a tenant with the slug {} exists, or was deleted", slug.as_str());
        return Error::new(ErrorKind::AlreadyExists, operation, message);
    }
    unnamed(operation, error)
}

/// Inserts and changes the built-in roles that a tenant, or each of them, lacks or has otherwise.
pub(crate) async fn seed_roles(
    db: &impl ConnectionTrait,
    operation: &'static str,
    only: Option<Id<Tenant>>,
) -> Result<usize> {
    let statement = "INSERT INTO roles AS known (tenant_id, name, permissions_json, is_built_in)
         SELECT tenant.id, role.name, role.permissions::jsonb, TRUE
         FROM tenants AS tenant CROSS JOIN UNNEST($1, $2) AS role (name, permissions)
         WHERE tenant.id = coalesce($3, tenant.id)
         ON CONFLICT (tenant_id, name) DO UPDATE
         SET permissions_json = excluded.permissions_json, version = known.version + 1, updated_at = clock_timestamp()
         WHERE known.is_built_in AND known.permissions_json <> excluded.permissions_json";
    let roles = || BuiltInRole::ALL.iter().map(|role| Role::built_in(*role));
    let values = [
        roles().map(|role| role.name).collect::<Vec<_>>().into(),
        roles().map(|role| to_json(&role.permissions).to_string()).collect::<Vec<_>>().into(),
        only.map(Id::raw).into(),
    ];
    let seeded = db.execute_raw(sql(statement, values)).await.map_err(|error| unnamed(operation, &error))?;
    Ok(usize::try_from(seeded.rows_affected()).unwrap_or(usize::MAX))
}

async fn update(db: &impl ConnectionTrait, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
    const OPERATION: &str = "tenants.update";
    let updated = tenant::Entity::update_many()
        .set(row(tenant.value.clone()))
        .col_expr(tenant::Column::Version, Expr::col(tenant::Column::Version).add(1))
        .col_expr(tenant::Column::UpdatedAt, Expr::cust("clock_timestamp()"))
        .filter(tenant::Column::Id.eq(tenant.id.raw()))
        .filter(tenant::Column::Version.eq(tenant.version))
        .filter(tenant::Column::DeletedAt.is_null())
        .exec_with_returning(db)
        .await
        .map_err(|error| unwritten(OPERATION, &tenant.slug, &error))?
        .pop();
    match updated {
        Some(model) => stored(OPERATION, model),
        None => {
            let newest = get(db, OPERATION, tenant.id).await?.version;
            let message = format!("the tenant {} has been changed meanwhile; read it again", tenant.id);
            Err(Error::new(ErrorKind::Conflict, OPERATION, message)
                .with("version", tenant.version)
                .with("newest", newest))
        }
    }
}

async fn get(
    db: &impl ConnectionTrait,
    operation: &'static str,
    tenant: Id<Tenant>,
) -> Result<Stored<Tenant>> {
    let found = tenant::Entity::find_by_id(tenant.raw())
        .filter(tenant::Column::DeletedAt.is_null())
        .one(db)
        .await
        .map_err(|error| unnamed(operation, &error))?;
    stored(operation, found.ok_or_else(|| Error::not_found(operation, "tenant", tenant))?)
}

#[async_trait]
impl Tenants for PgStorage {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.create";
        check(OPERATION, &tenant)?;
        let this = self.clone();
        let work = async move {
            let slug = tenant.slug.clone();
            let tx = this.begin(OPERATION).await?;
            let inserted = tenant::Entity::insert(row(tenant)).exec_with_returning(&tx).await;
            let inserted = inserted.map_err(|error| unwritten(OPERATION, &slug, &error))?;
            seed_roles(&tx, OPERATION, Some(Id::new(inserted.id))).await?;
            commit(OPERATION, tx).await?;
            stored(OPERATION, inserted)
        };
        let span = tracing::debug_span!("storage", operation = OPERATION, table = "tenants");
        self.detached(OPERATION, span, work).await
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.limit_runs";
        Tenant::check_limit(most).map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let limited = tenant::Entity::update_many()
            .col_expr(tenant::Column::MaxConcurrentRuns, Expr::value(most))
            .col_expr(tenant::Column::Version, Expr::col(tenant::Column::Version).add(1))
            .col_expr(tenant::Column::UpdatedAt, Expr::cust("clock_timestamp()"))
            .filter(tenant::Column::Id.eq(tenant.raw()))
            .filter(tenant::Column::DeletedAt.is_null())
            .exec_with_returning(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, %tenant, table = "tenants"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?
            .pop();
        let limited = limited.ok_or_else(|| Error::not_found(OPERATION, "tenant", tenant))?;
        self.news().wake(Topic::Queue);
        stored(OPERATION, limited)
    }

    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.update";
        check(OPERATION, &tenant.value)?;
        let span =
            tracing::debug_span!("storage", operation = OPERATION, tenant = %tenant.id, table = "tenants");
        let updated = update(self.connection(), tenant).instrument(span).await?;
        self.news().wake(Topic::Queue);
        Ok(updated)
    }

    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()> {
        const OPERATION: &str = "tenants.delete";
        // A lease that no attempt has begun is a place in somebody's line, as a relay has them.
        let statement = "WITH deleted AS (
                 UPDATE tenants SET deleted_at = coalesce(deleted_at, clock_timestamp()) WHERE id = $1 RETURNING id
             ), place AS MATERIALIZED (
                 SELECT run_id FROM run_leases WHERE tenant_id = $1 AND NOT started ORDER BY run_id FOR UPDATE
             ), gone AS (
                 DELETE FROM run_leases WHERE run_id = ANY (ARRAY(SELECT run_id FROM place)) RETURNING *
             ), back AS (
                 INSERT INTO run_queue
                     (run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs)
                 SELECT run_id, tenant_id, project_id, agent_id, provider, priority, queued_at, last_seq, inputs FROM gone
             )
             SELECT id FROM deleted";
        let deleted = self.connection().query_one_raw(sql(statement, [tenant.raw().into()]));
        let span = tracing::debug_span!("storage", operation = OPERATION, %tenant, table = "tenants");
        match deleted.instrument(span).await.map_err(|error| unnamed(OPERATION, &error))? {
            Some(_) => Ok(()),
            None => Err(Error::not_found(OPERATION, "tenant", tenant)),
        }
    }

    async fn seed_roles(&self) -> Result<usize> {
        const OPERATION: &str = "tenants.seed_roles";
        let span = tracing::debug_span!("storage", operation = OPERATION, table = "roles");
        seed_roles(self.connection(), OPERATION, None).instrument(span).await
    }

    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.get";
        let span = tracing::debug_span!("storage", operation = OPERATION, %tenant, table = "tenants");
        get(self.connection(), OPERATION, tenant).instrument(span).await
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        const OPERATION: &str = "tenants.by_slug";
        let found = tenant::Entity::find()
            .filter(tenant::Column::Slug.eq(slug.as_str()))
            .filter(tenant::Column::DeletedAt.is_null())
            .one(self.connection())
            .instrument(tracing::debug_span!("storage", operation = OPERATION, table = "tenants"))
            .await
            .map_err(|error| unnamed(OPERATION, &error))?;
        found.map(|model| stored(OPERATION, model)).transpose()
    }
}
