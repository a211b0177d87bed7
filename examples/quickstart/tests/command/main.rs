//! The command, run as a user runs it: the built program, a cleared environment, a home of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what the command said"
)]

mod agents;
mod demo;
mod refusals;
mod stopping;
mod terminal;
mod user;
