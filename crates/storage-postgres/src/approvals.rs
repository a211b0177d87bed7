//! Questions of runs to people: rows, which only the transaction that has locked the run's place in the line writes.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lime_core::governance::{Approval, ApprovalStatus, Decision, payload_hash};
use lime_core::identity::Tenant;
use lime_core::planning::Project;
use lime_core::ports::{Approvals, Question};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunAttempt, RunEvent, RunSignal, RunStatus, Seq};
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope, Stored, Topic};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use crate::connections::Transaction;
use crate::error::{Doing, about, unnamed};
use crate::events::{self, Batch, Place};
use crate::fence::{self, HELD, PLACES, key};
use crate::storage::{commit, span, sql};
use crate::store::read;
use crate::tables::approval::Model;
use crate::{PgStorage, nul};

#[async_trait]
impl Approvals for PgStorage {
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.ask";
        let (this, lease) = (self.clone(), *lease);
        let work = async move {
            let tx = this.begin_as(lease.tenant, OPERATION).await?;
            let mut asking = Asking::under(&tx, OPERATION, &lease).await?;
            let approval = asking.ask(&lease, question).await?;
            if approval.status == ApprovalStatus::Pending && asking.status == RunStatus::Running {
                asking.signal(RunSignal::AskApproval)?;
            }
            let events = asking.write().await?;
            commit(OPERATION, tx).await?;
            this.news().recorded(lease.run, &events);
            Ok(approval)
        };
        self.detached(OPERATION, span(OPERATION, lease.tenant, Approval::TABLE), work).await
    }

    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.decide";
        let (this, scope) = (self.clone(), scope.clone());
        let span = span(OPERATION, scope.tenant(), Approval::TABLE);
        let work = async move {
            let tx = this.begin_as(scope.tenant(), OPERATION).await?;
            fence::hold(&tx, &scope, OPERATION).await?;
            let run = find(&tx, OPERATION, scope.tenant(), approval, "").await?.0.run_id;
            let asking = Asking::of(&tx, OPERATION, scope.tenant(), run).await?;
            let (mut found, now) = find(&tx, OPERATION, scope.tenant(), approval, "FOR UPDATE").await?;
            found.check_decidable(OPERATION, &scope, now)?;
            let mut asking = asking.ok_or_else(|| {
                let message = "the run has ended, so nobody waits for the answer";
                Error::new(ErrorKind::Conflict, OPERATION, message).with("run", run)
            })?;
            found.value.note = note;
            found.validate().map_err(|invalid| invalid.refused(OPERATION, Approval::NAME))?;
            let status = match decision {
                Decision::Approve => ApprovalStatus::Approved,
                Decision::Deny => ApprovalStatus::Denied,
            };
            let decided = asking.decide(&found, status, scope.user().map(Id::raw)).await?;
            let events = asking.write().await?;
            commit(OPERATION, tx).await?;
            this.news().recorded(run, &events);
            this.news().wake(Topic::Signals(run));
            Ok(decided)
        };
        self.detached(OPERATION, span, work).await
    }

    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>> {
        const OPERATION: &str = "approvals.answer";
        let (this, lease) = (self.clone(), *lease);
        let work = async move {
            let tx = this.begin_as(lease.tenant, OPERATION).await?;
            let mut asking = Asking::under(&tx, OPERATION, &lease).await?;
            let (found, _) = find(&tx, OPERATION, lease.tenant, approval, "").await?;
            if found.run_id != lease.run {
                return Err(Error::not_found(OPERATION, Approval::NAME, approval).with("run", lease.run));
            }
            let expired = asking.expire().await?;
            if asking.status == RunStatus::WaitingApproval && !asking.is_open().await? {
                asking.signal(RunSignal::Answer)?;
            }
            let events = asking.write().await?;
            commit(OPERATION, tx).await?;
            this.news().recorded(lease.run, &events);
            Ok(expired.into_iter().find(|expired| expired.id == approval).unwrap_or(found))
        };
        self.detached(OPERATION, span(OPERATION, lease.tenant, Approval::TABLE), work).await
    }
}

