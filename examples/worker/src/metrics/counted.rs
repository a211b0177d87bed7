//! A storage that counts what the engine does with it.
//!
//! The engine knows nothing of metrics, so all is counted at the ports that it calls. What is not counted is passed on
//! as it is.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assembly_lime::agents::InstructionLayer;
use assembly_lime::governance::{Approval, Decision};
use assembly_lime::identity::{Slug, Tenant, Tenants};
use assembly_lime::ports::{
    Admission, Approvals, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce, Claim, Claimant, EventLog,
    EventStream, Handback, InstructionSource, Question, Queue, QueueDepth, Record, Request, RunTarget,
    Settlement, Signals, Storage,
};
use assembly_lime::runs::{AgentRun, AttemptEnd, Lease, RunAttempt, RunEvent, RunInput, Seq};
use assembly_lime::{
    Editable, Entity, Error, ErrorKind, Id, Lookup, LookupExt, Page, Query, Result, Scope, Store, Stored,
};
use async_trait::async_trait;
use chrono::TimeDelta;
use tokio::time::Instant;

use super::Metrics;

/// A storage, and what is counted of it; clones count together.
#[derive(Clone)]
pub(crate) struct Counted(Arc<Shared>);

struct Shared {
    inner: Arc<dyn Storage>,
    metrics: Arc<Metrics>,
    /// Until when each lease holds that this worker has, as far as it knows.
    working: Mutex<HashMap<Lease, Instant>>,
    /// When the queue last answered a claim or a heartbeat.
    answered: Mutex<Option<Instant>>,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("metrics", &self.0.metrics).finish_non_exhaustive()
    }
}

impl Counted {
    pub(crate) fn new(inner: Arc<dyn Storage>, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { inner, metrics, working: Mutex::default(), answered: Mutex::default() }))
    }

    /// How long ago the queue last answered a claim or a heartbeat; none, if it never has.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    pub(super) fn inner(&self) -> &(dyn Storage + 'static) {
        &*self.0.inner
    }

    /// Counts what this worker is at, without what it has lost by the clock.
    fn count(&self, change: impl FnOnce(&mut HashMap<Lease, Instant>)) {
        let mut working = self.0.working.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut working);
        let now = Instant::now();
        working.retain(|_, until| *until > now);
        self.0.metrics.active.set(i64::try_from(working.len()).unwrap_or(i64::MAX));
    }

    fn heard(&self) {
        *self.0.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Counts attempts that have begun; their lease says when, on the database's clock.
    fn began(&self, claims: &[Claim], lease: Duration) {
        for claim in claims {
            let started = claim.expires_at - TimeDelta::from_std(lease).unwrap_or_default();
            self.0.metrics.began(claim, started);
            if claim.run.crash_count > 0 && claim.attempt_number > 1 {
                // Beside the attempt, whose lease must not wait for this.
                tokio::spawn(self.clone().count_rescue(claim.lease, claim.attempt_number - 1));
            }
        }
        let until = Instant::now() + lease;
        self.count(|working| working.extend(claims.iter().map(|claim| (claim.lease, until))));
    }

    /// Counts a run that was taken up, if the attempt before was lost with its worker.
    async fn count_rescue(self, lease: Lease, before: i32) {
        let before =
            Query::all().filter(RunAttempt::RUN_ID.eq(lease.run)).filter(RunAttempt::NUMBER.eq(before));
        let scope = Scope::system(lease.tenant, "counting rescued runs");
        if let Ok(Some(attempt)) = self.inner().find(&scope, before).await
            && attempt.outcome == Some(AttemptEnd::Lost)
        {
            self.0.metrics.rescues.inc();
        }
    }

    /// The attempt is over for this worker.
    fn over(&self, lease: &Lease) {
        self.count(|working| _ = working.remove(lease));
    }

    fn over_if_stale(&self, lease: &Lease, error: &Error) {
        if error.kind() == ErrorKind::StaleLease {
            self.over(lease);
        }
    }
}

