use lime_core::runs::{Effect, EffectKind, EffectStatus};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "effects")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub run_id: i64,
    pub attempt_id: i64,
    pub kind: String,
    pub idempotency_key: String,
    pub expected_json: Json,
    pub status: String,
    pub approval_id: Option<i64>,
    pub result: Option<Json>,
    pub error: Option<String>,
    pub ended_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Effect {
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
                attempt_id: Id::new(model.attempt_id),
                idempotency_key: model.idempotency_key,
                expected: model.expected_json,
                approval_id: id(model.approval_id),
                result: model.result,
                error: model.error,
                ended_at: model.ended_at,
                kind: EffectKind::parse(&model.kind)?,
                status: EffectStatus::parse(&model.status)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            run_id: Set(self.run_id.raw()),
            attempt_id: Set(self.attempt_id.raw()),
            idempotency_key: Set(self.idempotency_key),
            expected_json: Set(nul::json(self.expected)),
            approval_id: Set(raw(self.approval_id)),
            result: Set(self.result.map(nul::json)),
            error: Set(self.error.map(nul::text)),
            ended_at: Set(self.ended_at),
            kind: Set(word(self.kind)),
            status: Set(word(self.status)),
            ..Default::default()
        }
    }
}
