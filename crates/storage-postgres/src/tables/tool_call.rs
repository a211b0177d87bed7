use lime_core::runs::{ToolCall, ToolCallStatus};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tool_calls")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub agent_run_id: i64,
    pub project_id: i64,
    pub ticket_id: Option<i64>,
    pub agent_id: Option<i64>,
    pub call_id: String,
    pub tool: String,
    pub status: String,
    pub input: Json,
    pub output: Option<String>,
    pub error: Option<String>,
    pub duration_ms: Option<i64>,
    pub turn_number: i32,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for ToolCall {
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
                agent_run_id: Id::new(model.agent_run_id),
                project_id: Id::new(model.project_id),
                ticket_id: id(model.ticket_id),
                agent_id: id(model.agent_id),
                call_id: model.call_id,
                tool: model.tool,
                duration_ms: model.duration_ms,
                turn_number: model.turn_number,
                status: ToolCallStatus::parse(&model.status)?,
                input: model.input,
                output: model.output,
                error: model.error,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            agent_run_id: Set(self.agent_run_id.raw()),
            project_id: Set(self.project_id.raw()),
            ticket_id: Set(raw(self.ticket_id)),
            agent_id: Set(raw(self.agent_id)),
            call_id: Set(self.call_id),
            tool: Set(self.tool),
            duration_ms: Set(self.duration_ms),
            turn_number: Set(self.turn_number),
            status: Set(word(self.status)),
            input: Set(nul::json(self.input)),
            output: Set(self.output.map(nul::text)),
            error: Set(self.error.map(nul::text)),
            ..Default::default()
        }
    }
}