#[async_trait]
impl Queue for Counted {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        self.inner().submit(scope, run).await
    }

    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>> {
        self.inner().submit_all(scope, runs).await
    }

    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>> {
        let leases = self.inner().take(claimant, max, lease).await?;
        self.heard();
        self.count(|_| ());
        Ok(leases)
    }

    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>> {
        let claims = self.inner().start(claimant, leases, lease).await?;
        self.heard();
        self.began(&claims, lease);
        Ok(claims)
    }

    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>> {
        let claims = self.inner().claim(claimant, max, lease).await?;
        self.heard();
        self.began(&claims, lease);
        Ok(claims)
    }

    async fn finish(&self, leases: &[Lease]) -> Result<usize> {
        self.inner().finish(leases).await
    }

    async fn sweep(&self) -> Result<usize> {
        self.inner().sweep().await
    }

    async fn reclaim(&self) -> Result<usize> {
        self.inner().reclaim().await
    }

    async fn queued(&self) {
        self.inner().queued().await;
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        match self.inner().heartbeat(lease, extend).await {
            Ok(signals) => {
                self.heard();
                let until = Instant::now() + extend;
                self.count(|working| _ = working.insert(*lease, until));
                Ok(signals)
            }
            Err(error) => {
                self.0.metrics.missed(error.kind());
                self.over_if_stale(lease, &error);
                Err(error)
            }
        }
    }

    async fn signalled(&self, lease: &Lease) {
        self.inner().signalled(lease).await;
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        match self.inner().settle(lease, settlement).await {
            Ok(run) => {
                self.over(lease);
                self.0.metrics.ended(&run);
                Ok(run)
            }
            Err(error) => {
                self.over_if_stale(lease, &error);
                Err(error)
            }
        }
    }

    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>> {
        let why = handback.why.clone();
        match self.inner().hand_back(lease, handback).await {
            Ok(run) => {
                self.over(lease);
                match run.status.is_final() {
                    // It was cancelled meanwhile.
                    true => self.0.metrics.ended(&run),
                    false => self.0.metrics.given_back(&why),
                }
                Ok(run)
            }
            Err(error) => {
                self.over_if_stale(lease, &error);
                Err(error)
            }
        }
    }

    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>> {
        self.inner().request(scope, run, request).await
    }

    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>> {
        self.inner().say(scope, run, text).await
    }

    async fn depth(&self) -> Result<QueueDepth> {
        self.inner().depth().await
    }
}

#[async_trait]
impl EventLog for Counted {
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        let recorded = self.inner().append(lease, record).await;
        let recorded = recorded.inspect_err(|error| self.over_if_stale(lease, error))?;
        self.0.metrics.events.inc_by(u64::try_from(recorded.len()).unwrap_or_default());
        Ok(recorded)
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        self.inner().read(scope, run, after, limit).await
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        self.inner().subscribe(scope, run, after)
    }
}

#[async_trait]
impl InstructionSource for Counted {
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>> {
        self.inner().layers(scope, target).await
    }
}

#[async_trait]
impl Approvals for Counted {
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        self.inner().ask(lease, question).await
    }

    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        self.inner().decide(scope, approval, decision, note).await
    }

    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>> {
        self.inner().answer(lease, approval).await
    }
}

#[async_trait]
impl Budgets for Counted {
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce> {
        self.inner().budgets_in_force(scope).await
    }

    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission> {
        let admission = self.inner().hold(lease, demands).await;
        admission.inspect_err(|error| self.over_if_stale(lease, error))
    }

    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>> {
        self.inner().standings(scope).await
    }
}

#[async_trait]
impl Tenants for Counted {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        self.inner().create_tenant(tenant).await
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        self.inner().limit_runs(tenant, most).await
    }

    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        self.inner().update_tenant(tenant).await
    }

    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()> {
        self.inner().delete_tenant(tenant).await
    }

    async fn seed_roles(&self) -> Result<usize> {
        self.inner().seed_roles().await
    }

    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>> {
        self.inner().tenant(tenant).await
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        self.inner().tenant_by_slug(slug).await
    }
}

#[async_trait]
impl<E: Entity> Lookup<E> for Counted
where
    dyn Storage: Lookup<E>,
{
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>> {
        Lookup::get(self.inner(), scope, id).await
    }

    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>> {
        self.inner().list(scope, query).await
    }
}

#[async_trait]
impl<E: Editable> Store<E> for Counted
where
    dyn Storage: Store<E>,
{
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>> {
        self.inner().insert(scope, value).await
    }

    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>> {
        self.inner().update(scope, stored).await
    }

    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()> {
        self.inner().delete(scope, stored).await
    }
}
