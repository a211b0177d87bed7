//! Who works: agents, and what they are told.

mod custom_instruction;
mod default_instruction;
mod instructions;
mod instructions_diff;
mod layer;

pub use custom_instruction::CustomInstruction;
pub use default_instruction::DefaultInstruction;
pub use instructions::{InstructionsTooLong, LayerName, LayerRecord, ResolvedInstructions};
pub use instructions_diff::LayerChange;
pub use layer::{InstructionLayer, InstructionScope, LayerScope, LayerSource};

/// A named agent (001, 002); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum Agent {}
