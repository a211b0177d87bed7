//! One attempt at a run, from the claim to the settlement.

mod agent;
mod checkout;
mod delivery;
mod dialogue;
mod earlier;
mod ending;
mod follow;
mod inputs;
mod purse;
mod push;
mod questions;
mod sync;
mod tools;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use lime_core::ports::{Claim, Settlement};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Lease, Outcome};
use lime_core::{Error, ErrorKind, Result};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::checkout::Checkout;
use self::delivery::Delivery;
use self::earlier::Earlier;
use self::ending::Ending;
use crate::asked::{Asked, Stop};
use crate::config::WorkerConfig;
use crate::factory::Parts;
use crate::heartbeat;
use crate::patience::persist;
use crate::recorder::Recorder;
use crate::shelf::Shelf;

/// The phases, by the keys of their steps.
const PREPARE: &str = "prepare";
const AGENT: &str = "agent";
const DELIVER: &str = "deliver";

/// How long an attempt may take to end once its lease is lost: for the end of its agent, and its checkout.
const LEAVE: Duration = Duration::from_secs(5);

/// What a step says that was stopped.
const BROKEN_OFF: &str = "stopped before it was done";

pub(crate) struct Attempt {
    parts: Arc<Parts>,
    config: Arc<WorkerConfig>,
    shelf: Arc<Shelf>,
    claim: Arc<Claim>,
    /// The worker shuts down; its runs may still end.
    draining: CancellationToken,
    asked: Asked,
    /// Held by the one run of this worker whose worker was lost before.
    suspects: Arc<Mutex<()>>,
}

impl Attempt {
    pub(crate) fn new(
        parts: Arc<Parts>,
        config: Arc<WorkerConfig>,
        shelf: Arc<Shelf>,
        claim: Claim,
        draining: CancellationToken,
        asked: Asked,
        suspects: Arc<Mutex<()>>,
    ) -> Self {
        Self { parts, config, shelf, claim: Arc::new(claim), draining, asked, suspects }
    }

    /// Works the run to its end, or as far as it may.
    pub(crate) async fn work(self) {
        let beat = heartbeat::beat(&*self.parts.storage, self.claim.lease, &self.config, self.asked.clone());
        let result = tokio::select! {
            result = Box::pin(self.live()) => result,
            () = async { beat.await; sleep(LEAVE).await } => {
                // It waits for a storage that does not answer, while its agent works on.
                tracing::error!("the lease is lost, and the attempt does not end by itself; it is broken off");
                return;
            }
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
        let (storage, clock) = (self.parts.storage.clone(), self.parts.clock.clone());
        let mut recorder = Recorder::new(storage, clock, self.claim.clone());
        let mut earlier = Earlier::default();
        let mut checkout = None;
        let ending = match self.phases(&mut recorder, &mut earlier, &mut checkout).await {
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
        if self.asked.stop() == Some(Stop::Lost) {
            self.clean_up(checkout, true).await;
            return Ok(());
        }
        self.end(&mut recorder, earlier, checkout, ending).await
    }

    async fn phases(
        &self,
        recorder: &mut Recorder,
        earlier: &mut Earlier,
        slot: &mut Option<Checkout>,
    ) -> Result<Ending> {
        let run = &self.claim.run;
        let Some(_turn) = self.turn_of_suspect(recorder).await? else {
            return Ok(Ending::of(Outcome::Cancelled));
        };
        *earlier = self.look_back(recorder).await?;
        let attempt = match self.claim.attempt_number {
            1 => String::new(),
            number => format!(" (attempt {number})"),
        };
        let hello =
            format!("{} starts to {} with {}{attempt}.", self.config.name.as_str(), run.mode, run.provider);
        if let Some(ending) = self.finish_earlier(recorder, earlier, &hello).await? {
            return Ok(ending);
        }
        recorder.enter(PREPARE);
        recorder.take(AgentEvent::system(hello)).await?;
        if !self.check_out(recorder, earlier, slot).await? {
            recorder.steps().fail(PREPARE, BROKEN_OFF);
            return Ok(Ending::of(Outcome::Cancelled));
        }
        let checkout = slot.as_ref().expect("it is filled when there is a checkout");
        let mut dialogue = Box::pin(self.dialogue(recorder, checkout, earlier)).await?;
        let mut done = earlier.done.take().filter(|_| checkout.adopted && dialogue.inputs.is_empty());
        loop {
            let mut ending = match done.take() {
                Some(done) => self.take_over(recorder, done).await?,
                None => Box::pin(self.agent(recorder, checkout, &mut dialogue)).await?,
            };
            if !ending.succeeded() || self.asked.stop() == Some(Stop::Lost) {
                return Ok(ending);
            }
            recorder.enter(DELIVER);
            match Box::pin(self.deliver(recorder, checkout, &mut dialogue, &mut ending)).await {
                Ok(Delivery::Done(result)) => {
                    recorder.steps().complete(DELIVER, result);
                    earlier.questions.append(&mut dialogue.questions.leftovers());
                    return Ok(ending);
                }
                Ok(Delivery::Refused(failure)) => {
                    recorder.steps().fail(DELIVER, &failure.message);
                    return Ok(Ending::of(Outcome::Failed(failure)));
                }
                Ok(Delivery::Stopped) => {
                    recorder.steps().fail(DELIVER, BROKEN_OFF);
                    return Ok(Ending::of(Outcome::Cancelled));
                }
                Ok(Delivery::Spoken) => {
                    recorder.steps().fail(DELIVER, "a person said something more first");
                    dialogue.go_on(self.worked(recorder).session_id, false);
                }
                Err(error) => {
                    recorder.steps().fail(DELIVER, error.message());
                    return Err(error);
                }
            }
        }
    }

    /// Waits until this worker works no other run whose worker was lost before; `None` if it has to stop meanwhile.
    ///
    /// - It says so before it begins: from then on, a worker that is lost with it counts.
    async fn turn_of_suspect(&self, recorder: &mut Recorder) -> Result<Option<Option<MutexGuard<'_, ()>>>> {
        if !self.claim.run.is_suspect() {
            return Ok(Some(None));
        }
        let turn = tokio::select! {
            turn = self.suspects.lock() => turn,
            _ = self.asked.stopped() => return Ok(None),
        };
        let text = "A worker was lost with this run before, so no other such run is worked beside it.";
        recorder.take(AgentEvent::Log { text: text.into() }).await?;
        recorder.flush().await?;
        Ok(Some(Some(turn)))
    }

    /// Settles a run whose attempt panicked, and said this.
    pub(crate) async fn settle_panic(parts: &Parts, lease: Lease, said: &str) {
        let said = format!("the attempt panicked: {said}");
        tracing::error!(run = %lease.run, "{said}");
        let failure = Failure::new(
            FailureKind::Internal,
            "A fault of the software stopped the run; its log says more.",
        );
        let events = vec![failure.clone().into_event(Some(said))];
        let settlement = Settlement { events, ..Settlement::new(Outcome::Failed(failure)) };
        if let Err(error) = persist(|| parts.storage.settle(&lease, settlement.clone())).await {
            tracing::error!(run = %lease.run, %error, "the run could not be settled; its lease will run out");
        }
    }
}

/// What a failed phase means for the run.
fn failure_kind(error: &Error) -> FailureKind {
    if error.is_retryable() {
        return FailureKind::Network;
    }
    match error.operation().split('.').next() {
        Some("git" | "repos" | "workspace" | "effect") => FailureKind::Workspace,
        _ => match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => FailureKind::InvalidRequest,
            _ => FailureKind::Internal,
        },
    }
}
