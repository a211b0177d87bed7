//! The worker, run as it is run anywhere: the built program, a cleared environment, a real database and real git.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what the worker said"
)]

mod configuration;
mod ending;
mod ground;
mod telling;
#[cfg(feature = "otel")]
mod traces;
mod working;
