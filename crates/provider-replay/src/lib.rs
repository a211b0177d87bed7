//! An [`AgentProvider`](lime_core::ports::AgentProvider) that plays a recorded session into a worktree, edits
//! included.
//!
//! - For demonstrations, and for tests of what is built on a factory: no model, no key, no network, and the same
//!   events and files each time.
//! - It says what it is: the first event of each session is a message that names the recording.
//! - A recording is a TOML file that a person can write; `docs/providers.md` describes every key of it, and how to
//!   write a provider of your own. This crate is meant to be read for that: [`ReplayProvider`] is the whole port in
//!   two short files, `provider.rs` and `session.rs`.
//!
//! ```
//! use lime_provider_replay::{Recording, ReplayProvider};
//!
//! # fn main() -> lime_core::Result<()> {
//! let recording = Recording::parse(r#"
//!     version = 1
//!     name = "greeting"
//!
//!     [[step]]
//!     write = "hello.txt"
//!     content = "Hello!\n"
//!
//!     [[step]]
//!     say = "I wrote hello.txt."
//! "#)?;
//! let provider = ReplayProvider::new(recording).speed(0.0); // without the recorded waits
//! # Ok(())
//! # }
//! ```

mod file;
mod place;
mod provider;
mod read;
mod recording;
mod script;
mod session;
mod step;

pub use provider::ReplayProvider;
pub use recording::{RecordedTicket, Recording};

/// Compiles and runs the examples of the providers' guide.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/providers.md")]
#[derive(Debug)]
pub struct ProvidersGuide;
