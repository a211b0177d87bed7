//! `lime runs`: look at runs, and say what becomes of them.

mod ask;
mod event;
mod follow;
mod list;
mod say;
mod show;

use lime_core::ports::Request;

pub(crate) use self::list::{Listing, find_project};
use crate::args::RunsCommand;
use crate::desk::Desk;
use crate::exit::Failure;

pub(crate) async fn run(desk: &Desk, command: RunsCommand) -> Result<(), Failure> {
    match command {
        RunsCommand::List { status, project, page } => {
            Listing { status, project, dead: false, page }.show(desk).await
        }
        RunsCommand::Show { id } => show::show(desk, id).await,
        RunsCommand::Follow { id, after } => follow::follow(desk, id, after).await,
        RunsCommand::Cancel { id } => ask::cancel(desk, id).await,
        RunsCommand::Pause { id } => ask::ask(desk, id, Request::Pause).await,
        RunsCommand::Resume { id } => ask::ask(desk, id, Request::Resume).await,
        RunsCommand::Requeue { id } => ask::ask(desk, id, Request::Requeue).await,
        RunsCommand::Say { id, text } => say::say(desk, id, text).await,
    }
}
