use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::runs::{AgentEvent, AgentRun, Lease, RunEvent, Seq};
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
    /// Appends events, all or none, in this order.
    ///
    /// - Gives them back with their positions, which go on from the last one without a gap.
    /// - [Ephemeral](AgentEvent::is_ephemeral) ones get no position and are not kept: they go to those who are
    ///   subscribed right now, in their place among the others, and may be dropped.
    /// - Texts are [bounded](AgentEvent::bounded).
    /// - Fails with [`StaleLease`](crate::ErrorKind::StaleLease), and appends nothing, once the lease is lost or
    ///   the run has ended.
    async fn append(&self, lease: &Lease, events: Vec<AgentEvent>) -> Result<Vec<RunEvent>>;

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
    /// - A slow subscriber never slows the run.
    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream;
}
