use lime_core::governance::{
    Amount, Budget, BudgetPeriod, BudgetSubject, BudgetUnit, BudgetUnitKind, Currency,
};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{raw, word};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "project_budgets")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: Option<i64>,
    pub agent_id: Option<i64>,
    pub subject: String,
    pub period: String,
    pub unit: String,
    pub currency: String,
    pub limit_amount: i64,
    pub soft_limit_amount: Option<i64>,
    pub enforce_hard_stop: bool,
    pub enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Budget {
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
        let subject = match (model.project_id, model.agent_id) {
            (Some(project), _) => BudgetSubject::Project(Id::new(project)),
            (None, Some(agent)) => BudgetSubject::Agent(Id::new(agent)),
            (None, None) => BudgetSubject::Tenant,
        };
        let unit = match BudgetUnitKind::parse(&model.unit)? {
            BudgetUnitKind::Money => BudgetUnit::Money(Currency::parse(&model.currency)?),
            BudgetUnitKind::Tokens => BudgetUnit::Tokens,
            BudgetUnitKind::Runs => BudgetUnit::Runs,
        };
        Ok(Stored {
            id: Id::new(model.id),
            version: model.version,
            created_at: model.created_at,
            updated_at: model.updated_at,
            value: Self {
                subject,
                unit,
                period: BudgetPeriod::parse(&model.period)?,
                limit: Amount::new(model.limit_amount),
                soft_limit: model.soft_limit_amount.map(Amount::new),
                enforce_hard_stop: model.enforce_hard_stop,
                enabled: model.enabled,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(raw(self.subject.project())),
            agent_id: Set(raw(self.subject.agent())),
            period: Set(word(self.period)),
            unit: Set(word(self.unit.kind())),
            currency: Set(self.unit.currency().to_string()),
            limit_amount: Set(self.limit.get()),
            soft_limit_amount: Set(self.soft_limit.map(Amount::get)),
            enforce_hard_stop: Set(self.enforce_hard_stop),
            enabled: Set(self.enabled),
            ..Default::default()
        }
    }
}
