//! Writes down what an agent does, in order and in batches.

mod calls;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use lime_core::ports::{Claim, Clock, Progress, Record, Storage};
use lime_core::runs::{AgentEvent, Lease, MessageRole, Seq, ToolTally, Usage};
use lime_core::{Error, Result};
use tokio::time::{Instant, sleep_until};

use self::calls::Calls;
use crate::patience::Patience;
use crate::steps::Steps;

/// How long an event waits for others before it is written.
const BATCH_DELAY: Duration = Duration::from_millis(40);
/// How many events are written at once at most.
const BATCH_EVENTS: usize = 128;
/// How much text they may have together before they are written.
const BATCH_BYTES: usize = 1 << 20;

/// Writes the events of one attempt, and what follows from them: steps, tool calls, turns, session, usage.
///
/// - All of it that is known at a time is one record.
pub(crate) struct Recorder {
    storage: Arc<dyn Storage>,
    claim: Arc<Claim>,
    steps: Steps,
    step: Option<&'static str>,
    events: Vec<AgentEvent>,
    events_step: Option<&'static str>,
    bytes: usize,
    progress: Progress,
    calls: Calls,
    due: Option<Instant>,
    last_seq: Seq,
    meter: Meter,
    model: Option<String>,
    /// What went wrong while nobody could be told.
    fault: Option<Error>,
}

/// What the sessions of one attempt have used.
#[derive(Debug, Default)]
struct Meter {
    /// By sessions that have ended.
    before: Usage,
    /// By the session that runs, as it says.
    session: Usage,
    /// How much of that is in the steps of turns.
    in_turns: Usage,
}

impl Recorder {
    pub(crate) fn new(storage: Arc<dyn Storage>, clock: Arc<dyn Clock>, claim: Arc<Claim>) -> Self {
        Self {
            storage,
            steps: Steps::new(claim.lease.run, clock),
            last_seq: claim.run.last_seq,
            calls: Calls::new(claim.clone()),
            claim,
            step: None,
            events: Vec::new(),
            events_step: None,
            bytes: 0,
            progress: Progress::default(),
            due: None,
            meter: Meter::default(),
            model: None,
            fault: None,
        }
    }

    /// What is known of the steps.
    pub(crate) fn known_steps(&self) -> &Steps {
        &self.steps
    }

    /// The steps, to change them; written with the next batch.
    pub(crate) fn steps(&mut self) -> &mut Steps {
        self.due.get_or_insert_with(|| Instant::now() + BATCH_DELAY);
        &mut self.steps
    }

    /// A phase begins; the events from now on belong to it.
    pub(crate) fn enter(&mut self, step: &'static str) {
        self.step = Some(step);
        self.steps().begin(step);
    }

    /// What the agent has used in this attempt so far.
    pub(crate) fn usage(&self) -> Usage {
        self.meter.before.plus(self.meter.session)
    }

    /// What the running session has used so far, as it says.
    pub(crate) fn session_usage(&self) -> Usage {
        self.meter.session
    }

    /// A session has ended, and another may begin, which counts anew.
    pub(crate) fn end_session(&mut self) {
        self.meter = Meter { before: self.usage(), ..Meter::default() };
    }

