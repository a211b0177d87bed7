use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::repos::Repository;
use crate::runs::AgentRun;
use crate::{Editable, Id, Invalid, entity};

/// What a run, or a person, changed in a repository (000 §5.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeDiff {
    /// The run that made it.
    pub agent_run_id: Option<Id<AgentRun>>,
    /// The repository.
    pub repository_id: Id<Repository>,
    /// The commit that it starts from.
    pub base_ref: String,
    /// The commit that it ends with.
    pub head_ref: String,
    /// The change as `git diff` prints it, UTF-8, at most [`CodeDiff::MAX_BYTES`].
    pub unified_diff: String,
    /// The change in a sentence.
    pub summary: Option<String>,
    /// How much it changes.
    pub stats: DiffStats,
}

impl CodeDiff {
    /// The most bytes of a unified diff: 64 MiB.
    pub const MAX_BYTES: usize = 64 << 20;
}

/// How much a diff changes; `stats_json` in the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DiffStats {
    /// Files added, changed, renamed or deleted.
    pub files_changed: u32,
    /// Lines added; a binary file counts none.
    pub insertions: u32,
    /// Lines removed; a binary file counts none.
    pub deletions: u32,
}

entity! {
    CodeDiff as "code diff" in "code_diffs" {
        AGENT_RUN_ID: Option<Id<AgentRun>> = agent_run_id => |diff| diff.agent_run_id;
        REPOSITORY_ID: Id<Repository> = repository_id => |diff| diff.repository_id;
    }
    refers AGENT_RUN_ID -> AgentRun SetNull(|diff| diff.agent_run_id = None);
    refers REPOSITORY_ID -> Repository Cascade;
    validate |diff| {
        for (field, text) in [("base_ref", &diff.base_ref), ("head_ref", &diff.head_ref)] {
            Invalid::text(field, text, 1, 4_096)?;
            Invalid::no_nul(field, text)?;
        }
        if diff.unified_diff.len() > CodeDiff::MAX_BYTES {
            return Err(Invalid::new("unified_diff", format!("must have at most {} bytes", CodeDiff::MAX_BYTES)));
        }
        Invalid::no_nul("unified_diff", &diff.unified_diff)
    };
}
impl Editable for CodeDiff {}
