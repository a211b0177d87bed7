use lime_core::governance::{EnvKey, EnvVar};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::sealed;
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "env_vars")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub set_id: i64,
    pub key: String,
    pub value_enc: Vec<u8>,
    /// Made by the database of what is sealed.
    pub key_id: i64,
    pub is_secret: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for EnvVar {
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
                set_id: Id::new(model.set_id),
                key: EnvKey::parse(model.key)?,
                value: sealed(EnvVar::VALUE, model.value_enc)?,
                is_secret: model.is_secret,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            set_id: Set(self.set_id.raw()),
            key: Set(self.key.as_str().to_owned()),
            value_enc: Set(self.value.as_bytes().to_vec()),
            is_secret: Set(self.is_secret),
            ..Default::default()
        }
    }
}
