use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::agents::ResolvedInstructions;
use crate::runs::{AgentEvent, AgentRun, Lease, RunEvent, RunStep, Seq, ToolCall};
use crate::{Id, Result, Scope};

/// A stream of what happens in a run.
pub type EventStream = BoxStream<'static, Result<Live>>;

/// One thing that a subscriber sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Live {
    /// A recorded event.
    Recorded(RunEvent),
    /// A piece of a message in the making; seen by those who are there, and never again.
    Ephemeral(AgentEvent),
}

/// The append-only log of every run.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Appends what an attempt has to say, all or none: its events in this order, and what it knows of its steps, its
    /// tool calls and itself.
    ///
    /// - Gives the events back with their positions, which go on from the last one without a gap.
    /// - A step or tool call of the same key replaces what was known of it; an event belongs to the record's step.
    /// - Safe to repeat where it is not known whether it happened only if it has no events.
    /// - [Ephemeral](AgentEvent::is_ephemeral) ones get no position and are not kept: they go to those who are
    ///   subscribed right now, in their place among the others, and may be dropped.
    /// - Texts are [bounded](AgentEvent::bounded).
    /// - Fails with [`StaleLease`](crate::ErrorKind::StaleLease), and appends nothing, once the lease is lost or
    ///   the run has ended.
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>>;

    /// Up to `limit` events after a position, in order; 0 for the beginning.
    ///
    /// - Fails with `NotFound` if there is no such run.
    async fn read(&self, scope: &Scope, run: Id<AgentRun>, after: Seq, limit: usize)
    -> Result<Vec<RunEvent>>;

    /// Every event after a position: those recorded first, then those to come.
    ///
    /// - None is missed or repeated, however slowly the subscriber reads, and a reader that breaks off goes on
    ///   from the last position it saw.
    /// - It ends after the event that closes the run, and with one error if there is no such run.
    /// - A slow subscriber never slows the run: it reads the log at its own pace, and misses ephemeral pieces only.
    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream;
}

/// What an attempt has to say at once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// What happened, in order.
    pub events: Vec<AgentEvent>,
    /// The step that the events belong to, by its key; one of the run, known before or given here.
    pub step: Option<String>,
    /// What is known of steps; by its key, each is new or replaces what was known.
    pub steps: Vec<RunStep>,
    /// What is known of tool calls; by its call id, each is new or replaces what was known.
    pub tool_calls: Vec<ToolCall>,
    /// What is known about the run.
    pub progress: Progress,
}

impl Record {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self { step: self.step.clone(), ..Self::default() }
    }
}

impl From<Vec<AgentEvent>> for Record {
    fn from(events: Vec<AgentEvent>) -> Self {
        Self { events, ..Self::default() }
    }
}

/// What is known about a run so far; `None` leaves it as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The provider's id of its session.
    pub provider_session_id: Option<String>,
    /// What its agent was told.
    pub instructions: Option<ResolvedInstructions>,
    /// The branch that its work goes to.
    pub branch: Option<String>,
    /// The model that works it.
    pub model: Option<String>,
}
