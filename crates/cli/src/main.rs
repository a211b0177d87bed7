//! The operator's command: it looks after a factory's database, its queue and its runs.
//!
//! - `args` says what can be asked; each command is a module of the same name, and does one thing to a `Desk`.
//! - Every read has one JSON document beside its table, by `view`; whatever comes from agents is cleaned before it
//!   reaches a terminal, by `text`.

mod age;
mod api_keys;
mod approvals;
mod args;
mod budget;
mod confirm;
mod dead_letters;
mod desk;
mod doctor;
mod environment;
mod exit;
mod instructions;
mod keys;
mod migrate;
mod out;
mod queue;
mod retention;
mod runs;
mod tenants;
mod text;
mod view;
mod whose;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use crate::args::{Command, Lime};
use crate::desk::Desk;
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    let asked = environment::without_blanks(Lime::command()).get_matches();
    let lime = Lime::from_arg_matches(&asked).unwrap_or_else(|error| error.exit());
    log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(|error| Failure::failed(format!("the system has no resources to spare: {error}")))
        .and_then(|runtime| runtime.block_on(run(lime)));
    let exit = match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            if !failure.is_silent() {
                out::say(&format!("error: {failure}"));
            }
            failure.exit
        }
    };
    exit.into()
}

async fn run(lime: Lime) -> Result<(), Failure> {
    if let Command::Doctor { state_dir } = &lime.command {
        // It says itself what is wrong with the database, and goes on.
        return doctor::run(&lime, state_dir.as_deref()).await;
    }
    let desk = Desk::open(&lime).await?;
    let done = command(&desk, lime.command).await;
    desk.close().await;
    done
}

async fn command(desk: &Desk, command: Command) -> Result<(), Failure> {
    match command {
        Command::Migrate { check } => migrate::run(desk, check).await,
        Command::ApiKey(command) => api_keys::run(desk, command).await,
        Command::Tenants(command) => tenants::run(desk, command).await,
        Command::Runs(command) => runs::run(desk, command).await,
        Command::Approvals(command) => approvals::run(desk, command).await,
        Command::Budget(command) => budget::run(desk, command).await,
        Command::Instructions(command) => instructions::run(desk, command).await,
        Command::DeadLetters(command) => dead_letters::run(desk, command).await,
        Command::Queue(command) => queue::run(desk, command).await,
        Command::Purge { older_than, dry_run } => retention::purge(desk, older_than, dry_run).await,
        Command::Keys(command) => keys::run(desk, command).await,
        Command::Maintain => retention::maintain(desk).await,
        Command::Doctor { .. } => Ok(()),
    }
}

/// Logs to standard error, if `RUST_LOG` asks for it.
fn log() {
    if let Some(filter) = environment::variable(EnvFilter::DEFAULT_ENV) {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal() && environment::variable("NO_COLOR").is_none())
            .with_env_filter(EnvFilter::new(filter))
            .init();
    }
}
