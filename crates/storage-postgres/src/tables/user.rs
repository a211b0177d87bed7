use lime_core::identity::{User, UserStatus};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::known;
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    /// Compared whatever its case, so values are sent as `citext` too.
    #[sea_orm(select_as = "text", save_as = "citext")]
    pub email: String,
    pub name: Option<String>,
    pub github_user_id: Option<i64>,
    pub status: i16,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for User {
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
                email: model.email,
                name: model.name,
                github_user_id: model.github_user_id,
                status: known("status", UserStatus::from_code(model.status))?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            email: Set(self.email),
            name: Set(self.name),
            github_user_id: Set(self.github_user_id),
            status: Set(self.status.code()),
            ..Default::default()
        }
    }
}
