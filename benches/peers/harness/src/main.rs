//! Ours beside other job queues and bare SQL, on the same database in one run.
//!
//! Read in this order: [`peer`] says what is measured, [`peers`] holds one file for each peer, [`queue`],
//! [`events`], [`budgets`], [`isolation`] and [`runs`] measure them in rounds, [`target`] says what is aimed at, [`report`] prints it.
#![allow(clippy::print_stdout, reason = "this is a program, and its tables are what it is for")]

mod args;
mod budgets;
mod events;
mod figures;
mod ground;
mod isolation;
mod node;
mod own_redis;
mod peer;
mod peers;
mod queue;
mod report;
mod roster;
mod runs;
mod say;
mod target;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Subject};
use crate::ground::Ground;
use crate::report::Report;

/// What a measurement gives back, or why it could not be made.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let done = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        let done = runtime.block_on(compare(&args));
        // Peers that don't stop when asked end with their runtime.
        runtime.shutdown_background();
        done
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::line(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints; gives whether every measurement could be made.
async fn compare(args: &Args) -> Outcome<bool> {
    let ground = Ground::open(args).await?;
    let measured = tokio::select! {
        measured = measure(args, &ground) => measured,
        () = interrupted() => Err("interrupted".into()),
    };
    let cleaned = ground.clean().await;
    let whole = measured?;
    cleaned?;
    Ok(whole)
}

async fn measure(args: &Args, ground: &Ground) -> Outcome<bool> {
    let mut report = Report::new(ground.machine().await?, args);
    if matches!(args.subject, Subject::Queue | Subject::All) {
        report.add(queue::measure(args, ground).await?);
    }
    if matches!(args.subject, Subject::Events | Subject::All) {
        report.add(events::measure(args, ground).await?);
    }
    if matches!(args.subject, Subject::Budgets | Subject::All) {
        report.add(budgets::measure(args, ground).await?);
    }
    if matches!(args.subject, Subject::Isolation | Subject::All) {
        report.add(isolation::measure(args, ground).await?);
    }
    // The last, since from then on the storage's calls are timed.
    if matches!(args.subject, Subject::Runs | Subject::All) {
        report.add(runs::measure(args, ground).await?);
    }
    report.print()?;
    Ok(report.is_whole())
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};

    let Ok(mut terminated) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminated.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
