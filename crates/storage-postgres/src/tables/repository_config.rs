use lime_core::repos::RepositoryConfig;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "repository_configs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub repository_id: i64,
    pub config_path: String,
    pub config_sha: Option<String>,
    pub config: Json,
    pub last_synced_at: Option<DateTimeUtc>,
    pub sync_error: Option<String>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for RepositoryConfig {
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
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                repository_id: Id::new(model.repository_id),
                config_path: model.config_path,
                config_sha: model.config_sha,
                config: from_json("config", model.config)?,
                last_synced_at: model.last_synced_at,
                sync_error: model.sync_error,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            repository_id: Set(self.repository_id.raw()),
            config_path: Set(self.config_path),
            config_sha: Set(self.config_sha),
            config: Set(to_json(&self.config)),
            last_synced_at: Set(self.last_synced_at),
            sync_error: Set(self.sync_error),
            ..Default::default()
        }
    }
}
