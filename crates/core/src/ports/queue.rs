use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::runs::{
    AgentEvent, AgentRun, Failure, Lease, Outcome, ProviderId, RunArtifact, RunInput, ToolTally, Usage,
};
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

/// The line of runs that wait for workers, and the life of those that are worked.
///
/// - It is the only one to change a run's state. Every change appends its [`AgentEvent::Status`] to the run's log in
///   the same transaction, and is made only from a state in which
///   [`RunStatus::after`](crate::runs::RunStatus::after) allows it.
/// - Times are the store's own: a worker whose clock is wrong loses nothing.
/// - A run has its place in the line from its submission to its end, so none can be lost: it waits, is held by one
///   worker's lease, or is paused.
/// - Nothing is held open while a run is worked: no transaction, no lock, no connection.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Queue: Send + Sync {
    /// Stores a run and queues it, in one transaction.
    ///
    /// - It starts as [`AgentRun::queued`], with event 1 saying so.
    /// - Where a run of the tenant with the same [`unique_key`](AgentRun::unique_key) has not ended, nothing is stored,
    ///   and that run is given back as it is.
    /// - Fails as an insert does: `Invalid` for a broken rule or a reference to what is not there.
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>>;

    /// Stores and queues many runs in one transaction, all or none; gives them in the same order.
    ///
    /// - Each as [`submit`](Queue::submit) does; two of the list with the same unique key are one run.
    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>>;

    /// Takes up to `max` runs out of the line, of any tenant, each under a lease that no attempt has begun yet.
    ///
    /// - Only runs of the claimant's providers, whose time has come. No run is taken twice at once.
    /// - Fair: of the tenants with runs in the line, the one with the fewest at work comes first, so that one with many
    ///   does not starve one with few. Within a tenant, the greater priority comes first, then the project with the
    ///   fewest at work, then the run that was submitted first.
    /// - Never more at once than a tenant's
    ///   [`max_concurrent_runs`](crate::identity::Tenant::max_concurrent_runs), than a project's
    ///   [`max_concurrent_agents`](crate::planning::Project::max_concurrent_agents), or than one of an agent.
    /// - A lease that runs out puts its run back first. Where an attempt had begun, that is a crash: the attempt is
    ///   marked lost, and after [`AgentRun::MAX_CRASHES`] of them the run fails instead, with `worker_lost` and an
    ///   error event. What counts as one is [`AgentRun::lose_worker`]'s to say.
    /// - May be forgotten in a power cut, which only puts the run back.
    /// - Gives back an empty list when nothing waits; never blocks for work.
    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>>;

    /// Begins the attempts of leases that were taken, and gives what there is to work.
    ///
    /// - Each is a new attempt with the next number, and extends its lease to `lease` from now.
    /// - A lease that has run out, or whose run was cancelled or paused meanwhile, is left out of the answer.
    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>>;

    /// Takes up to `max` runs and begins their attempts.
    async fn claim(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Claim>> {
        let leases = self.take(claimant, max, lease).await?;
        if leases.is_empty() { Ok(Vec::new()) } else { self.start(claimant, &leases, lease).await }
    }

    /// Takes the places of leases out of the line, whose attempts have not begun; gives how many there were.
    ///
    /// - For a run that needs no worker after all. It does not end the run: one that is still queued is given a new
    ///   place by the next [`sweep`](Queue::sweep).
    async fn finish(&self, leases: &[Lease]) -> Result<usize>;

    /// Gives every queued run its place in the line that has none; gives how many there were.
    ///
    /// - There are none unless somebody [finished](Queue::finish) or repaired by hand. Call it every few minutes.
    async fn sweep(&self) -> Result<usize>;

    /// Takes back what workers held whose leases have run out, as [`take`](Queue::take) does first; gives how many runs.
    ///
    /// - For whoever has no room to take: what lost workers hold, money among it, is free again all the same. Call it once
    ///   in the time of a lease. It may leave some for the next call.
    async fn reclaim(&self) -> Result<usize>;

    /// Waits until there may be something to take; a wake-up may come for nothing, or never: look from time to time.
    ///
    /// - Safe to cancel. What was queued since the last call of this kind may have been missed: look after calling.
    async fn queued(&self);

    /// Shows a sign of life and extends the lease to `extend` from now.
    ///
    /// - Tells what was asked of the run meanwhile.
    /// - Fails with [`StaleLease`](crate::ErrorKind::StaleLease) once the lease is lost, even if nobody else has
    ///   taken the run yet, or the run has ended.
    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals>;

    /// Waits until something may have been asked of a run; a wake-up may come for nothing, or never: the heartbeat tells.
    ///
    /// - Safe to cancel.
    async fn signalled(&self, lease: &Lease);

    /// Ends a run, in one transaction with its last events.
    ///
    /// - Writes the end into the run by [`AgentRun::settle`]; ends the attempt; appends the settlement's events and
    ///   then the final status event. Questions to people that are still open become void.
    /// - Fails with `StaleLease`, and changes nothing, once the lease is lost or the run has ended: settling twice
    ///   counts once.
    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>>;

    /// Gives a run back without ending it, in one transaction with its last events; what was used is kept.
    ///
    /// - The run is queued again, at once or later, as [`Handback::why`] says; it is paused instead if that was asked
    ///   for, and cancelled if that was.
    /// - The attempt is marked released, or failed; it is never a crash.
    /// - Fails with `StaleLease` as `settle` does.
    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>>;

    /// Asks something of a run, and gives it as it is then.
    ///
    /// - `Cancel`: one that nobody works is cancelled at once; a running one learns of it by its heartbeat.
    /// - `Pause`: one that nobody works is paused at once; a running one learns of it, and is handed back.
    /// - `Resume`: a paused one is queued; a pause that was asked for and has not happened yet is taken back.
    /// - `Requeue`: one that failed is queued again, with its crashes and failures forgiven.
    /// - Asking for what is so already changes nothing. Cancelling one that has ended changes nothing either; anything
    ///   else that its state does not allow fails with [`Conflict`](crate::ErrorKind::Conflict).
    /// - `Requeue` fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) while another run has its unique key.
    /// - Fails with `NotFound`.
    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>>;

    /// Says something to the agent of a run: at once if it works, else when it next does.
    ///
    /// - Fails with `Conflict` if the run has ended, with `Invalid` for a text that [`RunInput`] does not allow, with
    ///   `NotFound`.
    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>>;

    /// What the line looks like now, of all tenants: for operators and metrics.
    async fn depth(&self) -> Result<QueueDepth>;
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
    /// When the lease ends, on the store's clock.
    pub expires_at: DateTime<Utc>,
}

