//! A worker process: it leases runs from a database and works them, until it is told to stop.
//!
//! Read in this order: `settings` reads the environment, `assemble` makes a factory of it, `work` runs the worker and
//! ends it in order. `metrics` and `http` tell others how it does.

mod agents;
mod assemble;
mod exit;
mod http;
mod kept;
mod logs;
mod metrics;
mod settings;
mod signals;
mod traces;
mod upkeep;
mod variables;
mod work;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::exit::{Exit, Refusal};
use crate::settings::Environment;

/// Works the runs of an Assembly Lime factory, as its environment says
#[derive(Debug, Parser)]
#[command(name = "worker", version)]
struct Worker {}

fn main() -> ExitCode {
    // Whatever is not understood ends the process here.
    let asked = Worker::command().after_help(variables::help()).get_matches();
    let done = Worker::from_arg_matches(&asked)
        .map_err(|error| Refusal::failed(error.to_string()))
        .and_then(|_| run());
    let exit = done.unwrap_or_else(|refusal| {
        // If nobody listens, there is nobody left to tell.
        let _ = writeln!(std::io::stderr(), "error: {refusal}");
        refusal.exit
    });
    exit.into()
}

fn run() -> Result<Exit, Refusal> {
    let environment = Environment::of_process();
    let traces = logs::begin(&environment.logs()?)?;
    let settings = environment.settings()?;
    for name in variables::unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())) {
        tracing::warn!(name, "this variable means nothing here; is it spelt right?");
    }
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Refusal::failed(format!("the system has no threads to spare: {error}")))?;
    let done = runtime.block_on(work::work(settings));
    runtime.shutdown_timeout(work::LAST_WAIT);
    traces.end();
    done
}
