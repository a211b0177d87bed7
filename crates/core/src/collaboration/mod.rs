//! Talk: channels and messages, known here by their ids only, until their tables come.

/// A channel that agents and people talk in (002).
#[derive(Debug, Clone, Copy)]
pub enum Channel {}

/// A message in a channel (002).
#[derive(Debug, Clone, Copy)]
pub enum ChatMessage {}
