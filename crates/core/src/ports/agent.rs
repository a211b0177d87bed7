use std::path::PathBuf;

use async_trait::async_trait;

use crate::Result;
use crate::governance::{Allowlist, EnvValue, ToolPattern};
use crate::runs::{AgentEvent, AgentRunRequest, Denial, Outcome, ProviderId, Usage};

/// Starts agents of one kind: Claude, Codex, or one of your own.
///
/// - Everything that the agent says comes through its session as [`AgentEvent`]s; what the provider does not
///   understand becomes [`AgentEvent::Unknown`], never an error.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AgentProvider: Send + Sync {
    /// The name that runs ask for it by.
    fn id(&self) -> ProviderId;

    /// Whether an agent could be started now, and if not, why, in words that say what to do.
    ///
    /// - Quick and without a network call: the program is there, a key is there.
    async fn readiness(&self) -> Readiness;

    /// Whether its agents read this file of a repository by themselves, such as `AGENTS.md`: it is not told them again.
    fn reads(&self, _path: &str) -> bool {
        false
    }

    /// Whether what its agents are started with keeps them from calling any tool that is not on the run's list.
    ///
    /// - An agent that is not kept from it is stopped when such a call begins.
    fn refuses_unlisted(&self) -> bool {
        false
    }

    /// Starts an agent on its task.
    ///
    /// - Gives back a session as soon as the agent is on its way; what goes wrong from then on, a missing
    ///   program or key included, is the session's [`Outcome`].
    /// - The agent's environment is exactly the list that the provider documents, and `spec.env`.
    /// - Fails with [`Invalid`](crate::ErrorKind::Invalid) where the spec asks for what the provider cannot do.
    async fn start(&self, spec: SessionSpec) -> Result<Box<dyn AgentSession>>;
}

/// Whether agents of a kind can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They can; what was found, such as a program with its version, and where its key comes from.
    Ready(String),
    /// The program is not there; where it was looked for and how to get it.
    MissingBinary(String),
    /// There is no key; how to give one.
    MissingCredentials(String),
}

/// What an agent is started with.
#[derive(Debug)]
pub struct SessionSpec {
    /// The request, as on the wire.
    pub request: AgentRunRequest,
    /// The folder to work in.
    pub workdir: PathBuf,
    /// What it is told beside the prompt, layer by layer, already in order; empty if nothing.
    pub instructions: String,
    /// The model; the provider's default, if none.
    pub model: Option<String>,
    /// The session to go on with, by the id that the provider gave it.
    pub resume: Option<String>,
    /// The tools that it may call; those that the provider gives it, if there is no list.
    ///
    /// - What can be said of it beforehand is said to the agent's program; the rest is in `ask`, and whoever answers
    ///   checks each call.
    pub tools: Allowlist,
    /// The tool calls that the agent must ask about before it makes them, where its provider lets it make them at all.
    pub ask: Vec<ToolPattern>,
    /// More variables for the agent's environment; of the same name, the last one counts.
    pub env: Vec<EnvValue>,
}

/// The answer to an agent that asked for leave to call a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolAnswer {
    /// It may make exactly this call.
    Allow,
    /// It must not; the reason is for the agent.
    Deny(String),
}

/// An agent at work.
///
/// - One owner drives it: take events until there are none, then ask for the report.
/// - Dropping it ends the agent and all its children, as far as that can be done without waiting.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait AgentSession: Send {
    /// The next event; `None` once the agent has ended.
    ///
    /// - Safe to cancel: an event is never lost in a `select!`.
    /// - After `None`, `None` again.
    /// - Never a [`Status`](AgentEvent::Status): the state of a run is the queue's to tell.
    /// - A call that [`SessionSpec::ask`] means comes as an [`Approval`](AgentEvent::Approval), pending, without an id,
    ///   and waits for its [`answer`](AgentSession::answer); a call that the provider's own rules refuse does not come.
    async fn next_event(&mut self) -> Option<AgentEvent>;

    /// Answers a question, which came as a pending [`AgentEvent::Approval`] with this call id.
    ///
    /// - The call goes on, or the agent is told that it was denied and why, and goes on without it.
    /// - Questions may be answered in any order; the agent waits for each, however long.
    /// - An answer to a question that is not open does nothing: the agent has ended, or has been answered.
    async fn answer(&mut self, call_id: &str, answer: ToolAnswer);

    /// Says something to the agent while it works; it hears it at its next turn.
    ///
    /// - `false` if the agent can hear nothing any more: it has come to its end. The message is not lost on the way
    ///   otherwise: the session ends only after the agent has answered it.
    /// - Fails with [`Unsupported`](crate::ErrorKind::Unsupported) where the provider's agents hear nothing but their
    ///   prompt.
    async fn send(&mut self, text: &str) -> Result<bool>;

    /// Stops the agent: by its protocol, then by closing its input, then by signals, then every descendant.
    ///
    /// - When it returns, no process of the agent is left; that takes at most 2 s.
    /// - Events that were on their way can still be taken, and the report says [`Outcome::Cancelled`], whatever
    ///   the agent printed on its way out.
    /// - Does nothing to an agent that has ended.
    async fn cancel(&mut self);

    /// How it ended.
    ///
    /// - Drops the events not taken. An agent that has not ended is cancelled first.
    async fn report(self: Box<Self>) -> SessionReport;
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionReport {
    /// Success, failure, cancellation or a limit.
    pub outcome: Outcome,
    /// The provider's id of the session, to resume it by.
    pub session_id: Option<String>,
    /// What it used, all in all.
    pub usage: Usage,
    /// The tool calls that were denied.
    pub denials: Vec<Denial>,
    /// For the server side only: exit code or signal, last lines of stderr, leftovers killed.
    pub diagnostics: Option<String>,
}
