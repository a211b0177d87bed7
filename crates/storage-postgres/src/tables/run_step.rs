use lime_core::runs::{RunStep, StepKind, StepStatus};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, to_json, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "run_steps")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub run_id: i64,
    pub step_number: i32,
    pub step_key: String,
    pub kind: String,
    pub status: String,
    pub model_id: Option<String>,
    pub usage_json: Option<Json>,
    pub result: Option<Json>,
    pub error: Option<String>,
    pub completed_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for RunStep {
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
                step_number: model.step_number,
                step_key: model.step_key,
                model_id: model.model_id,
                completed_at: model.completed_at,
                kind: StepKind::parse(&model.kind)?,
                status: StepStatus::parse(&model.status)?,
                usage: model.usage_json.map(|usage| from_json("usage_json", usage)).transpose()?,
                result: model.result,
                error: model.error,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            run_id: Set(self.run_id.raw()),
            step_number: Set(self.step_number),
            step_key: Set(self.step_key),
            model_id: Set(self.model_id),
            completed_at: Set(self.completed_at),
            kind: Set(word(self.kind)),
            status: Set(word(self.status)),
            usage_json: Set(self.usage.as_ref().map(to_json)),
            result: Set(self.result.map(nul::json)),
            error: Set(self.error.map(nul::text)),
            ..Default::default()
        }
    }
}
