use lime_core::planning::{Approval, Priority, Ticket, TicketProgress};
use lime_core::{Id, Invalid, Stored};
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;

use super::{from_json, id, known, raw, to_json};
use crate::{Key, Row};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tickets")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub tenant_id: i64,
    pub project_id: i64,
    pub board_id: i64,
    pub column_key: String,
    pub position: i32,
    pub title: String,
    pub description_md: Option<String>,
    pub priority: i16,
    pub labels_json: Json,
    pub assignee_user_id: Option<i64>,
    pub agent_id: Option<i64>,
    pub session_id: Option<i64>,
    pub repository_id: Option<i64>,
    pub branch: Option<String>,
    pub worktree_id: Option<i64>,
    pub pr_url: Option<String>,
    pub status_meta_json: Json,
    pub metadata: Json,
    pub diff_summary: Option<String>,
    pub files_changed: Option<i32>,
    pub lines_added: Option<i32>,
    pub lines_removed: Option<i32>,
    pub approved_at: Option<DateTimeUtc>,
    pub approved_by: Option<i64>,
    pub rejection_reason: Option<String>,
    pub rejection_count: i32,
    pub started_at: Option<DateTimeUtc>,
    pub completed_at: Option<DateTimeUtc>,
    pub turn_count: i32,
    pub created_by: Option<i64>,
    pub version: i64,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Row for Ticket {
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
                board_id: Id::new(model.board_id),
                column_key: model.column_key,
                position: model.position,
                title: model.title,
                description_md: model.description_md,
                branch: model.branch,
                pr_url: model.pr_url,
                assignee_user_id: id(model.assignee_user_id),
                agent_id: id(model.agent_id),
                session_id: id(model.session_id),
                repository_id: id(model.repository_id),
                worktree_id: id(model.worktree_id),
                created_by: id(model.created_by),
                priority: known("priority", Priority::from_code(model.priority))?,
                labels: from_json("labels_json", model.labels_json)?,
                status_meta: from_json("status_meta_json", model.status_meta_json)?,
                metadata: from_json("metadata", model.metadata)?,
                progress: TicketProgress {
                    diff_summary: model.diff_summary,
                    files_changed: model.files_changed,
                    lines_added: model.lines_added,
                    lines_removed: model.lines_removed,
                    started_at: model.started_at,
                    completed_at: model.completed_at,
                    turn_count: model.turn_count,
                },
                approval: Approval {
                    approved_at: model.approved_at,
                    approved_by: id(model.approved_by),
                    rejection_reason: model.rejection_reason,
                    rejection_count: model.rejection_count,
                },
            },
        })
    }

    fn active(self) -> ActiveModel {
        ActiveModel {
            project_id: Set(self.project_id.raw()),
            board_id: Set(self.board_id.raw()),
            column_key: Set(self.column_key),
            position: Set(self.position),
            title: Set(self.title),
            description_md: Set(self.description_md),
            branch: Set(self.branch),
            pr_url: Set(self.pr_url),
            assignee_user_id: Set(raw(self.assignee_user_id)),
            agent_id: Set(raw(self.agent_id)),
            session_id: Set(raw(self.session_id)),
            repository_id: Set(raw(self.repository_id)),
            worktree_id: Set(raw(self.worktree_id)),
            created_by: Set(raw(self.created_by)),
            priority: Set(self.priority.code()),
            labels_json: Set(to_json(&self.labels)),
            status_meta_json: Set(Json::Object(self.status_meta)),
            metadata: Set(Json::Object(self.metadata)),
            diff_summary: Set(self.progress.diff_summary),
            files_changed: Set(self.progress.files_changed),
            lines_added: Set(self.progress.lines_added),
            lines_removed: Set(self.progress.lines_removed),
            started_at: Set(self.progress.started_at),
            completed_at: Set(self.progress.completed_at),
            turn_count: Set(self.progress.turn_count),
            approved_at: Set(self.approval.approved_at),
            approved_by: Set(raw(self.approval.approved_by)),
            rejection_reason: Set(self.approval.rejection_reason),
            rejection_count: Set(self.approval.rejection_count),
            ..Default::default()
        }
    }
}
