//! Where the code is: repositories, worktrees, diffs.

mod code_diff;
mod repository;
mod repository_config;
mod worktree;

pub use code_diff::{CodeDiff, DiffStats};
pub use repository::{Connector, RepoKind, Repository};
pub use repository_config::{RepositoryConfig, RepositoryInstructions};
pub use worktree::{Worktree, WorktreeStatus};
