//! Writes down what an agent does, in order and in batches.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lime_core::ports::{Claim, Progress, Storage};
use lime_core::runs::{AgentEvent, ToolCall, ToolCallStatus, ToolStatus, ToolTally, Usage};
use lime_core::{ErrorKind, LookupExt, Query, Result, Scope, Stored};
use serde_json::Value as Json;
use std::sync::Arc;

use crate::steps::Steps;

/// How long an event waits for others before it is written.
pub(crate) const BATCH_DELAY: Duration = Duration::from_millis(40);
/// How many events are written at once at most.
const BATCH_EVENTS: usize = 128;
/// How long a write is tried again while the storage does not answer; the lease ends it earlier.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the events of one attempt, and what follows from them: tool calls, turns, session, usage.
pub(crate) struct Recorder {
    storage: Arc<dyn Storage>,
    claim: Claim,
    scope: Scope,
    steps: Steps,
    pending: Vec<AgentEvent>,
    open_calls: HashMap<String, OpenCall>,
    tallies: Vec<ToolTally>,
    usage: Usage,
    model: Option<String>,
}

struct OpenCall {
    stored: Stored<ToolCall>,
    since: Instant,
}

impl Recorder {
    pub(crate) fn new(storage: Arc<dyn Storage>, claim: &Claim, steps: Steps) -> Self {
        Self {
            storage,
            scope: claim.scope(),
            claim: claim.clone(),
            steps,
            pending: Vec::new(),
            open_calls: HashMap::new(),
            tallies: Vec::new(),
            usage: Usage::default(),
            model: None,
        }
    }

    pub(crate) fn steps(&mut self) -> &mut Steps {
        &mut self.steps
    }

    /// What the agent has used so far.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }

    pub(crate) fn tallies(&self) -> Vec<ToolTally> {
        self.tallies.clone()
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes an event; it is written with the next batch.
    ///
    /// - Pieces of a message that follow each other become one.
    pub(crate) async fn take(&mut self, event: AgentEvent) -> Result<()> {
        // Here and not only in the log, since tool calls are made of it too.
        let event = event.bounded();
        if let (AgentEvent::Delta { text: more }, Some(AgentEvent::Delta { text })) =
            (&event, self.pending.last_mut())
        {
            text.push_str(more);
            return Ok(());
        }
        self.pending.push(event);
        if self.pending.len() >= BATCH_EVENTS { self.flush().await } else { Ok(()) }
    }

    /// Writes what is pending.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.pending);
        let (storage, lease) = (self.storage.clone(), self.claim.lease);
        persist(|| storage.append(&lease, events.clone())).await?;
        for event in events {
            self.follow_up(event).await?;
        }
        Ok(())
    }

    async fn follow_up(&mut self, event: AgentEvent) -> Result<()> {
        match event {
            AgentEvent::Tool { call_id, name, status: ToolStatus::Started, input, .. } => {
                self.open_call(call_id, name, input.unwrap_or(Json::Null)).await
            }
            AgentEvent::Tool { call_id, name, status, output, duration_ms, .. } => {
                self.close_call(call_id, name, status, output, duration_ms).await
            }
            AgentEvent::Session { session_id, model } => {
                self.model.clone_from(&model);
                let progress =
                    Progress { provider_session_id: Some(session_id), model, ..Progress::default() };
                let (storage, lease) = (self.storage.clone(), self.claim.lease);
                persist(|| storage.progress(&lease, progress.clone())).await
            }
            AgentEvent::Usage(usage) => {
                let turns = usage.turns.saturating_sub(self.usage.turns);
                if turns > 0 {
                    let spent = difference(usage, self.usage);
                    self.steps
                        .turn(self.claim.attempt_number, usage.turns, self.model.as_deref(), spent)
                        .await?;
                }
                self.usage = usage;
                Ok(())
            }
            AgentEvent::Status { .. }
            | AgentEvent::Message { .. }
            | AgentEvent::Delta { .. }
            | AgentEvent::Reasoning { .. }
            | AgentEvent::Log { .. }
            | AgentEvent::Diff { .. }
            | AgentEvent::Artifact { .. }
            | AgentEvent::Error { .. }
            | AgentEvent::Unknown(_) => Ok(()),
        }
    }

