use lime_core::governance::DefaultTools;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::default_instruction::provider;
use super::{from_json, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "default_agent_tools")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub provider: String,
    pub allowed_tools_json: Json,
    pub denied_tools_json: Json,
    pub enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for DefaultTools {
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
                provider: provider(model.provider)?,
                allowed: from_json("allowed_tools_json", model.allowed_tools_json)?,
                denied: from_json("denied_tools_json", model.denied_tools_json)?,
                enabled: model.enabled,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            provider: Set(self.provider_word().to_owned()),
            allowed_tools_json: Set(to_json(&self.allowed)),
            denied_tools_json: Set(to_json(&self.denied)),
            enabled: Set(self.enabled),
            ..Default::default()
        }
    }
}
