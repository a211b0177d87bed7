use lime_core::governance::{EnvScope, EnvScopeKind, EnvVarSet};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::word;
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "env_var_sets")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub scope_type: String,
    pub scope_id: i64,
    /// Made by the database of the two before.
    pub project_id: Option<i64>,
    pub name: String,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for EnvVarSet {
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
                scope: EnvScope::new(EnvScopeKind::parse(&model.scope_type)?, model.scope_id),
                name: model.name,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            scope_type: Set(word(self.scope.kind())),
            scope_id: Set(self.scope.id()),
            name: Set(self.name),
            ..Default::default()
        }
    }
}
