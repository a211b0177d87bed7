//! Agent work: runs, their attempts, steps, tool calls and events.

mod attempt;
mod effect;
mod event;
mod input;
mod outcome;
mod request;
mod retry;
mod run;
mod state;
mod step;
mod tool_call;
mod usage;

pub use attempt::{AttemptEnd, Lease, RunAttempt};
pub use effect::{Effect, EffectKind, EffectStatus};
pub use event::{AgentEvent, MessageRole, RunEvent, Seq, ToolStatus};
pub use input::RunInput;
pub use outcome::{Denial, Failure, FailureKind, Limit, Outcome, StopReason};
pub use request::{AgentMode, AgentRunRequest, Constraints, ProviderId, RepoRequest};
pub use retry::RetryPolicy;
pub use run::{AgentRun, RunArtifact, Session, ToolTally};
pub use state::{IllegalTransition, RunSignal, RunStatus};
pub use step::{RunStep, StepKind, StepStatus};
pub use tool_call::{ToolCall, ToolCallStatus};
pub use usage::Usage;