impl Claim {
    /// The scope of everything that the attempt does: the tenant's, fenced by the lease.
    pub fn scope(&self) -> Scope {
        Scope::system(self.lease.tenant, "working a run").fenced(self.lease)
    }
}

/// What was asked of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// It shall be cancelled.
    pub cancel: bool,
    /// It shall be paused.
    pub pause: bool,
    /// How many inputs of people it was given so far, delivered or not.
    pub inputs: i32,
}

/// What can be asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To end without having succeeded.
    Cancel,
    /// To stop, and keep what there is.
    Pause,
    /// To go on after a pause.
    Resume,
    /// To be tried again after it has failed.
    Requeue,
}

/// How many runs are where in the line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Wait for a worker.
    pub ready: u64,
    /// Wait for their time.
    pub scheduled: u64,
    /// Are held by a lease.
    pub leased: u64,
    /// Are paused.
    pub paused: u64,
    /// How long the one that waits longest has been ready, in milliseconds.
    pub oldest_ready_ms: u64,
}

/// Why and with what a run is given back.
#[derive(Debug, Clone, PartialEq)]
pub struct Handback {
    /// Why.
    pub why: HandbackReason,
    /// What the attempt used.
    pub usage: Usage,
    /// How often it called which tool.
    pub tool_calls: Vec<ToolTally>,
    /// Its last events.
    pub events: Vec<AgentEvent>,
}

/// Why a run is given back.
#[derive(Debug, Clone, PartialEq)]
pub enum HandbackReason {
    /// The worker stops, or the run shall be paused.
    Released,
    /// It failed in a way that may pass: it is tried again after the pause, and not before
    /// [`Failure::retry_at`], as far as that is within a day.
    Retry {
        /// What happened.
        failure: Failure,
        /// How long to wait.
        pause: Duration,
    },
}

impl Handback {
    /// A run given back with nothing to add.
    pub fn released() -> Self {
        Self {
            why: HandbackReason::Released,
            usage: Usage::default(),
            tool_calls: Vec::new(),
            events: Vec::new(),
        }
    }
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
