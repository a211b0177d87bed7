//! The tool calls that follow from events.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use lime_core::ports::{Claim, Storage};
use lime_core::runs::{AgentEvent, ToolCall, ToolCallStatus, ToolStatus, ToolTally};
use lime_core::{LookupExt, Query, Result};
use serde_json::Value as Json;

use crate::patience::persist;

/// What is known of tool calls that are open, or were closed since the last record.
pub(super) struct Calls {
    claim: Arc<Claim>,
    known: HashMap<String, Known>,
    tallies: Vec<ToolTally>,
}

struct Known {
    call: ToolCall,
    since: Instant,
    changed: bool,
}

impl Known {
    fn is_open(&self) -> bool {
        self.call.status == ToolCallStatus::Running
    }
}

impl Calls {
    pub(super) fn new(claim: Arc<Claim>) -> Self {
        Self { claim, known: HashMap::new(), tallies: Vec::new() }
    }

    pub(super) fn tallies(&self) -> &[ToolTally] {
        &self.tallies
    }

    /// What is to be written; calls that are closed are forgotten with it.
    pub(super) fn take_changed(&mut self) -> Vec<ToolCall> {
        let mut changed: Vec<_> =
            self.known.extract_if(|_, known| !known.is_open()).map(|(_, known)| known.call).collect();
        for known in self.known.values_mut().filter(|known| known.changed) {
            known.changed = false;
            changed.push(known.call.clone());
        }
        changed
    }

    pub(super) async fn take(&mut self, storage: &dyn Storage, event: &AgentEvent, turn: u32) -> Result<()> {
        let AgentEvent::Tool { call_id, name, status, input, output, duration_ms } = event else {
            return Ok(());
        };
        if *status == ToolStatus::Started {
            let call = self.begun(call_id, name, input.clone().unwrap_or(Json::Null), turn);
            self.keep(call_id, call);
            return Ok(());
        }
        if !self.known.contains_key(call_id) {
            let call = match self.written(storage, call_id).await? {
                Some(call) => call,
                None => self.begun(call_id, name, Json::Null, turn),
            };
            self.keep(call_id, call);
        }
        self.end(call_id, *status, output.clone(), *duration_ms);
        Ok(())
    }

    fn keep(&mut self, call_id: &str, call: ToolCall) {
        self.known.insert(call_id.to_owned(), Known { call, since: Instant::now(), changed: true });
    }

    fn begun(&self, call_id: &str, name: &str, input: Json, turn: u32) -> ToolCall {
        let run = &self.claim.run;
        ToolCall {
            agent_run_id: self.claim.lease.run,
            project_id: run.project_id,
            ticket_id: run.ticket_id,
            agent_id: run.agent_id,
            call_id: self.key(call_id),
            tool: name.chars().take(200).collect(),
            status: ToolCallStatus::Running,
            input,
            output: None,
            error: None,
            duration_ms: None,
            turn_number: i32::try_from(turn).unwrap_or(i32::MAX),
        }
    }

    /// A second attempt must not take over the calls of the first, which a provider may number alike.
    fn key(&self, call_id: &str) -> String {
        let id = call_id.chars().take(180);
        match self.claim.attempt_number {
            1 => id.collect(),
            number => format!("{number}:{}", id.collect::<String>()),
        }
    }

    /// A call that was closed and written before: some agents only say at their end that it was denied.
    async fn written(&self, storage: &dyn Storage, call_id: &str) -> Result<Option<ToolCall>> {
        let scope = self.claim.scope();
        let same = || {
            Query::all()
                .filter(ToolCall::AGENT_RUN_ID.eq(self.claim.lease.run))
                .filter(ToolCall::CALL_ID.eq(self.key(call_id)))
        };
        let found = persist(|| storage.find(&scope, same())).await?;
        Ok(found.map(|stored| stored.value))
    }

    fn end(&mut self, call_id: &str, status: ToolStatus, output: Option<String>, duration_ms: Option<u64>) {
        let Some(known) = self.known.get_mut(call_id) else { return };
        let counted = !known.is_open();
        known.changed = true;
        let call = &mut known.call;
        call.status = match status {
            ToolStatus::Started => ToolCallStatus::Running,
            ToolStatus::Completed => ToolCallStatus::Complete,
            ToolStatus::Failed => ToolCallStatus::Error,
            ToolStatus::Denied => ToolCallStatus::Denied,
        };
        match status {
            ToolStatus::Failed | ToolStatus::Denied => call.error = output,
            ToolStatus::Started | ToolStatus::Completed => call.output = output,
        }
        if counted {
            return;
        }
        let took = duration_ms
            .unwrap_or_else(|| u64::try_from(known.since.elapsed().as_millis()).unwrap_or(u64::MAX));
        call.duration_ms = i64::try_from(took).ok();
        match self.tallies.iter_mut().find(|tally| tally.tool == call.tool) {
            Some(tally) => {
                tally.count += 1;
                tally.total_duration_ms = tally.total_duration_ms.saturating_add(took);
            }
            None => {
                self.tallies.push(ToolTally { tool: call.tool.clone(), count: 1, total_duration_ms: took });
            }
        }
    }

    /// Ends the calls that the agent left open when it stopped.
    pub(super) fn close_open(&mut self) {
        let open: Vec<_> =
            self.known.iter().filter(|(_, known)| known.is_open()).map(|(id, _)| id.clone()).collect();
        for call_id in open {
            let output = Some("the agent stopped before the call ended".to_owned());
            self.end(&call_id, ToolStatus::Failed, output, None);
        }
    }
}
