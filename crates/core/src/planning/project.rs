use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::governance::UnknownPrice;
use crate::{Editable, Invalid, entity};

/// A body of work with its boards, tickets and repositories (000 §5.3; 001; 003 §3; 004).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The name that people see, 1 to 100 characters.
    pub name: String,
    /// The short key that ticket numbers begin with, such as `AL`: 1 to 10 of `A-Z` and `0-9`, a letter first.
    pub key: String,
    /// What it is about, at most 500 characters.
    pub description: Option<String>,
    /// How runs are set up.
    pub config: ProjectConfig,
    /// How many agents may work at once, 1 to 10 (001).
    pub max_concurrent_agents: i32,
    /// When it was put away; nothing new starts in it from then on (003).
    pub archived_at: Option<DateTime<Utc>>,
}

/// How the runs of a project are set up, where a run does not say otherwise (001 `projectConfigSchema`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectConfig {
    /// The folder under the workspace root that holds the worktrees.
    pub worktree_root: String,
    /// A shell script that a fresh worktree is set up with.
    pub init_script: Option<String>,
    /// A file with variables that is copied into a fresh worktree.
    pub env_file: Option<String>,
    /// The branch that work starts from, where the repository does not say.
    pub default_branch: String,
    /// The tools that agents may use.
    pub allowed_tools: Vec<String>,
    /// How many turns an agent may take.
    pub max_turns: u32,
    /// The model, where neither the run nor the provider says.
    pub model: Option<String>,
    /// What is done about a run under a budget of which nobody knows what it may use (ours).
    pub unknown_price: UnknownPrice,
}

impl Default for ProjectConfig {
    fn default() -> Self {
        Self {
            worktree_root: ".worktrees".into(),
            init_script: None,
            env_file: None,
            default_branch: "main".into(),
            allowed_tools: ["Read", "Edit", "Bash", "Glob", "Grep"].map(Into::into).to_vec(),
            max_turns: 50,
            model: None,
            unknown_price: UnknownPrice::Refuse,
        }
    }
}

impl Project {
    /// A project with the default configuration, for at most 3 agents at once.
    pub fn new(name: impl Into<String>, key: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            key: key.into(),
            description: None,
            config: ProjectConfig::default(),
            max_concurrent_agents: 3,
            archived_at: None,
        }
    }
}

entity! {
    Project as "project" in "projects" {
        KEY: String = key => |project| project.key.clone();
        ARCHIVED_AT: Option<DateTime<Utc>> = archived_at => |project| project.archived_at;
    }
    unique [KEY];
    validate |project| {
        Invalid::text("name", &project.name, 1, 100)?;
        Invalid::no_nul("name", &project.name)?;
        let key = project.key.as_bytes();
        let letters = |b: &u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        if key.len() > 10 || !key.first().is_some_and(u8::is_ascii_uppercase) || !key.iter().all(letters) {
            return Err(Invalid::new("key", "must be 1 to 10 of A-Z and 0-9, a letter first, such as AL"));
        }
        if let Some(description) = &project.description {
            Invalid::text("description", description, 0, 500)?;
            Invalid::no_nul("description", description)?;
        }
        if !(1..=10).contains(&project.max_concurrent_agents) {
            return Err(Invalid::new("max_concurrent_agents", "must be 1 to 10"));
        }
        Ok(())
    };
}
impl Editable for Project {}
