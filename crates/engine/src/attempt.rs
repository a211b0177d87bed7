//! One attempt at a run, from the claim to the settlement.

mod agent;
mod checkout;
mod delivery;

use std::sync::Arc;

use lime_core::ports::{Claim, Settlement};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Lease, Outcome};
use lime_core::{Error, ErrorKind, Result};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::config::{KeepWorktree, WorkerConfig};
use crate::factory::Parts;
use crate::heartbeat::{self, Stop, StopWish};
use crate::recorder::{Recorder, persist};
use crate::steps::Steps;

use self::checkout::Checkout;

pub(crate) struct Attempt {
    parts: Arc<Parts>,
    config: Arc<WorkerConfig>,
    claim: Claim,
    cancelled: CancellationToken,
    wish: StopWish,
}

/// How the work of an attempt ended, before it is settled.
struct Ending {
    outcome: Outcome,
    summary: Option<String>,
    events: Vec<AgentEvent>,
    /// For the server side only.
    stack: Option<String>,
}

impl Ending {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, summary: None, events: Vec::new(), stack: None }
    }
}

impl Attempt {
    pub(crate) fn new(
        parts: Arc<Parts>,
        config: Arc<WorkerConfig>,
        claim: Claim,
        cancelled: CancellationToken,
        wish: StopWish,
    ) -> Self {
        Self { parts, config, claim, cancelled, wish }
    }

