//! Who works: agents, and what they are told.

mod instructions;

pub use instructions::{InstructionLayer, LayerRecord, LayerScope, ResolvedInstructions};

/// A named agent (001, 002); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum Agent {}
