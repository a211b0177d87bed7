use async_trait::async_trait;

use crate::agents::InstructionLayer;
use crate::planning::{Project, Ticket};
use crate::repos::Repository;
use crate::runs::AgentRun;
use crate::{Id, Result, Scope};

/// What a run is about, which decides what its agent is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunTarget {
    /// The project.
    pub project_id: Id<Project>,
    /// The repository.
    pub repository_id: Option<Id<Repository>>,
    /// The ticket.
    pub ticket_id: Option<Id<Ticket>>,
}

impl From<&AgentRun> for RunTarget {
    fn from(run: &AgentRun) -> Self {
        Self { project_id: run.project_id, repository_id: run.repository_id, ticket_id: run.ticket_id }
    }
}

/// Where instructions are kept.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait InstructionSource: Send + Sync {
    /// Every layer of the scope's tenant that could apply to a target, for all providers and modes, in any order.
    ///
    /// - Disabled ones may be missing. What nobody has written for the target gives nothing, and is no error.
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>>;
}

/// The same layers for everything.
#[async_trait]
impl InstructionSource for Vec<InstructionLayer> {
    async fn layers(&self, _: &Scope, _: RunTarget) -> Result<Vec<InstructionLayer>> {
        Ok(self.clone())
    }
}
