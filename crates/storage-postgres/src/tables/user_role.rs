use lime_core::identity::UserRole;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "user_roles")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub user_id: i64,
    pub role_id: i64,
    pub project_id: Option<i64>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for UserRole {
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
                user_id: Id::new(model.user_id),
                role_id: Id::new(model.role_id),
                project_id: id(model.project_id),
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            user_id: Set(self.user_id.raw()),
            role_id: Set(self.role_id.raw()),
            project_id: Set(raw(self.project_id)),
            ..Default::default()
        }
    }
}
