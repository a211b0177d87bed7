//! The nouns, rules and ports of Assembly Lime.
//!
//! Nothing here does I/O, needs a runtime, knows an ORM or speaks HTTP: domain logic is plain values and pure
//! functions that anybody can unit-test, and everything outside is a trait in [`ports`].
//!
//! - Nouns by context: [`identity`], [`planning`], [`repos`], [`agents`], [`runs`], [`collaboration`],
//!   [`governance`]; contexts name each other by [`Id`] only.
//! - Rows: an [`Entity`] in a [`Store`], seen through a [`Scope`].
//! - Ports: what an adapter implements, each with the behaviour that the conformance suite tests.
//! - [`memory`]: every store and queue in memory, with the same behaviour as the database.

pub mod agents;
pub mod collaboration;
mod entity;
mod error;
pub mod governance;
mod id;
pub mod identity;
mod live;
pub mod memory;
mod money;
pub mod planning;
pub mod ports;
pub mod repos;
pub mod runs;
mod scope;
mod store;
mod words;

pub use entity::{Column, Condition, Editable, Entity, Field, Invalid, OnDelete, Reference, Stored, Value};
pub use error::{Error, ErrorKind, Result, Retry};
pub use id::{Id, ParseIdError};
pub use live::{Follower, LiveHub, Topic};
pub use money::Micros;
pub use scope::{Actor, Scope};
pub use store::{Lookup, LookupExt, Page, Query, Store};