    /// The model, as the agent says.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    pub(crate) fn tallies(&self) -> &[ToolTally] {
        self.calls.tallies()
    }

    /// When what is pending is to be written; `None` if nothing is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What is known about the run; written with the next batch.
    pub(crate) fn progress(&mut self, progress: Progress) {
        let Progress { provider_session_id, instructions, branch, model } = progress;
        let known = &mut self.progress;
        known.provider_session_id = provider_session_id.or(known.provider_session_id.take());
        known.instructions = instructions.or(known.instructions.take());
        known.branch = branch.or(known.branch.take());
        known.model = model.or(known.model.take());
        self.due.get_or_insert_with(|| Instant::now() + BATCH_DELAY);
    }

    /// Takes an event; it is written with the next batch.
    ///
    /// - Pieces of a message that follow each other become one.
    pub(crate) async fn take(&mut self, event: AgentEvent) -> Result<()> {
        // Here and not only in the log, since tool calls are made of it too.
        let event = event.bounded();
        if !self.events.is_empty() && self.events_step != self.step {
            self.flush().await?;
        }
        self.bytes += event.text_bytes();
        if let (AgentEvent::Delta { text: more }, Some(AgentEvent::Delta { text })) =
            (&event, self.events.last_mut())
        {
            text.push_str(more);
        } else {
            self.follow_up(&event).await?;
            self.events_step = self.step;
            self.events.push(event);
            self.due.get_or_insert_with(|| Instant::now() + BATCH_DELAY);
        }
        let full = self.events.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES;
        if full { self.flush().await } else { Ok(()) }
    }

    /// Writes what is pending once it has waited long enough.
    pub(crate) async fn flush_if_due(&mut self, now: Instant) -> Result<()> {
        if self.due.is_some_and(|due| due <= now) { self.flush().await } else { Ok(()) }
    }

    /// Writes what is pending.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.due = None;
        self.bytes = 0;
        let record = Record {
            step: if self.events.is_empty() { self.step } else { self.events_step }.map(str::to_owned),
            events: std::mem::take(&mut self.events),
            steps: if self.steps.has_changed() { self.steps.take_changed() } else { Vec::new() },
            tool_calls: self.calls.take_changed(),
            progress: std::mem::take(&mut self.progress),
        };
        if record.is_empty() { Ok(()) } else { self.append(record).await }
    }

    /// Works on, and writes what is pending in the meantime; the next write tells of a fault.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let Some(due) = self.due.filter(|_| self.fault.is_none()) else { return work.await };
            tokio::select! {
                done = &mut work => return done,
                () = sleep_until(due) => {}
            }
            // Side by side: what the work has, such as a connection, may be what the write waits for.
            let (flushed, done) = match select(pin!(self.flush()), work.as_mut()).await {
                Either::Left((flushed, _)) => (flushed, None),
                Either::Right((done, flush)) => (flush.await, Some(done)),
            };
            self.fault = flushed.err();
            if let Some(done) = done {
                return done;
            }
        }
    }

    /// Appends a record once, even where it is not known whether the first try did.
    async fn append(&mut self, record: Record) -> Result<()> {
        let lease = self.claim.lease;
        let lasting = record.events.iter().any(|event| !event.is_ephemeral());
        let mut patience = None;
        loop {
            let error = match self.storage.append(&lease, record.clone()).await {
                Ok(recorded) => {
                    self.last_seq = recorded.last().map_or(self.last_seq, |event| event.seq);
                    return Ok(());
                }
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            tracing::warn!(%error, "the storage does not answer; trying again");
            loop {
                if !patience.get_or_insert_with(Patience::new).wait().await {
                    return Err(error);
                }
                match if lasting { self.find_appended(&lease, &record).await } else { Ok(None) } {
                    Ok(Some(seq)) => {
                        self.last_seq = seq;
                        return Ok(());
                    }
                    Ok(None) => break,
                    Err(error) if error.is_retryable() => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The last position that this attempt has written since it last knew; `None` if it has written nothing.
    ///
    /// - While the lease holds, only states, questions and words of the factory on budgets are written by anybody else.
    async fn find_appended(&self, lease: &Lease, record: &Record) -> Result<Option<Seq>> {
        let limit = 4 * BATCH_EVENTS;
        let found = self.storage.read(&self.claim.scope(), lease.run, self.last_seq, limit).await?;
        let own = |event: &AgentEvent| match event {
            AgentEvent::Status { .. } | AgentEvent::Approval { .. } => false,
            AgentEvent::Message { role: MessageRole::System, .. } => record.events.contains(event),
            _ => true,
        };
        Ok(found.iter().rfind(|recorded| own(&recorded.event)).map(|recorded| recorded.seq))
    }

    async fn follow_up(&mut self, event: &AgentEvent) -> Result<()> {
        match event {
            AgentEvent::Tool { .. } => {
                let turn = self.usage().turns.saturating_add(1);
                self.calls.take(&*self.storage, event, turn).await
            }
            AgentEvent::Session { session_id, model } => {
                self.model.clone_from(model);
                self.progress(Progress {
                    provider_session_id: Some(session_id.clone()),
                    model: model.clone(),
                    ..Progress::default()
                });
                Ok(())
            }
            AgentEvent::Usage(usage) => {
                self.count(*usage);
                Ok(())
            }
            AgentEvent::Status { .. }
            | AgentEvent::Message { .. }
            | AgentEvent::Delta { .. }
            | AgentEvent::Reasoning { .. }
            | AgentEvent::Approval { .. }
            | AgentEvent::Log { .. }
            | AgentEvent::Diff { .. }
            | AgentEvent::Artifact { .. }
            | AgentEvent::Error { .. }
            | AgentEvent::Unknown(_) => Ok(()),
        }
    }

    /// Keeps what the session has used so far, and what of it is new with the turn in which it was used.
    fn count(&mut self, usage: Usage) {
        self.meter.session = usage;
        let (turn, known) = (usage.turns, self.meter.in_turns);
        if turn > 0 && usage != known {
            let turn = self.meter.before.turns.saturating_add(turn);
            let used = difference(usage, known);
            self.steps.turn(self.claim.attempt_number, turn, self.model.as_deref(), used);
            self.meter.in_turns = usage;
        }
    }

    /// Ends the calls that the agent left open when it stopped.
    pub(crate) fn close_open_calls(&mut self) {
        self.calls.close_open();
    }
}

/// What was used between two totals.
fn difference(now: Usage, before: Usage) -> Usage {
    Usage {
        turns: now.turns.saturating_sub(before.turns),
        input_tokens: now.input_tokens.saturating_sub(before.input_tokens),
        cached_input_tokens: now.cached_input_tokens.saturating_sub(before.cached_input_tokens),
        cache_write_tokens: now.cache_write_tokens.saturating_sub(before.cache_write_tokens),
        output_tokens: now.output_tokens.saturating_sub(before.output_tokens),
        cost: now.cost.map(|cost| lime_core::Micros(cost.0 - before.cost.map_or(0, |before| before.0))),
    }
}
