//! What people say to the agents of runs.

use lime_core::runs::{AgentRun, RunInput};
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope, Stored, Topic};
use sea_orm::ConnectionTrait;

use super::{held, places};
use crate::connections::Transaction;
use crate::error::unnamed;
use crate::fence::{self, PLACES};
use crate::storage::{commit, span, sql};
use crate::{PgStorage, store};

const OPERATION: &str = "queue.say";

pub(super) async fn say(
    storage: &PgStorage,
    scope: &Scope,
    run: Id<AgentRun>,
    text: String,
) -> Result<Stored<RunInput>> {
    let user_id = scope.user();
    let input = RunInput { run_id: run, user_id, text, attempt_id: None, delivered_at: None };
    input.validate().map_err(|invalid| invalid.refused(OPERATION, RunInput::NAME))?;
    let (base, scope) = (storage.base().clone(), scope.clone());
    let span = span(OPERATION, scope.tenant(), RunInput::TABLE);
    let work = async move {
        let tx = base.begin_as(scope.tenant(), OPERATION).await?;
        fence::hold(&tx, &scope, OPERATION).await?;
        count(&tx, &scope, run).await?;
        let stored = store::insert(&tx, &scope, OPERATION, input).await?;
        commit(OPERATION, tx).await?;
        base.news.wake(Topic::Signals(run));
        Ok(stored)
    };
    storage.detached(OPERATION, span, work).await
}

/// Counts one more input at the run's place, which is locked by that: the run cannot end meanwhile.
async fn count(db: &Transaction, scope: &Scope, run: Id<AgentRun>) -> Result<()> {
    for _ in 0..2 {
        for table in PLACES {
            let more = format!("UPDATE {table} SET inputs = inputs + 1 WHERE tenant_id = $1 AND run_id = $2");
            let counted = db.execute_raw(sql(more, [scope.tenant().raw().into(), run.raw().into()])).await;
            if counted.map_err(|error| unnamed(OPERATION, &error))?.rows_affected() > 0 {
                return Ok(());
            }
        }
        let found = held::lock_placeless(db, OPERATION, scope.tenant(), run).await?;
        let found = found.ok_or_else(|| Error::not_found(OPERATION, AgentRun::NAME, run))?;
        if found.run.status.is_final() {
            let message = format!(
                "a run that is {} hears nothing any more; follow it up with another run",
                found.run.status
            );
            return Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("run", run));
        }
        places::place(db, OPERATION, Some((scope.tenant(), run))).await?;
    }
    let message = "the run is being given a place in the line; try again";
    Err(Error::new(ErrorKind::Conflict, OPERATION, message)
        .retry(lime_core::Retry::After(None))
        .with("run", run))
}
