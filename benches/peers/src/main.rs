//! Starts the comparison with other job queues: `cargo run --release -p peers -- queue | events | budgets | runs | all`.
//!
//! The harness itself is a workspace of its own, in `harness/`: what the other queues bring would more than double the
//! number of crates that every build here waits for, and turn on features of those that are shared. It is built below
//! `target/peers`, unless `CARGO_TARGET_DIR` names another folder.
#![allow(clippy::print_stderr, reason = "a command line speaks to its terminal")]

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/harness/Cargo.toml");
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers");

fn main() -> ExitCode {
    // The cargo that has started this one, so that it is the same toolchain.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| TARGET.into());
    let mut harness = Command::new(cargo);
    harness.args(["run", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir"]).arg(target);
    harness.arg("--").args(env::args_os().skip(1));
    // In the place of this process, so that it hears what is said to this one: Ctrl-C, and the end.
    let error = harness.exec();
    eprintln!("error: cargo could not be started: {error}");
    ExitCode::FAILURE
}
