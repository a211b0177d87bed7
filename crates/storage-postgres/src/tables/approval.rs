use lime_core::governance::{ActionScope, Approval, ApprovalStatus, Decision};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, ids, raw, raws, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "approvals")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: i64,
    pub run_id: i64,
    pub attempt_id: Option<i64>,
    pub scope: String,
    pub action: String,
    pub intent_summary: String,
    pub payload_json: Json,
    pub payload_hash: String,
    pub status: String,
    pub approvers: Vec<i64>,
    pub expires_at: DateTimeUtc,
    pub on_expiry: String,
    pub decided_at: Option<DateTimeUtc>,
    pub decided_by: Option<i64>,
    pub note: Option<String>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Approval {
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
                project_id: Id::new(model.project_id),
                run_id: Id::new(model.run_id),
                attempt_id: id(model.attempt_id),
                action: model.action,
                intent_summary: model.intent_summary,
                payload: model.payload_json,
                payload_hash: model.payload_hash,
                approvers: ids(model.approvers),
                expires_at: model.expires_at,
                decided_at: model.decided_at,
                decided_by: id(model.decided_by),
                note: model.note,
                scope: ActionScope::parse(model.scope)?,
                status: ApprovalStatus::parse(&model.status)?,
                on_expiry: Decision::parse(&model.on_expiry)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(self.project_id.raw()),
            run_id: Set(self.run_id.raw()),
            attempt_id: Set(raw(self.attempt_id)),
            action: Set(self.action),
            intent_summary: Set(self.intent_summary),
            payload_json: Set(nul::json(self.payload)),
            payload_hash: Set(self.payload_hash),
            approvers: Set(raws(self.approvers)),
            expires_at: Set(self.expires_at),
            decided_at: Set(self.decided_at),
            decided_by: Set(raw(self.decided_by)),
            note: Set(self.note),
            scope: Set(self.scope.into()),
            status: Set(word(self.status)),
            on_expiry: Set(word(self.on_expiry)),
            ..Default::default()
        }
    }
}