/// A question, and the database's time.
async fn find(
    tx: &Transaction,
    operation: &'static str,
    tenant: Id<Tenant>,
    approval: Id<Approval>,
    lock: &str,
) -> Result<(Stored<Approval>, DateTime<Utc>)> {
    let statement = format!(
        "SELECT *, clock_timestamp() AS clock FROM approvals WHERE tenant_id = $1 AND id = $2 {lock}"
    );
    let row = tx.query_one_raw(sql(statement, [tenant.raw().into(), approval.raw().into()])).await;
    let row = row.map_err(|error| unnamed(operation, &error))?;
    let row = row.ok_or_else(|| Error::not_found(operation, Approval::NAME, approval))?;
    let columns = Model::from_query_result(&row, "").and_then(|model| Ok((model, row.try_get("", "clock")?)));
    let (model, clock) = columns.map_err(|error| unnamed(operation, &error))?;
    Ok((read(operation, model)?, clock))
}

/// A run that asks, its place in the line locked, and what its log will tell.
struct Asking<'a> {
    tx: &'a Transaction,
    operation: &'static str,
    /// Where its place is.
    table: &'static str,
    tenant: Id<Tenant>,
    run: Id<AgentRun>,
    project: Id<Project>,
    attempt: Option<Id<RunAttempt>>,
    last_seq: Seq,
    /// The state that it was found in.
    found: RunStatus,
    status: RunStatus,
    /// The database's time, once it was locked.
    now: DateTime<Utc>,
    events: Vec<AgentEvent>,
}

#[derive(FromQueryResult)]
struct Columns {
    tenant_id: i64,
    run_id: i64,
    project_id: i64,
    attempt_id: Option<i64>,
    last_seq: Seq,
    status: String,
    clock: DateTime<Utc>,
}

impl<'a> Asking<'a> {
    /// The run of a lease that holds.
    async fn under(tx: &'a Transaction, operation: &'static str, lease: &Lease) -> Result<Self> {
        let condition = format!("place.tenant_id = $1 AND place.run_id = $2 AND place.token = $3 AND {HELD}");
        let held = Self::lock(tx, operation, "run_leases", &condition, key(lease, [])).await?;
        held.ok_or_else(|| Error::stale_lease(operation, lease))
    }

