use lime_core::planning::Project;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "projects")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub key: String,
    pub description: Option<String>,
    pub config: Json,
    pub max_concurrent_agents: i32,
    pub archived_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Project {
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
                name: model.name,
                key: model.key,
                description: model.description,
                max_concurrent_agents: model.max_concurrent_agents,
                archived_at: model.archived_at,
                config: from_json("config", model.config)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            name: Set(self.name),
            key: Set(self.key),
            description: Set(self.description),
            max_concurrent_agents: Set(self.max_concurrent_agents),
            archived_at: Set(self.archived_at),
            config: Set(to_json(&self.config)),
            ..Default::default()
        }
    }
}
