//! Cancel, pause, resume, requeue.

use lime_core::ports::{Queue, Request};
use lime_core::runs::{AgentRun, RunStatus};
use lime_core::{Id, Lookup, Stored};

use super::list::ProjectKeys;
use crate::confirm::confirm;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::text::first_line;
use crate::view::RunView;
use crate::whose::Whose;

/// Cancels a run, if the operator means it.
pub(crate) async fn cancel(desk: &Desk, id: Id<AgentRun>) -> Result<(), Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    let run = Lookup::get(&desk.storage, &whose.scope, id).await?;
    if !run.status.is_final() {
        let prompt = first_line(&run.input_prompt, 60);
        confirm(
            desk.yes,
            &format!(
                "The run {id} of {} is {} and will be cancelled: {prompt}",
                whose.slug.as_str(),
                run.status
            ),
        )?;
    }
    ask_of(desk, &whose, id, Request::Cancel).await
}

/// Asks something of a run that can be taken back.
pub(crate) async fn ask(desk: &Desk, id: Id<AgentRun>, request: Request) -> Result<(), Failure> {
    let whose = Whose::of_run(&desk.storage, desk.tenant.as_ref(), id).await?;
    ask_of(desk, &whose, id, request).await
}

async fn ask_of(desk: &Desk, whose: &Whose, id: Id<AgentRun>, request: Request) -> Result<(), Failure> {
    let run = desk.storage.request(&whose.scope, id, request).await?;
    let text = outcome(&run, request);
    let key = ProjectKeys::default().of(desk, whose, run.project_id).await?;
    desk.out.answer(&RunView::of(&whose.slug, &key, run), || text)
}

/// What came of it, since a run that is worked only learns of it later.
fn outcome(run: &Stored<AgentRun>, request: Request) -> String {
    let worked = matches!(run.status, RunStatus::Running | RunStatus::WaitingApproval);
    let status = run.status;
    let id = run.id;
    match request {
        Request::Cancel if worked => {
            format!(
                "The run {id} is still {status}: its worker has been told, and stops it within a heartbeat."
            )
        }
        Request::Cancel if status != RunStatus::Cancelled => {
            format!("The run {id} had ended: it is {status}.")
        }
        Request::Pause if worked => {
            format!(
                "The run {id} is still {status}: its worker has been told, and hands it back within a heartbeat."
            )
        }
        Request::Cancel | Request::Pause | Request::Resume | Request::Requeue => {
            format!("The run {id} is {status}.")
        }
    }
}
