use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json};

use crate::agents::Agent;
use crate::identity::User;
use crate::planning::{Board, ColumnKey, Project};
use crate::repos::{Repository, Worktree};
use crate::runs::Session;
use crate::{Editable, Id, Invalid, Value, entity};

/// A piece of work on a board (000 §5.3 tickets; 001 tasks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The project.
    pub project_id: Id<Project>,
    /// The board.
    pub board_id: Id<Board>,
    /// The column of the board's workflow.
    pub column_key: ColumnKey,
    /// The order within the column, from 0 (001).
    pub position: i32,
    /// What is wanted, 1 to 200 characters.
    pub title: String,
    /// More about it, in Markdown, at most 5,000 characters.
    pub description_md: Option<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// At most 10 labels of 1 to 50 characters.
    pub labels: Vec<String>,
    /// The person who cares for it.
    pub assignee_user_id: Option<Id<User>>,
    /// The agent that works on it (001).
    pub agent_id: Option<Id<Agent>>,
    /// The session in which it is worked on (001).
    pub session_id: Option<Id<Session>>,
    /// The repository that it is about.
    pub repository_id: Option<Id<Repository>>,
    /// The branch with the work.
    pub branch: Option<String>,
    /// The worktree with the work (001).
    pub worktree_id: Option<Id<Worktree>>,
    /// The pull request's address.
    pub pr_url: Option<String>,
    /// Build status, pull request status and the like.
    pub status_meta: Map<String, Json>,
    /// What integrators keep with it (001).
    pub metadata: Map<String, Json>,
    /// What the agent has made of it.
    pub progress: TicketProgress,
    /// What people have said of it.
    pub approval: Approval,
    /// The person who wrote it.
    pub created_by: Option<Id<User>>,
}

/// How urgent a ticket is; a `SMALLINT` in the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// 1.
    High,
    /// 2.
    #[default]
    Medium,
    /// 3.
    Low,
}

impl Priority {
    /// The number in the database.
    pub const fn code(self) -> i16 {
        match self {
            Self::High => 1,
            Self::Medium => 2,
            Self::Low => 3,
        }
    }

    /// The priority with this number.
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::High),
            2 => Some(Self::Medium),
            3 => Some(Self::Low),
            _ => None,
        }
    }
}

impl From<Priority> for Value {
    fn from(priority: Priority) -> Self {
        Self::Int(priority.code().into())
    }
}

/// What the agent has made of a ticket (001).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TicketProgress {
    /// The last diff in a sentence.
    pub diff_summary: Option<String>,
    /// How many files the last diff changes.
    pub files_changed: Option<i32>,
    /// How many lines it adds.
    pub lines_added: Option<i32>,
    /// How many lines it removes.
    pub lines_removed: Option<i32>,
    /// When work first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When work was last completed.
    pub completed_at: Option<DateTime<Utc>>,
    /// How many turns agents have taken.
    pub turn_count: i32,
}

/// What people have said of a ticket's work (001).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approval {
    /// When it was approved.
    pub approved_at: Option<DateTime<Utc>>,
    /// Who approved it.
    pub approved_by: Option<Id<User>>,
    /// Why it was last rejected, 1 to 1,000 characters.
    pub rejection_reason: Option<String>,
    /// How often it was rejected.
    pub rejection_count: i32,
}

impl Ticket {
    /// A ticket in this column, with nothing but a title.
    pub fn new(
        project_id: Id<Project>,
        board_id: Id<Board>,
        column_key: impl Into<ColumnKey>,
        title: impl Into<String>,
    ) -> Self {
        Self {
            project_id,
            board_id,
            column_key: column_key.into(),
            position: 0,
            title: title.into(),
            description_md: None,
            priority: Priority::default(),
            labels: Vec::new(),
            assignee_user_id: None,
            agent_id: None,
            session_id: None,
            repository_id: None,
            branch: None,
            worktree_id: None,
            pr_url: None,
            status_meta: Map::new(),
            metadata: Map::new(),
            progress: TicketProgress::default(),
            approval: Approval::default(),
            created_by: None,
        }
    }
}

entity! {
    Ticket as "ticket" in "tickets" {
        PROJECT_ID: Id<Project> = project_id => |ticket| ticket.project_id;
        BOARD_ID: Id<Board> = board_id => |ticket| ticket.board_id;
        COLUMN_KEY: String = column_key => |ticket| ticket.column_key.clone();
        PRIORITY: Priority = priority => |ticket| ticket.priority;
        ASSIGNEE_USER_ID: Option<Id<User>> = assignee_user_id => |ticket| ticket.assignee_user_id;
        REPOSITORY_ID: Option<Id<Repository>> = repository_id => |ticket| ticket.repository_id;
        WORKTREE_ID: Option<Id<Worktree>> = worktree_id => |ticket| ticket.worktree_id;
        BRANCH: Option<String> = branch => |ticket| ticket.branch.clone();
        APPROVED_BY: Option<Id<User>> = approved_by => |ticket| ticket.approval.approved_by;
        CREATED_BY: Option<Id<User>> = created_by => |ticket| ticket.created_by;
    }
    refers PROJECT_ID -> Project Cascade;
    refers BOARD_ID -> Board Cascade;
    refers ASSIGNEE_USER_ID -> User Restrict;
    refers REPOSITORY_ID -> Repository Restrict;
    refers WORKTREE_ID -> Worktree Restrict;
    refers APPROVED_BY -> User Restrict;
    refers CREATED_BY -> User Restrict;
    validate |ticket| {
        Invalid::text("title", &ticket.title, 1, 200)?;
        Invalid::no_nul("title", &ticket.title)?;
        if let Some(description) = &ticket.description_md {
            Invalid::text("description_md", description, 0, 5_000)?;
            Invalid::no_nul("description_md", description)?;
        }
        if ticket.labels.len() > 10 {
            return Err(Invalid::new("labels_json", "at most 10 labels"));
        }
        for label in &ticket.labels {
            Invalid::text("labels_json", label, 1, 50)?;
            Invalid::no_nul("labels_json", label)?;
        }
        if ticket.position < 0 {
            return Err(Invalid::new("position", "must be 0 or more"));
        }
        if let Some(reason) = &ticket.approval.rejection_reason {
            Invalid::text("rejection_reason", reason, 1, 1_000)?;
        }
        Ok(())
    };
}
impl Editable for Ticket {}
