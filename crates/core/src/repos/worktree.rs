use chrono::{DateTime, Utc};

use crate::planning::{Project, Ticket};
use crate::repos::Repository;
use crate::runs::AgentRun;
use crate::words::words;
use crate::{Editable, Id, Invalid, entity};

/// A checkout of its own in which a run works (001 worktrees).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worktree {
    /// The project.
    pub project_id: Id<Project>,
    /// The ticket that the work is for.
    pub ticket_id: Option<Id<Ticket>>,
    /// The run that works in it (ours).
    pub agent_run_id: Option<Id<AgentRun>>,
    /// The repository that it is a checkout of (ours).
    pub repository_id: Option<Id<Repository>>,
    /// The branch that the work is committed to.
    pub branch: String,
    /// The branch or commit that it started from.
    pub base_branch: String,
    /// Where it is on the worker's disk.
    pub path: String,
    /// Its state.
    pub status: WorktreeStatus,
    /// The project's env file was copied into it.
    pub env_copied: bool,
    /// Its dependencies were installed.
    pub deps_installed: bool,
    /// The project's set-up script was run.
    pub init_script_run: bool,
    /// What last went wrong with it.
    pub last_error: Option<String>,
    /// When its branch was merged.
    pub merged_at: Option<DateTime<Utc>>,
    /// When it was removed from the disk.
    pub removed_at: Option<DateTime<Utc>>,
}

words! {
    /// The state of a worktree.
    pub enum WorktreeStatus: "status" {
        /// Being made.
        Creating = "creating",
        /// In use.
        Active = "active",
        /// Its branch is being merged.
        Merging = "merging",
        /// Being removed.
        Removing = "removing",
        /// Gone from the disk.
        Removed = "removed",
        /// Something went wrong with it.
        Error = "error",
    }
}

entity! {
    Worktree as "worktree" in "worktrees" {
        PROJECT_ID: Id<Project> = project_id => |worktree| worktree.project_id;
        TICKET_ID: Option<Id<Ticket>> = ticket_id => |worktree| worktree.ticket_id;
        AGENT_RUN_ID: Option<Id<AgentRun>> = agent_run_id => |worktree| worktree.agent_run_id;
        REPOSITORY_ID: Option<Id<Repository>> = repository_id => |worktree| worktree.repository_id;
        BRANCH: String = branch => |worktree| worktree.branch.clone();
        STATUS: WorktreeStatus = status => |worktree| worktree.status;
        PATH: String = path => |worktree| worktree.path.clone();
    }
    refers PROJECT_ID -> Project Cascade;
    refers TICKET_ID -> Ticket SetNull(|worktree| worktree.ticket_id = None);
    refers AGENT_RUN_ID -> AgentRun SetNull(|worktree| worktree.agent_run_id = None);
    refers REPOSITORY_ID -> Repository SetNull(|worktree| worktree.repository_id = None);
    validate |worktree| {
        // What an index of PostgreSQL holds.
        for (field, text, most) in [
            ("branch", &worktree.branch, 255),
            ("base_branch", &worktree.base_branch, 255),
            ("path", &worktree.path, 2_000),
        ] {
            Invalid::text(field, text, 1, most)?;
            Invalid::no_nul(field, text)?;
        }
        Ok(())
    };
}
impl Editable for Worktree {}
