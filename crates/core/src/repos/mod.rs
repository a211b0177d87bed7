//! Where the code is: repositories, worktrees, diffs.

mod code_diff;
mod repository;
mod repository_config;
mod worktree;

pub use code_diff::{CodeDiff, DiffStats};
pub use repository::{Connector, RepoKind, Repository};
pub use repository_config::{RepositoryConfig, RepositoryInstructions};
pub use worktree::{Worktree, WorktreeStatus};

/// A pipeline at a code host (000 §5.9); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum BuildPipeline {}

/// Where something is deployed to (000 §5.9); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum DeploymentTarget {}
