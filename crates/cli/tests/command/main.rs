//! The command, run as an operator runs it: the built program, a cleared environment, a database of its own.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what the command said"
)]

mod api_keys;
mod approvals;
mod budget;
mod control;
mod database;
mod dead_letters;
mod doctor;
mod follow;
mod ground;
mod instructions;
mod keys;
mod lists;
mod refusals;
mod tenants;
mod terminal;
