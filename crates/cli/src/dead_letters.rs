//! `lime dead-letters`: runs that failed because they lost worker after worker.

use lime_core::ports::{Queue, Request};
use lime_core::runs::{AgentRun, RunStatus, StopReason};
use lime_core::{Id, Lookup, LookupExt, Query, Stored};
use serde::Serialize;

use crate::args::{DeadLettersCommand, PageArgs};
use crate::confirm::confirm;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::say;
use crate::runs::Listing;
use crate::text::count;
use crate::whose::Whose;

pub(crate) async fn run(desk: &Desk, command: DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List { page } => list(desk, page).await,
        DeadLettersCommand::Requeue { id: Some(id), .. } => requeue(desk, id).await,
        DeadLettersCommand::Requeue { id: None, .. } => requeue_all(desk).await,
    }
}

async fn list(desk: &Desk, page: PageArgs) -> Result<(), Failure> {
    Listing { status: Vec::new(), project: None, dead: true, page }.show(desk).await
}

/// What was put back into the line, and what was not.
#[derive(Debug, Serialize)]
struct Document {
    requeued: Vec<Id<AgentRun>>,
    refused: Vec<Refused>,
}

#[derive(Debug, Serialize)]
struct Refused {
    id: Id<AgentRun>,
    error: String,
}

async fn requeue(desk: &Desk, id: Id<AgentRun>) -> Result<(), Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let run: Stored<AgentRun> = desk.storage.get(&whose.scope, id).await?;
    if !is_dead(&run) {
        return Err(Failure::failed(format!(
            "the run {id} is no dead letter: it is {}; `lime runs requeue {id}` requeues any run that failed",
            run.status
        )));
    }
    desk.storage.request(&whose.scope, id, Request::Requeue).await?;
    answer(desk, &Document { requeued: vec![id], refused: Vec::new() })
}

/// Requeues every dead letter of a tenant; one that cannot be does not hold the others back.
async fn requeue_all(desk: &Desk) -> Result<(), Failure> {
    let whose = Whose::one(&desk.storage, desk.tenant.as_ref()).await?;
    let dead = Query::all()
        .filter(AgentRun::STATUS.eq(RunStatus::Failed))
        .filter(AgentRun::STOP_REASON.eq(StopReason::WorkerLost));
    let dead = desk.storage.all(&whose.scope, dead).await?;
    if !dead.is_empty() {
        let how_many = count(dead.len(), "dead letter");
        confirm(
            desk.yes,
            &format!("{how_many} of {} will be worked again, at their own cost.", whose.slug.as_str()),
        )?;
    }
    let mut document = Document { requeued: Vec::new(), refused: Vec::new() };
    for run in dead {
        match desk.storage.request(&whose.scope, run.id, Request::Requeue).await {
            Ok(_) => document.requeued.push(run.id),
            Err(error) => document.refused.push(Refused { id: run.id, error: error.to_string() }),
        }
    }
    answer(desk, &document)
}

fn answer(desk: &Desk, document: &Document) -> Result<(), Failure> {
    desk.out.answer(document, || format!("Requeued {}.", count(document.requeued.len(), "run")))?;
    if document.refused.is_empty() {
        return Ok(());
    }
    for refused in &document.refused {
        say(&format!("The run {} was not requeued: {}", refused.id, refused.error));
    }
    Err(Failure::failed(format!("{} could not be requeued", count(document.refused.len(), "run"))))
}

fn is_dead(run: &AgentRun) -> bool {
    run.status == RunStatus::Failed && run.stop_reason == Some(StopReason::WorkerLost)
}
