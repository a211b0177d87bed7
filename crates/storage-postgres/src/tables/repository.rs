use lime_core::repos::{RepoKind, Repository};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, known, raw};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "repositories")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub connector_id: Option<i64>,
    pub provider: i16,
    pub external_repo_id: Option<i64>,
    pub owner: String,
    pub name: String,
    pub full_name: String,
    pub clone_url: String,
    pub default_branch: String,
    pub is_enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Repository {
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
                connector_id: id(model.connector_id),
                provider: known("provider", RepoKind::from_code(model.provider))?,
                external_repo_id: model.external_repo_id,
                owner: model.owner,
                name: model.name,
                full_name: model.full_name,
                clone_url: model.clone_url,
                default_branch: model.default_branch,
                is_enabled: model.is_enabled,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            connector_id: Set(raw(self.connector_id)),
            provider: Set(self.provider.code()),
            external_repo_id: Set(self.external_repo_id),
            owner: Set(self.owner),
            name: Set(self.name),
            full_name: Set(self.full_name),
            clone_url: Set(self.clone_url),
            default_branch: Set(self.default_branch),
            is_enabled: Set(self.is_enabled),
            ..Default::default()
        }
    }
}
