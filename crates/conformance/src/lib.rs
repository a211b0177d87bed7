//! One behaviour suite per port.
//!
//! - Each test takes what it tests as an argument and panics where a bullet of the port's documentation does not
//!   hold; its name says which.
//! - Every adapter runs the suite of its port, the in-memory storage too: what passes here may stand in for any
//!   other.
//! - [`storage_suite!`] makes a test of each; the other suites have a fixture trait that says how to set the scene.

#![allow(clippy::missing_panics_doc, reason = "a test panics where the behaviour does not hold")]
#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

pub mod agent;
pub mod repos;
pub mod scene;
mod skip;
pub mod storage;
pub mod workspaces;

pub use skip::{or_skip, skip};
