use super::{InstructionLayer, InstructionScope, LayerSource, ResolvedInstructions};
use crate::planning::{Project, Ticket};
use crate::repos::Repository;
use crate::runs::AgentMode;
use crate::{Editable, Id, Stored, entity};

/// What the agents of a tenant, a project, a repository or a ticket are told (000 §5.10).
///
/// - A scope has one for each mode and priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomInstruction {
    /// What it is for.
    pub scope: InstructionScope,
    /// The mode that it is for; any, if none.
    pub mode: Option<AgentMode>,
    /// Lower is stronger, and comes later within its scope.
    pub priority: i32,
    /// Whether it is told.
    pub enabled: bool,
    /// The instructions, in Markdown: 1 to [`MAX_LAYER_BYTES`](ResolvedInstructions::MAX_LAYER_BYTES) bytes.
    pub content_md: String,
}

impl CustomInstruction {
    /// The mode's word in the database where it is for any.
    pub const ANY: &'static str = "any";

    /// One that is told in every mode, with the priority 100.
    pub fn new(scope: InstructionScope, content_md: impl Into<String>) -> Self {
        Self {
            scope,
            mode: None,
            priority: InstructionLayer::PRIORITY,
            enabled: true,
            content_md: content_md.into(),
        }
    }

    /// The mode's word in the database.
    pub fn mode_word(&self) -> &'static str {
        self.mode.map_or(Self::ANY, AgentMode::as_str)
    }
}

impl From<Stored<CustomInstruction>> for InstructionLayer {
    fn from(stored: Stored<CustomInstruction>) -> Self {
        let CustomInstruction { scope, mode, priority, enabled, content_md } = stored.value;
        let layer = Self::new(scope.layer(), LayerSource::Custom(stored.id), content_md);
        Self { mode, priority, enabled, ..layer }
    }
}

entity! {
    CustomInstruction as "custom instruction" in "custom_instructions" {
        SCOPE: InstructionScope = scope => |instruction| instruction.scope;
        PROJECT_ID: Option<Id<Project>> = project_id => |instruction| instruction.scope.project();
        REPOSITORY_ID: Option<Id<Repository>> = repository_id => |instruction| instruction.scope.repository();
        TICKET_ID: Option<Id<Ticket>> = ticket_id => |instruction| instruction.scope.ticket();
        MODE: String = mode => |instruction| instruction.mode_word();
        PRIORITY: i32 = priority => |instruction| instruction.priority;
        ENABLED: bool = enabled => |instruction| instruction.enabled;
    }
    unique [SCOPE, MODE, PRIORITY];
    refers PROJECT_ID -> Project Cascade;
    refers REPOSITORY_ID -> Repository Cascade;
    refers TICKET_ID -> Ticket Cascade;
    validate |instruction| ResolvedInstructions::check_layer(&instruction.content_md);
}
impl Editable for CustomInstruction {}
