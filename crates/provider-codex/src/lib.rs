//! Codex as an agent provider of Assembly Lime.
//!
//! [`CodexProvider`] drives `codex app-server`, tested with Codex 0.169. [`Translator`] is the pure part of it: what
//! Codex prints becomes events and a report, from `codex app-server` and from `codex exec --json`.
//!
//! Rooms: `wire` says what stands on a line, `translate` what it means, `command` how Codex is started, `dialogue`
//! what is said to it, `approval` what it is allowed, `home` where it keeps its files, `session` drives it all.

mod approval;
mod builder;
mod command;
mod dialogue;
mod failure;
mod gate;
mod home;
mod limits;
mod provider;
mod session;
mod tools;
mod translate;
mod wire;

pub use builder::CodexBuilder;
pub use command::{CONFIGURED_ENV, PASSED_ENV};
pub use provider::CodexProvider;
pub use translate::{Exit, Translator};