    /// A run that has not ended, whoever works it.
    async fn of(
        tx: &'a Transaction,
        operation: &'static str,
        tenant: Id<Tenant>,
        run: Id<AgentRun>,
    ) -> Result<Option<Self>> {
        let condition = "place.tenant_id = $1 AND place.run_id = $2";
        for table in PLACES {
            let values = [tenant.raw().into(), run.raw().into()];
            if let Some(found) = Self::lock(tx, operation, table, condition, values).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The place first and then the run, as everybody does.
    async fn lock(
        tx: &'a Transaction,
        operation: &'static str,
        table: &'static str,
        condition: &str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Option<Self>> {
        let statement = format!(
            "SELECT place.tenant_id, place.run_id, place.project_id, place.last_seq, run.attempt_id, run.status,
                    clock_timestamp() AS clock
             FROM {table} AS place JOIN agent_runs AS run ON run.id = place.run_id
             WHERE {condition} FOR UPDATE OF place FOR NO KEY UPDATE OF run"
        );
        let row =
            tx.query_one_raw(sql(statement, values)).await.map_err(|error| unnamed(operation, &error))?;
        let Some(row) = row else { return Ok(None) };
        let columns = Columns::from_query_result(&row, "").map_err(|error| unnamed(operation, &error))?;
        let status = RunStatus::parse(&columns.status).map_err(|invalid| {
            Error::new(ErrorKind::Corrupt, operation, format!("a stored run cannot be read: {invalid}"))
        })?;
        Ok(Some(Self {
            tx,
            operation,
            table,
            tenant: Id::new(columns.tenant_id),
            run: Id::new(columns.run_id),
            project: Id::new(columns.project_id),
            attempt: columns.attempt_id.map(Id::new),
            last_seq: columns.last_seq,
            found: status,
            status,
            now: columns.clock,
            events: Vec::new(),
        }))
    }

    fn signal(&mut self, signal: RunSignal) -> Result<()> {
        self.status = self.status.after(signal).map_err(|illegal| {
            Error::new(ErrorKind::Conflict, self.operation, illegal.to_string()).with("run", self.run)
        })?;
        self.events.push(AgentEvent::status(self.status, None));
        Ok(())
    }

    /// The questions that a statement on `approvals` gives back.
    async fn approvals(
        &self,
        statement: impl Into<String>,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<Stored<Approval>>> {
        let rows = self.tx.query_all_raw(sql(statement, values)).await;
        let rows = rows.map_err(|error| about::<Approval>(self.operation, Doing::Write, &error))?;
        let model = |row| Model::from_query_result(row, "").map_err(|error| unnamed(self.operation, &error));
        rows.iter().map(|row| read(self.operation, model(row)?)).collect()
    }

    /// The same question as before, or a new one.
    async fn ask(&mut self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        const SAME: &str = "SELECT * FROM approvals
            WHERE tenant_id = $1 AND run_id = $2 AND scope = $3 AND action = $4 AND payload_hash = $5";
        const VOID: &str = "UPDATE approvals
            SET status = 'void', version = version + 1, updated_at = $5
            WHERE tenant_id = $1 AND run_id = $2 AND scope = $3 AND action = $4 AND status = 'pending' RETURNING *";
        // A void one is asked anew: what it was about is so again.
        const ASK: &str = "INSERT INTO approvals (tenant_id, run_id, scope, action, payload_hash, project_id, attempt_id,
                intent_summary, payload_json, status, approvers, expires_at, on_expiry)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11, $12)
            ON CONFLICT (tenant_id, run_id, scope, action, payload_hash) DO UPDATE SET
                attempt_id = excluded.attempt_id, intent_summary = excluded.intent_summary,
                payload_json = excluded.payload_json, status = excluded.status, approvers = excluded.approvers,
                expires_at = excluded.expires_at, on_expiry = excluded.on_expiry, decided_at = NULL,
                decided_by = NULL, note = NULL, version = approvals.version + 1, updated_at = clock_timestamp()
            RETURNING *";
        let hash = payload_hash(&question.payload);
        let about = |last: Value| -> [Value; 5] {
            let (scope, action) = (question.scope.as_str(), question.action.as_str());
            [self.tenant.raw().into(), self.run.raw().into(), scope.into(), action.into(), last]
        };
        let (same, void) = (about(hash.into()), about(self.now.into()));
        let known = self.approvals(SAME, same.clone()).await?.pop();
        if let Some(known) = known.filter(|known| known.status != ApprovalStatus::Void) {
            return Ok(known);
        }
        let call_id = question.call_id.clone();
        let approval = question.into_approval(self.project, lease, self.now);
        approval.validate().map_err(|invalid| invalid.refused(self.operation, Approval::NAME))?;
        for void in self.approvals(VOID, void).await? {
            self.events.push(void.event(None));
        }
        let approvers: Vec<i64> = approval.approvers.iter().map(|user| user.raw()).collect();
        let more: [Value; 7] = [
            self.project.raw().into(),
            approval.attempt_id.map(Id::raw).into(),
            approval.intent_summary.into(),
            nul::json(approval.payload).into(),
            approvers.into(),
            approval.expires_at.into(),
            approval.on_expiry.as_str().into(),
        ];
        let asked = self.approvals(ASK, same.into_iter().chain(more)).await?.pop();
        let asked = asked.ok_or_else(|| {
            Error::new(
                ErrorKind::Unexpected,
                self.operation,
                "the question was stored, and did not come back",
            )
        })?;
        self.events.push(asked.event(call_id));
        Ok(asked)
    }

    /// Writes an answer, if nobody was quicker and it is not too late.
    async fn decide(
        &mut self,
        approval: &Stored<Approval>,
        status: ApprovalStatus,
        decided_by: Option<i64>,
    ) -> Result<Stored<Approval>> {
        const DECIDE: &str = "UPDATE approvals
            SET status = $3, decided_at = clock_timestamp(), decided_by = $4, note = $5, version = version + 1,
                updated_at = clock_timestamp()
            WHERE tenant_id = $1 AND id = $2 AND status = 'pending' AND expires_at > clock_timestamp() RETURNING *";
        let values = [
            self.tenant.raw().into(),
            approval.id.raw().into(),
            status.as_str().into(),
            decided_by.into(),
            approval.note.clone().into(),
        ];
        let decided = self.approvals(DECIDE, values).await?.pop().ok_or_else(|| {
            let message = "the question's time is up; the run was told the default answer";
            Error::new(ErrorKind::Conflict, self.operation, message)
        })?;
        self.events.push(decided.event(None));
        Ok(decided)
    }

    /// Gives the run's questions their default answers whose time is up.
    async fn expire(&mut self) -> Result<Vec<Stored<Approval>>> {
        const EXPIRE: &str = "UPDATE approvals
            SET status = CASE on_expiry WHEN 'approve' THEN 'defaulted' ELSE 'expired' END,
                decided_at = clock_timestamp(), version = version + 1, updated_at = clock_timestamp()
            WHERE tenant_id = $1 AND run_id = $2 AND status = 'pending' AND expires_at <= clock_timestamp()
            RETURNING *";
        let expired = self.approvals(EXPIRE, [self.tenant.raw().into(), self.run.raw().into()]).await?;
        self.events.extend(expired.iter().map(|expired| expired.event(None)));
        Ok(expired)
    }

    /// Whether a question of the run has no answer yet.
    async fn is_open(&self) -> Result<bool> {
        let open =
            "SELECT 1 FROM approvals WHERE tenant_id = $1 AND run_id = $2 AND status = 'pending' LIMIT 1";
        let row = self.tx.query_one_raw(sql(open, [self.tenant.raw().into(), self.run.raw().into()])).await;
        row.map(|row| row.is_some()).map_err(|error| unnamed(self.operation, &error))
    }

    /// Writes what its log tells, and its state if that has changed.
    async fn write(self) -> Result<Vec<RunEvent>> {
        if self.events.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch::of(self.events);
        let values = [
            self.tenant.raw().into(),
            self.run.raw().into(),
            (self.last_seq + batch.len()).into(),
            self.found.as_str().into(),
            self.status.as_str().into(),
        ];
        let write = format!(
            "WITH counted AS (
                 UPDATE {} SET last_seq = $3 WHERE tenant_id = $1 AND run_id = $2
             )
             UPDATE agent_runs
             SET status = $5, last_seq = $3, version = version + 1, updated_at = clock_timestamp()
             WHERE tenant_id = $1 AND id = $2 AND status = $4 AND status <> $5",
            self.table
        );
        let written = self.tx.execute_raw(sql(write, values)).await;
        written.map_err(|error| unnamed(self.operation, &error))?;
        let attempt = self.attempt.map(Id::raw);
        let place = Place { tenant: self.tenant, run: self.run, attempt, after: self.last_seq };
        let recorded = events::record(self.tx, vec![(place, batch)]).await;
        let recorded = recorded.map_err(|error| unnamed(self.operation, &error))?;
        Ok(recorded.into_iter().flat_map(|(_, events)| events).collect())
    }
}
