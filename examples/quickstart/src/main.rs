//! The main job in one command: an agent works a ticket in a git repository.
//!
//! Read in this order: [`assemble`] puts a factory together, [`submit`] gives it a ticket, [`job`] follows the run
//! from the first event to the commit. The rest is what a good command needs.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program, and printing is what it does"
)]

mod agent;
mod args;
mod assemble;
mod demo;
mod exit;
mod interrupts;
mod job;
mod place;
mod show;
mod submit;
mod ticket;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::Args;
use crate::exit::{Exit, Refusal};
use crate::interrupts::Interrupts;
use crate::place::Place;

/// How long what is still at work in the end may take to be thrown away; agents die with their sessions.
const LAST_WAIT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    let exit = tokio::runtime::Runtime::new()
        .map_err(|error| Refusal::new(format!("the system has no threads to spare: {error}")))
        .and_then(|runtime| {
            let exit = runtime.block_on(quickstart(&args));
            runtime.shutdown_timeout(LAST_WAIT);
            exit
        });
    exit.unwrap_or_else(|refusal| {
        show::complain(&format!("error: {refusal}"));
        Exit::Refused
    })
    .into()
}

async fn quickstart(args: &Args) -> Result<Exit, Refusal> {
    let logs = log(args.verbose);
    let interrupts = Interrupts::listen()?;
    let place = Place::choose(args.data_dir.as_deref())?;
    let mut show = show::for_args(args, logs, &place.checkouts());
    show.title();
    tokio::select! {
        exit = job::work(args, &place, &mut *show, &interrupts) => exit,
        () = interrupts.reach(2) => Ok(Exit::Interrupted),
    }
}

/// Logs to standard error, if asked to by `--verbose` or `RUST_LOG`; says whether it does.
fn log(verbose: bool) -> bool {
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(filter) if !filter.is_empty() => filter,
        _ if verbose => "warn,lime=info,quickstart=info".to_owned(),
        _ => return false,
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && show::wants_colour())
        .with_env_filter(EnvFilter::new(filter))
        .init();
    true
}
