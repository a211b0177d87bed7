use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::agents::ResolvedInstructions;
use crate::runs::{AgentEvent, AgentRun, Lease, Outcome, ProviderId, RunArtifact, ToolTally, Usage};
use crate::{Id, Invalid, Result, Scope, Stored};

/// The name that a worker gives itself, for operators: 1 to 200 characters, best with host and process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerName(String);

impl WorkerName {
    /// Checks the name.
    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        Invalid::text("worker", &name, 1, 200)?;
        Invalid::no_nul("worker", &name)?;
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Hands runs to workers, and is the only one to change their state.
///
/// - Times are the database's: a worker whose clock is wrong loses nothing.
/// - Every change of state appends its [`AgentEvent::Status`] to the run's log in the same transaction.
/// - A state is changed only from one in which [`RunStatus::after`](crate::runs::RunStatus::after) allows it.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores a run and queues it, in one transaction.
    ///
    /// - It starts as [`AgentRun::queued`], with event 1 saying so.
    /// - Fails as an insert does: `Invalid` for a broken rule or a reference to what is not there.
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>>;

    /// Leases up to `max` runs to a worker, those waiting longest first, of any tenant.
    ///
    /// - Only runs of the claimant's providers; those of others wait on for somebody who has them.
    /// - No run is leased twice at once. Each claim is a new attempt with the next number.
    /// - A running run whose lease ran out is queued again first, its attempt marked lost; after
    ///   [`AgentRun::MAX_CRASHES`] of them it fails instead, with `worker_lost` and an error event.
    /// - Gives back an empty list when nothing waits; never blocks for work.
    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>>;

    /// Shows a sign of life and extends the lease to `lease` from now.
    ///
    /// - Tells what was asked of the run meanwhile.
    /// - Fails with [`StaleLease`](crate::ErrorKind::StaleLease) once the lease is lost, even if nobody else has
    ///   taken the run yet, or the run has ended.
    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals>;

    /// Keeps what is known about a run so far.
    ///
    /// - Only what is given is changed. Usage is this attempt's total, and replaces the one before; the run's own
    ///   usage is settled at the end.
    /// - Fails with `StaleLease` as `heartbeat` does.
    async fn progress(&self, lease: &Lease, progress: Progress) -> Result<()>;

    /// Ends a run, in one transaction with its last events.
    ///
    /// - Writes the end into the run by [`AgentRun::settle`]; ends the attempt; appends the settlement's events and
    ///   then the final status event.
    /// - Fails with `StaleLease`, and changes nothing, once the lease is lost or the run has ended: settling twice
    ///   counts once.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>>;

    /// Gives a run back, to be claimed again at once; the attempt is marked released, and is not a crash.
    ///
    /// - A run that was asked to be cancelled meanwhile is cancelled instead.
    /// - Fails with `StaleLease` as `settle` does.
    async fn release(&self, lease: &Lease) -> Result<()>;

    /// Asks for a run to be cancelled.
    ///
    /// - One that nobody works is cancelled at once; a running one learns of it by its heartbeat.
    /// - Asking again changes nothing, and a run that has ended stays as it is: both give back the run.
    /// - Fails with `NotFound`.
    async fn request_cancel(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>>;
}

/// Who claims runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The worker.
    pub worker: WorkerName,
    /// The providers whose runs it can work.
    pub providers: Vec<ProviderId>,
}

/// A run that a worker has leased.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The right to work it.
    pub lease: Lease,
    /// The run, as it is now.
    pub run: Stored<AgentRun>,
    /// The number of the attempt, from 1.
    pub attempt_number: i32,
    /// When the lease ends, on the database's clock.
    pub expires_at: DateTime<Utc>,
}

impl Claim {
    /// The scope of everything that the attempt does: the tenant's, fenced by the lease.
    pub fn scope(&self) -> Scope {
        Scope::system(self.lease.tenant, "working a run").fenced(self.lease)
    }
}

/// What was asked of a run since the last sign of life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// It shall be cancelled.
    pub cancel: bool,
}

/// What is known about a run so far; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The provider's id of its session.
    pub provider_session_id: Option<String>,
    /// What its agent was told.
    pub instructions: Option<ResolvedInstructions>,
    /// The branch that its work goes to.
    pub branch: Option<String>,
    /// The model that works it.
    pub model: Option<String>,
}

/// How a run ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// Success, failure, cancellation or a limit; the state and the stop reason follow from it.
    pub outcome: Outcome,
    /// The summary, if it is not the outcome's own.
    pub summary: Option<String>,
    /// What the attempt used.
    pub usage: Usage,
    /// How often it called which tool.
    pub tool_calls: Vec<ToolTally>,
    /// What it made.
    pub artifacts: Vec<RunArtifact>,
    /// Its last events.
    pub events: Vec<AgentEvent>,
}

impl Settlement {
    /// An end with nothing to add: no summary of its own, no usage, no events.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            summary: None,
            usage: Usage::default(),
            tool_calls: Vec::new(),
            artifacts: Vec::new(),
            events: Vec::new(),
        }
    }
}