    /// A second attempt must not take over the calls of the first, which a provider may number alike.
    fn call_key(&self, call_id: &str) -> String {
        let id = call_id.chars().take(180);
        if self.claim.attempt_number == 1 {
            id.collect()
        } else {
            format!("{}:{}", self.claim.attempt_number, id.collect::<String>())
        }
    }

    async fn open_call(&mut self, call_id: String, name: String, input: Json) -> Result<()> {
        let call = ToolCall {
            agent_run_id: self.claim.lease.run,
            project_id: self.claim.run.project_id,
            ticket_id: self.claim.run.ticket_id,
            agent_id: self.claim.run.agent_id,
            call_id: self.call_key(&call_id),
            tool: name.chars().take(200).collect(),
            status: ToolCallStatus::Running,
            input,
            output: None,
            error: None,
            duration_ms: None,
            turn_number: i32::try_from(self.usage.turns.saturating_add(1)).unwrap_or(i32::MAX),
        };
        let stored = match self.storage.insert(&self.scope, call.clone()).await {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let same = Query::all()
                    .filter(ToolCall::AGENT_RUN_ID.eq(self.claim.lease.run))
                    .filter(ToolCall::CALL_ID.eq(call.call_id));
                self.storage.find(&self.scope, same).await?.ok_or(error)?
            }
            other => other?,
        };
        self.open_calls.insert(call_id, OpenCall { stored, since: Instant::now() });
        Ok(())
    }

    async fn close_call(
        &mut self,
        call_id: String,
        name: String,
        status: ToolStatus,
        output: Option<String>,
        duration_ms: Option<u64>,
    ) -> Result<()> {
        if !self.open_calls.contains_key(&call_id) {
            self.open_call(call_id.clone(), name, Json::Null).await?;
        }
        let Some(OpenCall { mut stored, since }) = self.open_calls.remove(&call_id) else { return Ok(()) };
        // Some agents only say at their end that a call which failed was denied.
        let corrected = stored.status != ToolCallStatus::Running;
        let took =
            duration_ms.unwrap_or_else(|| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        let tool = &mut stored.value;
        tool.status = match status {
            ToolStatus::Started => ToolCallStatus::Running,
            ToolStatus::Completed => ToolCallStatus::Complete,
            ToolStatus::Failed => ToolCallStatus::Error,
            ToolStatus::Denied => ToolCallStatus::Denied,
        };
        match status {
            ToolStatus::Failed | ToolStatus::Denied => tool.error = output,
            ToolStatus::Started | ToolStatus::Completed => tool.output = output,
        }
        if corrected {
            return self.storage.update(&self.scope, &stored).await.map(|_| ());
        }
        tool.duration_ms = i64::try_from(took).ok();
        match self.tallies.iter_mut().find(|tally| tally.tool == tool.tool) {
            Some(tally) => {
                tally.count += 1;
                tally.total_duration_ms = tally.total_duration_ms.saturating_add(took);
            }
            None => {
                self.tallies.push(ToolTally { tool: tool.tool.clone(), count: 1, total_duration_ms: took });
            }
        }
        self.storage.update(&self.scope, &stored).await.map(|_| ())
    }

    /// Ends the calls that the agent left open when it stopped.
    pub(crate) async fn close_open_calls(&mut self) -> Result<()> {
        let open: Vec<_> =
            self.open_calls.iter().map(|(id, call)| (id.clone(), call.stored.tool.clone())).collect();
        for (call_id, name) in open {
            let output = Some("the agent stopped before the call ended".to_owned());
            self.close_call(call_id, name, ToolStatus::Failed, output, None).await?;
        }
        Ok(())
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

/// Calls again, with a growing pause, while the storage does not answer.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(50);
    loop {
        match call().await {
            Err(error) if error.is_retryable() && Instant::now() + pause < deadline => {
                tracing::warn!(%error, "the storage does not answer; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            result => return result,
        }
    }
}
