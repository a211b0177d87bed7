//! The line of runs on a server: many at once, limits, losses, and what it costs.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod batches;
mod cost;
mod keys;
mod limits;
mod losses;
#[path = "../support/mod.rs"]
mod support;
