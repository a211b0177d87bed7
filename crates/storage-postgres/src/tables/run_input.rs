use lime_core::runs::RunInput;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "run_inputs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub run_id: i64,
    pub user_id: Option<i64>,
    pub text: String,
    pub attempt_id: Option<i64>,
    pub delivered_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for RunInput {
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
                run_id: Id::new(model.run_id),
                user_id: id(model.user_id),
                text: model.text,
                attempt_id: id(model.attempt_id),
                delivered_at: model.delivered_at,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            run_id: Set(self.run_id.raw()),
            user_id: Set(raw(self.user_id)),
            text: Set(self.text),
            attempt_id: Set(raw(self.attempt_id)),
            delivered_at: Set(self.delivered_at),
            ..Default::default()
        }
    }
}
