use serde_json::Value as Json;

use crate::agents::Agent;
use crate::planning::{Project, Ticket};
use crate::runs::AgentRun;
use crate::words::words;
use crate::{Editable, Id, Invalid, entity};

/// A tool that an agent called, for the audit trail (001 audit_logs).
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// The run.
    pub agent_run_id: Id<AgentRun>,
    /// The project.
    pub project_id: Id<Project>,
    /// The ticket that the work is for.
    pub ticket_id: Option<Id<Ticket>>,
    /// The agent that called (001).
    pub agent_id: Option<Id<Agent>>,
    /// The provider's id of the call, unique in the run; 1 to 200 characters.
    pub call_id: String,
    /// The tool, such as `Bash`.
    pub tool: String,
    /// How far it is.
    pub status: ToolCallStatus,
    /// What it was called with.
    pub input: Json,
    /// What it gave back.
    pub output: Option<String>,
    /// What went wrong, or why it was denied.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<i64>,
    /// The turn in which it was called, from 1.
    pub turn_number: i32,
}

words! {
    /// How far a tool call is (001; `denied` is ours).
    pub enum ToolCallStatus: "status" {
        /// Waits for an answer.
        Pending = "pending",
        /// Runs.
        Running = "running",
        /// Ended well.
        Complete = "complete",
        /// Ended badly.
        Error = "error",
        /// Was not allowed.
        Denied = "denied",
    }
}

entity! {
    ToolCall as "tool call" in "tool_calls" {
        AGENT_RUN_ID: Id<AgentRun> = agent_run_id => |call| call.agent_run_id;
        PROJECT_ID: Id<Project> = project_id => |call| call.project_id;
        TICKET_ID: Option<Id<Ticket>> = ticket_id => |call| call.ticket_id;
        CALL_ID: String = call_id => |call| call.call_id.clone();
        TOOL: String = tool => |call| call.tool.clone();
        STATUS: ToolCallStatus = status => |call| call.status;
    }
    unique [AGENT_RUN_ID, CALL_ID];
    refers AGENT_RUN_ID -> AgentRun Cascade;
    refers PROJECT_ID -> Project Cascade;
    refers TICKET_ID -> Ticket SetNull(|call| call.ticket_id = None);
    validate |call| {
        Invalid::text("call_id", &call.call_id, 1, 200)?;
        Invalid::no_nul("call_id", &call.call_id)?;
        Invalid::text("tool", &call.tool, 1, 200)
    };
}
impl Editable for ToolCall {}
