use std::collections::VecDeque;
use std::time::Duration;

use lime_core::runs::{AgentEvent, Denial, ToolStatus};
use serde_json::Value;

/// How many calls can be open, and how many questions unanswered; beyond that the oldest is forgotten.
///
/// - Agents have a handful open. The limit is against an output that opens calls without end.
const MAX_OPEN: usize = 1_024;
/// How many denied calls are kept for the report.
const MAX_DENIALS: usize = 1_024;

/// The tool calls of a session: which are open, which were denied.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: VecDeque<Open>,
    /// Questions whether a call is allowed: the question's id, and the call.
    asked: VecDeque<(String, Denial)>,
    denied: Vec<Denial>,
    /// Calls that ended otherwise before they were known to be denied.
    ended: VecDeque<String>,
}

#[derive(Debug)]
struct Open {
    call_id: String,
    name: String,
    since: Duration,
}

impl Calls {
    /// A call begins.
    pub(crate) fn begin(&mut self, call_id: String, name: String, input: Value, at: Duration) -> AgentEvent {
        push(&mut self.open, Open { call_id: call_id.clone(), name: name.clone(), since: at });
        AgentEvent::Tool {
            call_id,
            name,
            status: ToolStatus::Started,
            input: Some(input),
            output: None,
            duration_ms: None,
        }
    }

    /// A call ends; one that was denied, or is `denied` now, ends so.
    pub(crate) fn end(&mut self, call_id: String, text: String, how: Answered, at: Duration) -> AgentEvent {
        let open = self.take(&call_id);
        let name = open.as_ref().map_or_else(|| "unknown".to_owned(), |open| open.name.clone());
        if how == Answered::Denied {
            self.deny(Denial { call_id: call_id.clone(), tool: name.clone() });
        }
        let status = match how {
            _ if self.is_denied(&call_id) => ToolStatus::Denied,
            Answered::Denied => ToolStatus::Denied,
            Answered::Badly => ToolStatus::Failed,
            Answered::Well => ToolStatus::Completed,
        };
        if status == ToolStatus::Failed {
            push(&mut self.ended, call_id.clone());
        }
        ended(call_id, name, status, Some(text), open.map(|open| at.saturating_sub(open.since)))
    }

    /// The CLI asks whether a call is allowed.
    pub(crate) fn ask(&mut self, request_id: String, call: Denial) {
        push(&mut self.asked, (request_id, call));
    }

    /// A question is answered.
    pub(crate) fn answer(&mut self, request_id: &str, allowed: bool) {
        let Some(at) = self.asked.iter().position(|(asked, _)| asked == request_id) else {
            return;
        };
        if let Some((_, call)) = self.asked.remove(at)
            && !allowed
        {
            self.deny(call);
        }
    }

    /// The CLI lists a call as denied in the end; an event, if the call looked otherwise until now.
    pub(crate) fn listed(&mut self, call: Denial) -> Option<AgentEvent> {
        let known = self.is_denied(&call.call_id);
        let open = self.take(&call.call_id).is_some();
        let failed = self.ended.iter().any(|ended| *ended == call.call_id);
        let event = (!known && (open || failed))
            .then(|| ended(call.call_id.clone(), call.tool.clone(), ToolStatus::Denied, None, None));
        self.deny(call);
        event
    }

    /// Ends every call that is still open: the agent has gone before they did.
    pub(crate) fn close(&mut self, at: Duration) -> Vec<AgentEvent> {
        let open = std::mem::take(&mut self.open);
        open.into_iter()
            .map(|open| {
                let status =
                    if self.is_denied(&open.call_id) { ToolStatus::Denied } else { ToolStatus::Failed };
                ended(open.call_id, open.name, status, None, Some(at.saturating_sub(open.since)))
            })
            .collect()
    }

    /// The calls that were denied.
    pub(crate) fn into_denied(self) -> Vec<Denial> {
        self.denied
    }

    fn take(&mut self, call_id: &str) -> Option<Open> {
        let at = self.open.iter().position(|open| open.call_id == call_id)?;
        self.open.remove(at)
    }

    fn deny(&mut self, call: Denial) {
        if !self.is_denied(&call.call_id) && self.denied.len() < MAX_DENIALS {
            self.denied.push(call);
        }
    }

    fn is_denied(&self, call_id: &str) -> bool {
        self.denied.iter().any(|denied| denied.call_id == call_id)
    }
}

/// What a call's answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    Well,
    Badly,
    Denied,
}

fn ended(
    call_id: String,
    name: String,
    status: ToolStatus,
    output: Option<String>,
    took: Option<Duration>,
) -> AgentEvent {
    AgentEvent::Tool {
        call_id,
        name,
        status,
        input: None,
        output,
        duration_ms: took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == MAX_OPEN {
        queue.pop_front();
    }
    queue.push_back(item);
}
