use lime_core::governance::{BudgetEntry, EntryKind, Posting};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw, word};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "budget_entries")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub budget_id: i64,
    pub window: String,
    pub run_id: Option<i64>,
    pub attempt_id: Option<i64>,
    pub kind: String,
    pub held: i64,
    pub spent: i64,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for BudgetEntry {
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
        let kind = EntryKind::parse(&model.kind)?;
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                budget_id: Id::new(model.budget_id),
                window: model.window,
                run_id: id(model.run_id),
                attempt_id: id(model.attempt_id),
                posting: Posting { kind, held: model.held, spent: model.spent },
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            budget_id: Set(self.budget_id.raw()),
            window: Set(self.window),
            run_id: Set(raw(self.run_id)),
            attempt_id: Set(raw(self.attempt_id)),
            kind: Set(word(self.posting.kind)),
            held: Set(self.posting.held),
            spent: Set(self.posting.spent),
            ..Default::default()
        }
    }
}
