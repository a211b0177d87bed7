use std::any::Any;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use lime_core::Id;
use lime_core::governance::Allowlist;
use lime_core::ports::{AgentProvider, SessionSpec};
use lime_core::runs::{AgentEvent, AgentMode, AgentRunRequest};

/// The file that the agent of [`Task::Edits`] writes.
pub const EDITED_FILE: &str = "conformance.txt";
/// What it writes into it.
pub const EDITED_TEXT: &str = "Written by the agent.\n";

/// What an agent is to do in a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Says something, writes [`EDITED_TEXT`] into [`EDITED_FILE`] with a tool, says something more, and ends well.
    ///
    /// - With short pauses, if the provider has no process whose pace it must follow.
    Edits,
    /// Ends well in a session that can be taken up; [`Stage::next`] takes it up, and ends well too.
    Resumes,
    /// Says something, then does nothing for longer than [`PATIENCE`](super::PATIENCE), best in the middle of a tool.
    Waits,
    /// Fails: its model refuses, say.
    Fails,
    /// Is to go on with a session that there never was.
    UnknownSession,
    /// Cannot be started: its program or its key is missing.
    NotReady,
    /// Is asked for something that the provider cannot do.
    Unsupported,
    /// Calls a tool that it may not, then ends as it likes.
    DeniedTool,
    /// Would take more turns than it may.
    TurnLimit,
    /// Would use more money than it may.
    CostLimit,
    /// Calls a tool that the spec's `ask` means, and that writes [`EDITED_TEXT`] into [`EDITED_FILE`]; then says
    /// something more and ends well, whether it was allowed or not.
    Asks,
    /// Calls a tool that the spec's `ask` means, and that it may not call whatever anybody says; then ends well.
    AsksInVain,
    /// Says something, works for two seconds, best in a tool, says something more, and ends well; what is said to it
    /// meanwhile, it hears.
    Listens,
}

/// Sets the stage for the tasks.
pub trait AgentFixture: Send + Sync {
    /// A stage on which the agent will do this, new each time; `None` if it cannot be set.
    fn stage(&self, task: Task) -> impl Future<Output = Option<Stage>> + Send;

    /// What an event told, for comparing two sessions with the same task; `None` leaves it out.
    ///
    /// - As it is, it leaves out log lines and unknown messages, and whatever differs each time: ids, durations. The pieces
    ///   of a message are compared as one text, and not asked about.
    fn told(&self, event: &AgentEvent) -> Option<String> {
        match event {
            AgentEvent::Message { role, text } => Some(format!("{role}: {text}")),
            AgentEvent::Reasoning { text } => Some(format!("reasoning: {text}")),
            AgentEvent::Tool { name, status, .. } => Some(format!("{name} {status}")),
            AgentEvent::Approval { action, status, .. } => Some(format!("approval: {action} {status}")),
            AgentEvent::Diff { unified_diff, .. } => Some(format!("diff: {unified_diff}")),
            AgentEvent::Artifact { name, .. } => Some(format!("artifact: {name}")),
            AgentEvent::Error { message, .. } => Some(format!("error: {message}")),
            AgentEvent::Delta { .. }
            | AgentEvent::Status { .. }
            | AgentEvent::Session { .. }
            | AgentEvent::Usage(_) => Some(event.type_name().to_owned()),
            AgentEvent::Log { .. } | AgentEvent::Unknown(_) => None,
        }
    }
}

/// A provider, and what to start an agent with.
pub struct Stage {
    /// The provider.
    pub provider: Arc<dyn AgentProvider>,
    /// The agent's task.
    pub spec: SessionSpec,
    /// What the session is taken up with, in [`Task::Resumes`]; the suite puts its id in.
    pub next: Option<SessionSpec>,
    /// Counts the agent's processes that live, descendants included, if it has any.
    pub living: Option<Box<dyn Fn() -> usize + Send + Sync>>,
    /// All that the agent has been told, its tools' answers included, if the stage can know.
    pub told: Option<Box<dyn Fn() -> String + Send + Sync>>,
    /// Whatever must outlive the session: its folder, its scripted model.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Stage {
    /// A stage without processes to count, and without a look at what the agent is told.
    pub fn new(
        provider: impl AgentProvider + 'static,
        spec: SessionSpec,
        keep: impl Any + Send + Sync,
    ) -> Self {
        Self {
            provider: Arc::new(provider),
            spec,
            next: None,
            living: None,
            told: None,
            keep: Box::new(keep),
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("provider", &self.provider.id()).finish_non_exhaustive()
    }
}

/// What an agent is started with that is told this in this folder, and nothing else.
pub fn spec(workdir: impl Into<PathBuf>, prompt: impl Into<String>) -> SessionSpec {
    SessionSpec {
        request: AgentRunRequest {
            run_id: Id::new(1),
            tenant_id: Id::new(1),
            project_id: None,
            ticket_id: None,
            mode: AgentMode::Implement,
            prompt: prompt.into(),
            repo: None,
            constraints: None,
        },
        workdir: workdir.into(),
        instructions: String::new(),
        model: None,
        resume: None,
        tools: Allowlist::all(),
        ask: Vec::new(),
        env: Vec::new(),
    }
}
