//! What an adapter implements.
//!
//! - Each trait is the least that its implementer must do; the bullets of its methods are its behaviour, and the
//!   conformance suite tests them.
//! - With the feature `mocks`, each has a mock, for unit tests of what is built on it.

mod agent;
mod api_keys;
mod approvals;
mod budgets;
mod clock;
mod entropy;
mod events;
mod identities;
mod instructions;
mod keys;
mod queue;
mod repo;
mod storage;
mod workspace;

pub use agent::{AgentProvider, AgentSession, Readiness, SessionReport, SessionSpec, ToolAnswer};
pub use api_keys::{ApiKeys, Renewal};
pub use approvals::{Approvals, Question};
pub use budgets::{Admission, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce};
pub use clock::Clock;
pub use entropy::Entropy;
pub use events::{EventLog, EventStream, Live, Progress, Record};
pub use identities::Identities;
pub use instructions::{InstructionSource, RunTarget};
pub use keys::KeyWrapper;
pub use queue::{
    Claim, Claimant, Handback, HandbackReason, Queue, QueueDepth, Request, Settlement, Signals, WorkerName,
};
pub use repo::{BranchState, RepoAccess, RepoDescription, RepoProvider};
pub use storage::Storage;
pub use workspace::{
    Author, Changes, CommitId, CommittedFile, CommittedFiles, FilesWanted, LeftOut, WhyLeftOut, Workspace,
    WorkspaceSpec, Workspaces,
};

#[cfg(feature = "mocks")]
pub use self::{
    agent::{MockAgentProvider, MockAgentSession},
    api_keys::MockApiKeys,
    approvals::MockApprovals,
    budgets::MockBudgets,
    clock::MockClock,
    entropy::MockEntropy,
    identities::MockIdentities,
    instructions::MockInstructionSource,
    keys::MockKeyWrapper,
    queue::MockQueue,
    repo::MockRepoProvider,
    workspace::MockWorkspaces,
};
