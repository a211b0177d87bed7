use lime_core::identity::{Permissions, Role};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "roles")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub name: String,
    pub permissions_json: Json,
    pub is_built_in: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Role {
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
                permissions: permissions("permissions_json", model.permissions_json)?,
                is_built_in: model.is_built_in,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            name: Set(self.name),
            permissions_json: Set(to_json(&self.permissions)),
            is_built_in: Set(self.is_built_in),
            ..Default::default()
        }
    }
}

/// The permissions of a row that this version knows.
pub(crate) fn permissions(field: &'static str, value: Json) -> Result<Permissions, Invalid> {
    let texts: Vec<String> = from_json(field, value)?;
    Ok(Permissions::known(texts.iter().map(String::as_str)))
}