    /// Works the run to its end, or as far as it may.
    pub(crate) async fn work(self) {
        let beat = heartbeat::beat(
            self.parts.storage.clone(),
            self.claim.lease,
            self.config.lease,
            self.config.heartbeat,
            self.cancelled.clone(),
            self.wish.clone(),
        );
        let result = tokio::select! {
            result = self.live() => result,
            never = async { beat.await; std::future::pending().await } => never,
        };
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StaleLease => {
                tracing::warn!(%error, "the run is no longer ours");
            }
            Err(error) => {
                tracing::error!(error = %error.report(), "the run could not be settled; its lease will run out");
            }
        }
    }

    async fn live(&self) -> Result<()> {
        let scope = self.claim.scope();
        let storage = self.parts.storage.clone();
        let steps =
            Steps::open(storage.clone(), self.parts.clock.clone(), scope, self.claim.lease.run).await?;
        let mut recorder = Recorder::new(storage, &self.claim, steps);
        let mut checkout = None;
        let ending = match self.phases(&mut recorder, &mut checkout).await {
            Ok(ending) => ending,
            Err(error) if error.kind() == ErrorKind::StaleLease => {
                self.clean_up(checkout, true).await;
                return Err(error);
            }
            Err(error) => Ending {
                stack: Some(error.report()),
                ..Ending::of(Outcome::Failed(Failure::new(failure_kind(&error), error.message())))
            },
        };
        match self.wish.asked() {
            Some(Stop::Lost) => {
                self.clean_up(checkout, true).await;
                return Ok(());
            }
            Some(Stop::HandBack) if !matches!(ending.outcome, Outcome::Succeeded { .. }) => {
                recorder.flush().await?;
                recorder.close_open_calls().await?;
                self.clean_up(checkout, true).await;
                return persist(|| self.parts.storage.release(&self.claim.lease)).await;
            }
            Some(Stop::HandBack | Stop::Cancel) | None => {}
        }
        self.settle(&mut recorder, checkout, ending).await
    }

    async fn phases(&self, recorder: &mut Recorder, slot: &mut Option<Checkout>) -> Result<Ending> {
        let run = &self.claim.run;
        let attempt = match self.claim.attempt_number {
            1 => String::new(),
            number => format!(" (attempt {number})"),
        };
        let hello =
            format!("{} starts to {} with {}{attempt}.", self.config.name.as_str(), run.mode, run.provider);
        recorder.take(AgentEvent::system(hello)).await?;
        recorder.flush().await?;

        let step = recorder.steps().begin("prepare").await?;
        let checkout = match self.prepare().await {
            Ok(Some(checkout)) => slot.insert(checkout),
            Ok(None) => {
                recorder.steps().fail(step, "stopped before it was done").await?;
                return Ok(Ending::of(Outcome::Cancelled));
            }
            Err(error) => {
                recorder.steps().fail(step, error.message()).await?;
                return Err(error);
            }
        };
        recorder.steps().complete(step, checkout.as_json()).await?;
        let ready =
            format!("Working on the branch {}, from {}.", checkout.workspace.branch, checkout.workspace.base);
        recorder.take(AgentEvent::Log { text: ready }).await?;

        let step = recorder.steps().begin("agent").await?;
        let mut ending = self.drive_agent(recorder, checkout).await?;
        recorder.flush().await?;
        recorder.close_open_calls().await?;
        let outcome = serde_json::json!({ "outcome": ending.outcome.as_str() });
        match &ending.outcome {
            Outcome::Failed(failure) => recorder.steps().fail(step, &failure.message).await?,
            Outcome::Succeeded { .. } | Outcome::Cancelled | Outcome::Limited(_) => {
                recorder.steps().complete(step, outcome).await?;
            }
        }
        if matches!(ending.outcome, Outcome::Succeeded { .. }) && self.wish.asked() != Some(Stop::Lost) {
            let step = recorder.steps().begin("deliver").await?;
            match self.deliver(checkout, &mut ending).await {
                Ok(result) => recorder.steps().complete(step, result).await?,
                Err(error) => {
                    if error.kind() != ErrorKind::StaleLease {
                        recorder.steps().fail(step, error.message()).await?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(ending)
    }

    async fn settle(
        &self,
        recorder: &mut Recorder,
        checkout: Option<Checkout>,
        ending: Ending,
    ) -> Result<()> {
        let Ending { outcome, summary, mut events, stack } = ending;
        let unfinished = !matches!(outcome, Outcome::Succeeded { .. });
        let kept = checkout.as_ref().map(|checkout| checkout.workspace.path.clone());
        let removed = match self.config.keep_worktrees {
            KeepWorktree::Never => true,
            KeepWorktree::Unfinished => !unfinished || !self.has_work(checkout.as_ref()).await,
            KeepWorktree::Always => false,
        };
        self.clean_up(checkout, removed).await;
        match &outcome {
            Outcome::Failed(failure) => {
                let stack = Some(stack.unwrap_or_else(|| failure.message.clone()));
                events.push(failure.clone().into_event(stack));
            }
            Outcome::Limited(limit) => {
                let message = format!("The agent was stopped at its limit of {limit}.");
                events.push(AgentEvent::Error { message, kind: None, stack });
            }
            Outcome::Cancelled => events.push(AgentEvent::system("Cancelled.")),
            Outcome::Succeeded { .. } => {}
        }
        if let (false, true, Some(path)) = (removed, unfinished, kept) {
            events.push(AgentEvent::system(format!("The checkout is kept in {}.", path.display())));
        }
        recorder.flush().await?;
        let settlement = Settlement {
            outcome,
            summary,
            usage: recorder.usage(),
            tool_calls: recorder.tallies(),
            artifacts: Vec::new(),
            events,
        };
        let storage = &self.parts.storage;
        let run = persist(|| storage.settle(&self.claim.lease, settlement.clone())).await?;
        tracing::info!(status = %run.status, "settled");
        Ok(())
    }

    /// Settles a run whose attempt panicked.
    pub(crate) async fn settle_panic(parts: &Parts, lease: Lease, error: &JoinError) {
        tracing::error!(run = %lease.run, %error, "an attempt panicked");
        let failure = Failure::new(
            FailureKind::Internal,
            "A fault of the software stopped the run; its log says more.",
        );
        let events = vec![failure.clone().into_event(Some(error.to_string()))];
        let settlement = Settlement { events, ..Settlement::new(Outcome::Failed(failure)) };
        if let Err(error) = persist(|| parts.storage.settle(&lease, settlement.clone())).await {
            tracing::error!(run = %lease.run, %error, "the run could not be settled; its lease will run out");
        }
    }
}

/// What a failed phase means for the run.
fn failure_kind(error: &Error) -> FailureKind {
    match error.operation().split('.').next() {
        Some("git" | "repos" | "workspace") => FailureKind::Workspace,
        _ => match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => FailureKind::InvalidRequest,
            ErrorKind::Unavailable | ErrorKind::Timeout => FailureKind::Network,
            _ => FailureKind::Internal,
        },
    }
}
