use lime_core::repos::CodeDiff;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, id, raw, to_json};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "code_diffs")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub agent_run_id: Option<i64>,
    pub repository_id: i64,
    pub base_ref: String,
    pub head_ref: String,
    pub unified_diff: String,
    pub summary: Option<String>,
    pub stats_json: Json,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for CodeDiff {
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
                agent_run_id: id(model.agent_run_id),
                repository_id: Id::new(model.repository_id),
                base_ref: model.base_ref,
                head_ref: model.head_ref,
                unified_diff: model.unified_diff,
                summary: model.summary,
                stats: from_json("stats_json", model.stats_json)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            agent_run_id: Set(raw(self.agent_run_id)),
            repository_id: Set(self.repository_id.raw()),
            base_ref: Set(self.base_ref),
            head_ref: Set(self.head_ref),
            unified_diff: Set(self.unified_diff),
            summary: Set(self.summary.map(nul::text)),
            stats_json: Set(to_json(&self.stats)),
            ..Default::default()
        }
    }
}
