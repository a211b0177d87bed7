use chrono::{DateTime, Utc};
use lime_core::identity::Tenant;
use lime_core::ports::Settlement;
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, Outcome, RunSignal, RunStatus};
use lime_core::{Error, ErrorKind, Id, Result, Stored};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Value,
};

use crate::error::{Doing, about, unnamed};
use crate::events::Batch;
use crate::store::read;
use crate::tables::agent_run::{Column, Entity, Model};
use crate::{Row, storage};

/// A run whose row the transaction has locked.
pub(super) struct Held {
    pub(super) tenant: Id<Tenant>,
    pub(super) run: Stored<AgentRun>,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
    /// The state that it was found in.
    found: RunStatus,
}

/// Columns that are set by `submit` for good, or by `progress`.
const KEPT: &[Column] = &[
    Column::ProjectId,
    Column::TicketId,
    Column::RepositoryId,
    Column::AgentId,
    Column::SessionId,
    Column::TriggerMessageId,
    Column::ChannelId,
    Column::Provider,
    Column::Mode,
    Column::InputPrompt,
    Column::Model,
    Column::BaseRef,
    Column::Branch,
    Column::AllowedPathsJson,
    Column::ConstraintsJson,
    Column::InstructionsJson,
    Column::ProviderSessionId,
    Column::AttemptId,
    Column::AttemptCount,
    Column::StartedAt,
];

/// The runs that meet a condition, which ends with the lock that it takes; one that cannot be read is an error by
/// itself.
pub(super) async fn lock(
    db: &impl ConnectionTrait,
    operation: &'static str,
    condition: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<Result<Held>>> {
    let statement = format!("SELECT *, clock_timestamp() AS clock FROM agent_runs WHERE {condition}");
    let rows = db.query_all_raw(storage::sql(statement, values)).await;
    let rows = rows.map_err(|error| unnamed(operation, &error))?;
    let held = |row: &sea_orm::QueryResult| {
        let columns =
            Model::from_query_result(row, "").and_then(|model| Ok((model, row.try_get("", "clock")?)));
        let (model, now) = columns.map_err(|error| unnamed(operation, &error))?;
        let tenant = Id::new(model.tenant_id);
        let run = read::<AgentRun>(operation, model)?;
        Ok(Held { tenant, found: run.status, run, now })
    };
    Ok(rows.iter().map(held).collect())
}

impl Held {
    fn signal(&mut self, operation: &'static str, signal: RunSignal) -> Result<()> {
        self.run.value.status = self.found.after(signal).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, operation, illegal.to_string()).with("run", self.run.id)
        })?;
        self.run.value.lease_expires_at = None;
        Ok(())
    }

    /// Ends the run; gives its last events.
    pub(super) fn close(&mut self, operation: &'static str, settlement: Settlement) -> Result<Batch> {
        self.signal(operation, settlement.outcome.signal())?;
        self.run.value.settle(&settlement);
        self.run.value.ended_at = Some(self.now);
        let closing = AgentEvent::status(self.run.status, None);
        Ok(Batch::of(settlement.events.into_iter().chain([closing])))
    }

    /// Queues the run again, or cancels it; gives the event that says so.
    pub(super) fn put_down(
        &mut self,
        operation: &'static str,
        signal: RunSignal,
        detail: Option<&str>,
    ) -> Result<Batch> {
        self.signal(operation, signal)?;
        if self.run.status.is_final() {
            self.run.value.stop_reason = Some((&Outcome::Cancelled).into());
            self.run.value.ended_at = Some(self.now);
        }
        Ok(Batch::of([AgentEvent::status(self.run.status, detail)]))
    }

    /// Writes the run and its events.
    ///
    /// - The state that it was found in is in the `WHERE`, and the new one is what the state machine made of it.
    pub(super) async fn save(
        mut self,
        db: &impl ConnectionTrait,
        operation: &'static str,
        events: Batch,
    ) -> Result<Stored<AgentRun>> {
        self.run.value.last_seq += events.len();
        let mut row = self.run.value.active();
        KEPT.iter().for_each(|column| row.not_set(*column));
        let saved = Entity::update_many()
            .set(row)
            .col_expr(Column::Version, Expr::col(Column::Version).add(1))
            .col_expr(Column::UpdatedAt, Expr::cust("clock_timestamp()"))
            .filter(Column::TenantId.eq(self.tenant.raw()))
            .filter(Column::Id.eq(self.run.id.raw()))
            .filter(Column::Status.eq(self.found.as_str()))
            .exec_with_returning(db)
            .await
            .map_err(|error| about::<AgentRun>(operation, Doing::Write, &error))?
            .pop();
        let saved = saved.ok_or_else(|| {
            let message = "the run changed its state under its lock";
            Error::new(ErrorKind::Unexpected, operation, message).with("run", self.run.id)
        })?;
        let saved = read::<AgentRun>(operation, saved)?;
        if events.len() > 0 {
            let logged = events.insert(db, self.tenant, &saved, saved.id).await;
            logged.map_err(|error| unnamed(operation, &error))?;
        }
        Ok(saved)
    }
}

/// Ends the attempt that held the run's last lease.
pub(super) async fn end_attempt(
    db: &impl ConnectionTrait,
    operation: &'static str,
    run: &Stored<AgentRun>,
    end: AttemptEnd,
    error: Option<&str>,
) -> Result<()> {
    let statement = "UPDATE run_attempts
         SET outcome = $3, error = $4, ended_at = clock_timestamp(), version = version + 1, updated_at = clock_timestamp()
         WHERE run_id = $1 AND id = $2 AND outcome IS NULL";
    let values = [run.id.raw().into(), run.attempt_id.map(Id::raw).into(), end.as_str().into(), error.into()];
    let ended = db.execute_raw(storage::sql(statement, values)).await;
    ended.map(|_| ()).map_err(|error| unnamed(operation, &error))
}
