//! Where the code is: repositories, worktrees, diffs.

mod code_diff;
mod repository;
mod worktree;

pub use code_diff::{CodeDiff, DiffStats};
pub use repository::{Connector, RepoKind, Repository};
pub use worktree::{Worktree, WorktreeStatus};
