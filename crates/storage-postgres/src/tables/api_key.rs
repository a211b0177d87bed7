use lime_core::identity::{ApiKey, KeyHash, KeyPrefix};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::role::permissions;
use super::{id, raw, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub user_id: Option<i64>,
    pub project_id: Option<i64>,
    pub name: String,
    pub prefix: String,
    pub key_hash: Vec<u8>,
    pub pepper_id: i32,
    pub scopes_json: Json,
    pub last_used_at: Option<DateTimeUtc>,
    pub expires_at: Option<DateTimeUtc>,
    pub revoked_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for ApiKey {
    type Table = Entity;
    type Model = Model;
    type Active = ActiveModel;
    const KEY: Key<Entity> = Key {
        id: Column::Id,
        tenant_id: Column::TenantId,
        version: Column::Version,
        updated_at: Column::UpdatedAt,
    };

    fn stored(model: Model) -> Result<Stored<Self>, Invalid> {
        let hmac = <[u8; 32]>::try_from(model.key_hash)
            .map_err(|_| Invalid::new("key_hash", "has another length than this version knows"))?;
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                user_id: id(model.user_id),
                project_id: id(model.project_id),
                name: model.name,
                prefix: KeyPrefix::parse(model.prefix)?,
                hash: KeyHash::from_row(model.pepper_id, hmac),
                scopes: permissions("scopes_json", model.scopes_json)?,
                last_used_at: model.last_used_at,
                expires_at: model.expires_at,
                revoked_at: model.revoked_at,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            user_id: Set(raw(self.user_id)),
            project_id: Set(raw(self.project_id)),
            name: Set(self.name),
            prefix: Set(self.prefix.as_str().to_owned()),
            key_hash: Set(self.hash.hmac().to_vec()),
            pepper_id: Set(self.hash.pepper_id()),
            scopes_json: Set(to_json(&self.scopes)),
            last_used_at: Set(self.last_used_at),
            expires_at: Set(self.expires_at),
            revoked_at: Set(self.revoked_at),
            ..Default::default()
        }
    }
}
