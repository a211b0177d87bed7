//! Which calls the agent may make: each is checked as it passes.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use lime_core::governance::{Allowlist, ToolDenied};
use lime_core::runs::{AgentEvent, Limit, ToolStatus};
use serde_json::Value as Json;

use super::watchdog::Reached;

/// How many calls that were not allowed are remembered; an agent that has more open is stopped.
const MOST_CALLS: usize = 1_000;

/// The run's list of tools, and the calls that go against it.
pub(super) struct Tools {
    pub(super) list: Allowlist,
    workdir: PathBuf,
    /// The agent's program refuses calls of tools that are not on the list.
    refuses_unlisted: bool,
    /// Calls that have begun and should be refused, with the reason.
    open: HashMap<String, String>,
    /// Calls for which the agent was stopped: what is told of them later does not count.
    stopped: HashSet<String>,
}

/// A call that was made and may not be.
pub(super) struct Violation {
    /// What is recorded of the call.
    pub(super) denied: AgentEvent,
    /// Why the agent is stopped.
    pub(super) reached: Reached,
}

impl Tools {
    pub(super) fn new(list: Allowlist, workdir: PathBuf, refuses_unlisted: bool) -> Self {
        Self { list, workdir, refuses_unlisted, open: HashMap::new(), stopped: HashSet::new() }
    }

    /// Whether a call may be made that the agent asks leave for.
    pub(super) fn check(&self, tool: &str, input: &Json) -> Result<(), ToolDenied> {
        self.list.check(tool, input, &self.workdir)
    }

    /// Hears of a call; what is to be done where it may not be made and nothing keeps the agent from it.
    ///
    /// - A call that its program asks about, or refuses, is shown before it is; it counts once it has ended well.
    pub(super) fn hear(&mut self, event: &AgentEvent) -> Option<Violation> {
        let AgentEvent::Tool { call_id, name, status, input, .. } = event else { return None };
        match status {
            ToolStatus::Started => {
                let why = self.check(name, input.as_ref().unwrap_or(&Json::Null)).err()?.to_string();
                let kept = self.refuses_unlisted || self.list.is_partial(name);
                if kept && self.open.len() < MOST_CALLS {
                    self.open.insert(call_id.clone(), why);
                    return None;
                }
                Some(self.stop(call_id, name, &why))
            }
            ToolStatus::Completed => {
                let why = self.open.remove(call_id)?;
                Some(self.stop(call_id, name, &why))
            }
            ToolStatus::Failed | ToolStatus::Denied => {
                self.open.remove(call_id);
                None
            }
        }
    }

    /// Whether this is about a call for which the agent was stopped.
    pub(super) fn is_settled(&self, event: &AgentEvent) -> bool {
        matches!(event, AgentEvent::Tool { call_id, .. } if self.stopped.contains(call_id))
    }

    fn stop(&mut self, call_id: &str, tool: &str, why: &str) -> Violation {
        self.stopped.insert(call_id.to_owned());
        let denied = AgentEvent::Tool {
            call_id: call_id.to_owned(),
            name: tool.to_owned(),
            status: ToolStatus::Denied,
            input: None,
            output: Some(why.to_owned()),
            duration_ms: None,
        };
        let message = format!("The agent made a call that it may not make, and was stopped: {why}.");
        Violation { denied, reached: Reached { limit: Limit::Tools, message } }
    }
}
