use lime_core::governance::{ActionScope, ApprovalPolicy, ApprovalRule, Decision, ToolPattern};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, ids, raw, raws, word};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "approval_policies")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: Option<i64>,
    pub scope: String,
    pub tool: Option<String>,
    pub rule: String,
    pub approvers: Vec<i64>,
    pub expires_after_s: i32,
    pub on_expiry: String,
    pub enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for ApprovalPolicy {
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
                project_id: id(model.project_id),
                approvers: ids(model.approvers),
                expires_after_s: model.expires_after_s,
                enabled: model.enabled,
                scope: ActionScope::parse(model.scope)?,
                tool: model.tool.map(ToolPattern::parse).transpose()?,
                rule: ApprovalRule::parse(&model.rule)?,
                on_expiry: Decision::parse(&model.on_expiry)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(raw(self.project_id)),
            approvers: Set(raws(self.approvers)),
            expires_after_s: Set(self.expires_after_s),
            enabled: Set(self.enabled),
            scope: Set(self.scope.into()),
            tool: Set(self.tool.map(Into::into)),
            rule: Set(word(self.rule)),
            on_expiry: Set(word(self.on_expiry)),
            ..Default::default()
        }
    }
}
