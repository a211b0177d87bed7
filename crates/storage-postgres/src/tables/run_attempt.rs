use lime_core::runs::{AttemptEnd, RunAttempt};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{parse_some, word};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "run_attempts")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub run_id: i64,
    pub number: i32,
    pub worker: String,
    pub heartbeat_at: DateTimeUtc,
    pub outcome: Option<String>,
    pub error: Option<String>,
    pub ended_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for RunAttempt {
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
                number: model.number,
                worker: model.worker,
                heartbeat_at: model.heartbeat_at,
                error: model.error,
                ended_at: model.ended_at,
                outcome: parse_some(model.outcome.as_deref(), AttemptEnd::parse)?,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            run_id: Set(self.run_id.raw()),
            number: Set(self.number),
            worker: Set(self.worker),
            heartbeat_at: Set(self.heartbeat_at),
            error: Set(self.error),
            ended_at: Set(self.ended_at),
            outcome: Set(self.outcome.map(word)),
            ..Default::default()
        }
    }
}
