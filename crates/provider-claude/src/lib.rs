//! Claude Code as an agent provider.
//!
//! [`ClaudeProvider`] starts the CLI in print mode with JSON lines both ways and drives it through its control
//! protocol: initialize, the prompt, answers to its questions about tool calls, interruption. [`Translator`] turns
//! what it prints into events and judges how it ended; it is pure, and tested on recorded sessions.
//!
//! # What the agent may do
//!
//! - Its tools are those of the run's list, or a default set for building. Edits inside of the working folder
//!   pass, outside of it they are denied, and so is what the CLI calls sensitive, such as `.git`. Other allowed
//!   tools are approved beforehand; `Bash` is not confined by the CLI: what it may reach is the sandbox's matter.
//! - A run that plans or reviews has no tools that edit, and only the commands of `Bash` that the CLI knows to read.
//! - Calls that the run's `ask` means wait for a person's answer in the CLI's hook before the call; what is refused
//!   anyway is not asked about, as far as that can be told beforehand.
//! - Nothing of the machine's or the repository's own configuration is loaded unless
//!   [`project_settings`](ClaudeBuilder::project_settings) says so.
//!
//! # The agent's environment
//!
//! Exactly [`PASSED_ENV`], [`FIXED_ENV`], [`CONFIGURED_ENV`], the run's own variables and the kernel's
//! [`RUN_MARK`](lime_provider_cli::RUN_MARK). Whatever it holds can be read by the agent's tools.

mod calls;
mod command;
mod environment;
mod failure;
mod permissions;
mod provider;
mod questions;
mod say;
mod session;
mod translate;
mod usage;
mod verdict;
mod wire;

pub use environment::{CONFIGURED_ENV, FIXED_ENV, PASSED_ENV};
pub use provider::{ClaudeBuilder, ClaudeProvider};
pub use translate::Translator;
pub use verdict::ExitFacts;
