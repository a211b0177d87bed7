use lime_core::repos::{Worktree, WorktreeStatus};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{id, raw, word};
use crate::{Key, Row, nul};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "worktrees")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: i64,
    pub ticket_id: Option<i64>,
    pub agent_run_id: Option<i64>,
    pub repository_id: Option<i64>,
    pub branch: String,
    pub base_branch: String,
    pub path: String,
    pub status: String,
    pub env_copied: bool,
    pub deps_installed: bool,
    pub init_script_run: bool,
    pub last_error: Option<String>,
    pub merged_at: Option<DateTimeUtc>,
    pub removed_at: Option<DateTimeUtc>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Worktree {
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
                ticket_id: id(model.ticket_id),
                agent_run_id: id(model.agent_run_id),
                repository_id: id(model.repository_id),
                branch: model.branch,
                base_branch: model.base_branch,
                path: model.path,
                env_copied: model.env_copied,
                deps_installed: model.deps_installed,
                init_script_run: model.init_script_run,
                merged_at: model.merged_at,
                removed_at: model.removed_at,
                status: WorktreeStatus::parse(&model.status)?,
                last_error: model.last_error,
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(self.project_id.raw()),
            ticket_id: Set(raw(self.ticket_id)),
            agent_run_id: Set(raw(self.agent_run_id)),
            repository_id: Set(raw(self.repository_id)),
            branch: Set(self.branch),
            base_branch: Set(self.base_branch),
            path: Set(self.path),
            env_copied: Set(self.env_copied),
            deps_installed: Set(self.deps_installed),
            init_script_run: Set(self.init_script_run),
            merged_at: Set(self.merged_at),
            removed_at: Set(self.removed_at),
            status: Set(word(self.status)),
            last_error: Set(self.last_error.map(nul::text)),
            ..Default::default()
        }
    }
}
