//! What people ask of runs.

use lime_core::ports::Request;
use lime_core::runs::{AgentRun, RunSignal, RunStatus};
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope, Stored, Topic};

use super::held::{self, Held, Then, Which};
use super::places;
use crate::PgStorage;
use crate::connections::Transaction;
use crate::fence::{self, PLACES};
use crate::storage::{commit, span};

const OPERATION: &str = "queue.request";

pub(super) async fn request(
    storage: &PgStorage,
    scope: &Scope,
    run: Id<AgentRun>,
    request: Request,
) -> Result<Stored<AgentRun>> {
    let (base, scope) = (storage.base().clone(), scope.clone());
    let span = span(OPERATION, scope.tenant(), AgentRun::TABLE);
    let work = async move {
        let tx = base.begin_as(scope.tenant(), OPERATION).await?;
        fence::hold(&tx, &scope, OPERATION).await?;
        let mut held = lock(&tx, &scope, run).await?;
        let worked = held.token.is_some();
        if !apply(&mut held, request)? {
            return Ok(held.run);
        }
        let saved = held::save(&tx, OPERATION, vec![held]).await?;
        if request == Request::Requeue {
            // Its old place went with its end.
            places::place(&tx, OPERATION, Some((scope.tenant(), run))).await?;
        }
        commit(OPERATION, tx).await?;
        held::tell(&base, &saved);
        if worked {
            base.news.wake(Topic::Signals(run));
        }
        let stored = saved.into_iter().next().map(|saved| saved.stored);
        stored.ok_or_else(|| Error::new(ErrorKind::Unexpected, OPERATION, "the run was not written"))
    };
    storage.detached(OPERATION, span, work).await
}

/// Locks a run that may have ended, and its place if it has not.
async fn lock(db: &Transaction, scope: &Scope, run: Id<AgentRun>) -> Result<Held> {
    let condition = "place.tenant_id = $1 AND place.run_id = $2";
    for _ in 0..2 {
        for table in PLACES {
            let values = [scope.tenant().raw().into(), run.raw().into()];
            let which = Which { table, given: None, condition, skip_locked: false };
            let found = held::lock(db, OPERATION, which, values).await?;
            if let Some((_, held)) = found.into_iter().next() {
                return held;
            }
        }
        match held::lock_placeless(db, OPERATION, scope.tenant(), run).await? {
            None => return Err(Error::not_found(OPERATION, AgentRun::NAME, run)),
            Some(held) if held.run.status.is_final() => return Ok(held),
            // Somebody finished it; it gets a new place now instead of at the next sweep.
            Some(_) => _ = places::place(db, OPERATION, Some((scope.tenant(), run))).await?,
        }
    }
    let message = "the run is being given a place in the line; try again";
    Err(Error::new(ErrorKind::Conflict, OPERATION, message)
        .retry(lime_core::Retry::After(None))
        .with("run", run))
}

/// Does what was asked; gives whether anything changed by it.
fn apply(held: &mut Held, request: Request) -> Result<bool> {
    let (status, now, worked) = (held.run.status, held.now, held.token.is_some());
    let run = held.run.id;
    let refused = |what: &str| {
        let message = format!("a run that is {status} cannot be {what}");
        Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("run", run))
    };
    match request {
        Request::Cancel if status.is_final() => Ok(false),
        Request::Cancel => {
            let is_new = held.run.value.cancel_requested_at.is_none();
            held.run.value.cancel_requested_at.get_or_insert(now);
            if worked {
                return Ok(is_new);
            }
            held.cancel(OPERATION)?;
            Ok(true)
        }
        Request::Pause if status == RunStatus::Paused => Ok(false),
        Request::Pause if status.is_final() => refused("paused"),
        Request::Pause => {
            let is_new = held.run.value.pause_requested_at.is_none();
            held.run.value.pause_requested_at.get_or_insert(now);
            if worked {
                return Ok(is_new);
            }
            held.signal(OPERATION, RunSignal::Pause, Then::Paused, None)?;
            Ok(true)
        }
        Request::Resume if status.is_final() => refused("resumed"),
        Request::Resume => {
            let was_asked = held.run.value.pause_requested_at.take().is_some();
            if status != RunStatus::Paused {
                return Ok(was_asked);
            }
            held.signal(OPERATION, RunSignal::Resume, Then::Waits(held.run.run_at), None)?;
            Ok(true)
        }
        Request::Requeue if status == RunStatus::Queued => Ok(false),
        Request::Requeue if status != RunStatus::Failed => refused("requeued"),
        Request::Requeue => {
            held.run.value.requeue();
            held.signal(OPERATION, RunSignal::Requeue, Then::Waits(None), None)?;
            Ok(true)
        }
    }
}
