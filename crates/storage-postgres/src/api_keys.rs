use async_trait::async_trait;
use lime_core::identity::{ApiKey, FoundKey, KeyPrefix};
use lime_core::ports::{ApiKeys, Renewal};
use lime_core::{Entity, Error, Id, Result, Scope, Stored};
use sea_orm::sea_query::{Cond, Expr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter};
use tracing::Instrument;

use crate::error::{Doing, about, unnamed};
use crate::members::{MEMBER, member};
use crate::storage::{span, sql};
use crate::store::{check, insert, read};
use crate::tables::api_key::{self, Column, Model};
use crate::{PgStorage, fence};

async fn find(db: &impl ConnectionTrait, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
    const OPERATION: &str = "api_keys.find";
    let statement = format!(
        "SELECT key.*, clock_timestamp() AS clock, {MEMBER}
         FROM api_keys AS key
         JOIN tenants AS tenant ON tenant.id = key.tenant_id AND tenant.deleted_at IS NULL
         LEFT JOIN users AS member ON member.tenant_id = key.tenant_id AND member.id = key.user_id
         WHERE key.prefix = $1"
    );
    let found = db.query_one_raw(sql(statement, [prefix.as_str().into()])).await;
    let Some(row) = found.map_err(|error| unnamed(OPERATION, &error))? else { return Ok(None) };
    let columns = || Ok((Model::from_query_result(&row, "")?, row.try_get("", "clock")?));
    let (model, now) = columns().map_err(|error: DbErr| unnamed(OPERATION, &error))?;
    Ok(Some(FoundKey {
        tenant_id: Id::new(model.tenant_id),
        key: read(OPERATION, model)?,
        owner: member(OPERATION, &row)?,
        now,
    }))
}

async fn note(
    db: &impl ConnectionTrait,
    scope: &Scope,
    key: Id<ApiKey>,
    renewed: Option<Renewal>,
) -> Result<bool> {
    const OPERATION: &str = "api_keys.note_use";
    let statement = "UPDATE api_keys
         SET last_used_at = clock_timestamp(),
             key_hash = CASE WHEN key_hash = $3 AND pepper_id = $4 THEN $5 ELSE key_hash END,
             pepper_id = CASE WHEN key_hash = $3 AND pepper_id = $4 THEN $6 ELSE pepper_id END
         WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL
           AND ((key_hash = $3 AND pepper_id = $4) OR last_used_at IS NULL
                OR last_used_at <= clock_timestamp() - $7 * interval '1 s')";
    let (from, to) = renewed.map(|renewed| (renewed.from, renewed.to)).unzip();
    let values = [
        scope.tenant().raw().into(),
        key.raw().into(),
        from.as_ref().map(|hash| hash.hmac().to_vec()).into(),
        from.map(|hash| hash.pepper_id()).into(),
        to.as_ref().map(|hash| hash.hmac().to_vec()).into(),
        to.map(|hash| hash.pepper_id()).into(),
        ApiKey::LAST_USED_STEP.num_seconds().into(),
    ];
    let noted = db.execute_raw(sql(statement, values)).await.map_err(|error| unnamed(OPERATION, &error))?;
    Ok(noted.rows_affected() > 0)
}

async fn revoke(db: &impl ConnectionTrait, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
    const OPERATION: &str = "api_keys.revoke";
    let once = |now: &str, otherwise: &str| {
        Expr::cust(format!("CASE WHEN revoked_at IS NULL THEN {now} ELSE {otherwise} END"))
    };
    let revoked = api_key::Entity::update_many()
        .col_expr(Column::RevokedAt, once("clock_timestamp()", "revoked_at"))
        .col_expr(Column::UpdatedAt, once("clock_timestamp()", "updated_at"))
        .col_expr(Column::Version, once("version + 1", "version"))
        .filter(Column::TenantId.eq(scope.tenant().raw()))
        .filter(Column::Id.eq(key.raw()))
        .filter(Cond::all().add_option(fence::condition(scope, OPERATION)?))
        .exec_with_returning(db)
        .await
        .map_err(|error| about::<ApiKey>(OPERATION, Doing::Write, &error))?
        .pop();
    match revoked {
        Some(model) => read(OPERATION, model),
        None => {
            fence::hold(db, scope, OPERATION).await?;
            Err(Error::not_found(OPERATION, ApiKey::NAME, key))
        }
    }
}

#[async_trait]
impl ApiKeys for PgStorage {
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>> {
        const OPERATION: &str = "api_keys.create";
        check(OPERATION, &key)?;
        let span = span(OPERATION, scope.tenant(), ApiKey::TABLE);
        insert(self.connection(), scope, OPERATION, key).instrument(span).await
    }

    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
        let span = tracing::debug_span!("storage", operation = "api_keys.find", table = ApiKey::TABLE);
        find(self.connection(), prefix).instrument(span).await
    }

    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool> {
        let span = span("api_keys.note_use", scope.tenant(), ApiKey::TABLE);
        note(self.connection(), scope, key, renewed).instrument(span).await
    }

    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        let span = span("api_keys.revoke", scope.tenant(), ApiKey::TABLE);
        revoke(self.connection(), scope, key).instrument(span).await
    }
}
