//! The kernel against real processes.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // a test fails by panicking, outside its functions too

mod kill;
mod scene;
mod streams;
mod worker_death;
