use lime_core::agents::{CustomInstruction, InstructionScope};
use lime_core::runs::AgentMode;
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "custom_instructions")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: Option<i64>,
    pub repository_id: Option<i64>,
    pub ticket_id: Option<i64>,
    /// Generated.
    pub scope: String,
    pub mode: String,
    pub priority: i32,
    pub content_md: String,
    pub enabled: bool,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for CustomInstruction {
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
                scope: match (id(model.project_id), id(model.repository_id), id(model.ticket_id)) {
                    (Some(project), _, _) => InstructionScope::Project(project),
                    (None, Some(repository), _) => InstructionScope::Repository(repository),
                    (None, None, Some(ticket)) => InstructionScope::Ticket(ticket),
                    (None, None, None) => InstructionScope::Tenant,
                },
                mode: mode(&model.mode)?,
                priority: model.priority,
                enabled: model.enabled,
                content_md: model.content_md,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(raw(self.scope.project())),
            repository_id: Set(raw(self.scope.repository())),
            ticket_id: Set(raw(self.scope.ticket())),
            mode: Set(self.mode_word().to_owned()),
            priority: Set(self.priority),
            enabled: Set(self.enabled),
            content_md: Set(self.content_md),
            ..Default::default()
        }
    }
}

/// The mode of this word; none, for any.
pub(crate) fn mode(word: &str) -> Result<Option<AgentMode>, Invalid> {
    (word != CustomInstruction::ANY).then(|| AgentMode::parse(word)).transpose()
}
