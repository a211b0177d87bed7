//! Works real worker processes on a real PostgreSQL and real git repositories, does to them what happens to machines,
//! and checks in the database and the repositories that no run was lost and none was done twice.
//!
//! `cargo run --release -p chaos -- --runs 10000 --workers 8 --kills 40`; `--scenario all` for the others.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people, whose output is its report"
)]

mod check;
mod cluster;
mod fleet;
mod ground;
mod report;
mod scenario;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::scenario::Plan;

#[derive(Debug, Parser)]
#[command(
    about = "Kills, stops and cuts off workers and databases, and checks that no run is lost or done twice"
)]
struct Args {
    #[command(flatten)]
    plan: Plan,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// What this program starts as its workers.
    #[command(hide = true)]
    Work(work::WorkArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let quiet = tracing_subscriber::EnvFilter::try_from_env("CHAOS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(quiet).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match args.role {
            Some(Role::Work(work)) => work::work(work).await.map(|()| true),
            None => scenario::play(&args.plan).await,
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", error.report());
            ExitCode::FAILURE
        }
    }
}
