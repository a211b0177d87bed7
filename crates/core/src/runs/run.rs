use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::agents::{Agent, ResolvedInstructions};
use crate::collaboration::{Channel, ChatMessage};
use crate::identity::{ApiKey, User};
use crate::planning::{Project, Ticket};
use crate::ports::Settlement;
use crate::repos::Repository;
use crate::runs::{
    AgentMode, Constraints, Failure, Outcome, ProviderId, RunAttempt, RunStatus, Seq, StopReason, Usage,
};
use crate::{Id, Invalid, Scope, entity};

/// A session that people and agents share (001); known here by its id only, until its table comes.
#[derive(Debug, Clone, Copy)]
pub enum Session {}

/// Any work of an agent (000 §5.13; 001; 002 runs; 003 job_runs; 004 runs).
///
/// - Written by the [`Queue`](crate::ports::Queue) only, which keeps its state, lease and log in step.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentRun {
    /// The project.
    pub project_id: Id<Project>,
    /// The ticket that the work is for.
    pub ticket_id: Option<Id<Ticket>>,
    /// The repository to work in.
    pub repository_id: Option<Id<Repository>>,
    /// The agent that works (001, 002).
    pub agent_id: Option<Id<Agent>>,
    /// The session that it belongs to (001).
    pub session_id: Option<Id<Session>>,
    /// The chat message that set it off (002).
    pub trigger_message_id: Option<Id<ChatMessage>>,
    /// The channel that it speaks in (002).
    pub channel_id: Option<Id<Channel>>,
    /// Which agent provider works it.
    pub provider: ProviderId,
    /// The kind of work.
    pub mode: AgentMode,
    /// What the person asked for, 1 to 200,000 characters.
    pub input_prompt: String,
    /// The model; the provider's default, if none.
    pub model: Option<String>,
    /// The branch, tag or commit to start from; the repository's default branch, if none.
    pub base_ref: Option<String>,
    /// The branch that the work goes to; one made from the run's id, if none.
    pub branch: Option<String>,
    /// The paths that the run may change; all of them, if none.
    pub allowed_paths: Option<Vec<String>>,
    /// What the run may take and use.
    pub constraints: Constraints,
    /// The run that it goes on from, in the same session of the agent.
    pub parent_run_id: Option<Id<AgentRun>>,
    /// The greater goes first among the runs of its tenant; 0 unless given.
    pub priority: i16,
    /// Not before this time, on the database's clock; at once, if none.
    pub run_at: Option<DateTime<Utc>>,
    /// Of the tenant's runs that have not ended, only one may have it; 1 to 200 characters.
    pub unique_key: Option<String>,
    /// The person who started it, written by the store; its agent may never do more than they may (003).
    pub created_by: Option<Id<User>>,
    /// The API key that started it, written by the store; its agent may never do more than the key may.
    pub created_by_key: Option<Id<ApiKey>>,

    /// The state.
    pub status: RunStatus,
    /// Why it stopped.
    pub stop_reason: Option<StopReason>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The agent's last words, or "No changes." and the like.
    pub output_summary: Option<String>,
    /// What it made, beside its diff.
    pub artifacts: Vec<RunArtifact>,
    /// What it was told, layer by layer.
    pub instructions: Option<ResolvedInstructions>,
    /// The provider's id of its session, to resume it by.
    pub provider_session_id: Option<String>,
    /// What all its attempts have used.
    pub usage: Usage,
    /// How often it called which tool (001).
    pub tool_calls: Vec<ToolTally>,

    /// The attempt that holds the lease, or held the last one.
    pub attempt_id: Option<Id<RunAttempt>>,
    /// How many attempts there were.
    pub attempt_count: i32,
    /// How many of them were lost with their worker.
    pub crash_count: i32,
    /// How many of them failed in a way that may pass, and were tried again.
    pub failure_count: i32,
    /// When somebody asked for it to be cancelled.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// When somebody asked for it to be paused.
    pub pause_requested_at: Option<DateTime<Utc>>,
    /// The position of the last event when its state last changed; while it runs, its log is longer.
    pub last_seq: Seq,
    /// When the first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it reached its final state.
    pub ended_at: Option<DateTime<Utc>>,
}

/// Something that a run made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunArtifact {
    /// Its name.
    pub name: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

/// How often a run called a tool, and how long that took (001 `toolCalls`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolTally {
    /// The tool.
    pub tool: String,
    /// How many calls.
    pub count: u32,
    /// How long they took together, in milliseconds.
    pub total_duration_ms: u64,
}

impl AgentRun {
    /// The most characters of a prompt.
    pub const MAX_PROMPT_CHARS: usize = 200_000;
    /// How many attempts may be lost with their worker before the run fails.
    pub const MAX_CRASHES: i32 = 3;

    /// A run that waits for a worker.
    pub fn new(
        project_id: Id<Project>,
        provider: ProviderId,
        mode: AgentMode,
        prompt: impl Into<String>,
    ) -> Self {
        Self {
            project_id,
            ticket_id: None,
            repository_id: None,
            agent_id: None,
            session_id: None,
            trigger_message_id: None,
            channel_id: None,
            provider,
            mode,
            input_prompt: prompt.into(),
            model: None,
            base_ref: None,
            branch: None,
            allowed_paths: None,
            constraints: Constraints::default(),
            parent_run_id: None,
            priority: 0,
            run_at: None,
            unique_key: None,
            created_by: None,
            created_by_key: None,
            status: RunStatus::Queued,
            stop_reason: None,
            failure: None,
            output_summary: None,
            artifacts: Vec::new(),
            instructions: None,
            provider_session_id: None,
            usage: Usage::default(),
            tool_calls: Vec::new(),
            attempt_id: None,
            attempt_count: 0,
            crash_count: 0,
            failure_count: 0,
            cancel_requested_at: None,
            pause_requested_at: None,
            last_seq: 0,
            started_at: None,
            ended_at: None,
        }
    }
}

impl AgentRun {
    /// The same request as a run that waits for a worker: what its life has written is taken off.
    ///
    /// - Who started it is whoever the scope is of, whatever the request says.
    #[must_use]
    pub fn queued(self, scope: &Scope) -> Self {
        let (created_by, created_by_key) = scope.origin();
        let fresh = Self::new(self.project_id, self.provider, self.mode, self.input_prompt);
        Self {
            created_by,
            created_by_key,
            ticket_id: self.ticket_id,
            repository_id: self.repository_id,
            agent_id: self.agent_id,
            session_id: self.session_id,
            trigger_message_id: self.trigger_message_id,
            channel_id: self.channel_id,
            model: self.model,
            base_ref: self.base_ref,
            branch: self.branch,
            allowed_paths: self.allowed_paths,
            constraints: self.constraints,
            parent_run_id: self.parent_run_id,
            priority: self.priority,
            run_at: self.run_at,
            unique_key: self.unique_key,
            provider_session_id: self.provider_session_id,
            ..fresh
        }
    }

    /// Whether a worker was lost with it before: it may be what kills them, so a worker works one such run at a time.
    pub const fn is_suspect(&self) -> bool {
        self.crash_count > 0
    }

    /// Counts a worker that was lost with the run; gives the run's end, unless it is queued again.
    ///
    /// - A [suspect](Self::is_suspect) whose attempt had said nothing yet was still waiting for its turn: that is not
    ///   counted, so that the one which does kill workers takes no others along to the dead letters.
    /// - One that was asked to be cancelled is cancelled; after [`MAX_CRASHES`](Self::MAX_CRASHES) it fails as
    ///   `worker_lost`, with an error event.
    pub fn lose_worker(&mut self, said_nothing: bool) -> Option<Settlement> {
        let waited = said_nothing && self.is_suspect();
        if !waited {
            self.crash_count += 1;
        }
        if self.cancel_requested_at.is_some() {
            return Some(Settlement::new(Outcome::Cancelled));
        }
        if self.crash_count < Self::MAX_CRASHES {
            return None;
        }
        let failure = Failure::worker_lost(self.crash_count);
        let events = vec![failure.clone().into_event(None)];
        Some(Settlement { events, ..Settlement::new(Outcome::Failed(failure)) })
    }

    /// The run as a person puts it back into the line: its crashes and failures are forgiven, its history stays.
    pub fn requeue(&mut self) {
        self.stop_reason = None;
        self.failure = None;
        self.ended_at = None;
        self.crash_count = 0;
        self.failure_count = 0;
        self.run_at = None;
        self.cancel_requested_at = None;
        self.pause_requested_at = None;
    }

    /// Writes the end of the run into it: state, stop reason, failure, summary, usage, tools, artifacts.
    ///
    /// - The usage is added to that of earlier attempts. Lease and times are the store's business.
    pub fn settle(&mut self, settlement: &Settlement) {
        self.status = settlement.outcome.status();
        self.stop_reason = Some(StopReason::from(&settlement.outcome));
        self.failure = match &settlement.outcome {
            Outcome::Failed(failure) => Some(failure.clone()),
            Outcome::Succeeded { .. } | Outcome::Cancelled | Outcome::Limited(_) => None,
        };
        self.output_summary = settlement.summary.clone().or_else(|| match &settlement.outcome {
            Outcome::Succeeded { summary } => summary.clone(),
            Outcome::Failed(_) | Outcome::Cancelled | Outcome::Limited(_) => None,
        });
        self.artifacts.extend(settlement.artifacts.iter().cloned());
        self.add(settlement.usage, &settlement.tool_calls);
    }

    /// Adds what an attempt has used to that of earlier ones.
    pub fn add(&mut self, usage: Usage, tool_calls: &[ToolTally]) {
        self.usage = self.usage.plus(usage);
        for tally in tool_calls {
            match self.tool_calls.iter_mut().find(|known| known.tool == tally.tool) {
                Some(known) => {
                    known.count += tally.count;
                    known.total_duration_ms += tally.total_duration_ms;
                }
                None => self.tool_calls.push(tally.clone()),
            }
        }
    }
}

entity! {
    AgentRun as "run" in "agent_runs" {
        PROJECT_ID: Id<Project> = project_id => |run| run.project_id;
        TICKET_ID: Option<Id<Ticket>> = ticket_id => |run| run.ticket_id;
        REPOSITORY_ID: Option<Id<Repository>> = repository_id => |run| run.repository_id;
        AGENT_ID: Option<Id<Agent>> = agent_id => |run| run.agent_id;
        PROVIDER: ProviderId = provider => |run| run.provider.clone();
        MODE: AgentMode = mode => |run| run.mode;
        STATUS: RunStatus = status => |run| run.status;
        STOP_REASON: Option<StopReason> = stop_reason => |run| run.stop_reason;
        PARENT_RUN_ID: Option<Id<AgentRun>> = parent_run_id => |run| run.parent_run_id;
        UNIQUE_KEY: Option<String> = unique_key => |run| run.unique_key.clone();
        CREATED_BY: Option<Id<User>> = created_by => |run| run.created_by;
        CREATED_BY_KEY: Option<Id<ApiKey>> = created_by_key => |run| run.created_by_key;
    }
    refers PROJECT_ID -> Project Cascade;
    refers TICKET_ID -> Ticket SetNull(|run| run.ticket_id = None);
    refers REPOSITORY_ID -> Repository SetNull(|run| run.repository_id = None);
    refers PARENT_RUN_ID -> AgentRun SetNull(|run| run.parent_run_id = None);
    refers CREATED_BY -> User Restrict; // emptied, it would be the software's own
    refers CREATED_BY_KEY -> ApiKey Restrict;
    validate |run| {
        Invalid::text("input_prompt", &run.input_prompt, 1, AgentRun::MAX_PROMPT_CHARS)?;
        Invalid::no_nul("input_prompt", &run.input_prompt)?;
        for (field, text) in [("model", &run.model), ("base_ref", &run.base_ref), ("branch", &run.branch)] {
            if let Some(text) = text {
                Invalid::text(field, text, 1, 255)?;
                Invalid::no_nul(field, text)?;
                if text.starts_with('-') {
                    return Err(Invalid::new(field, "must not begin with `-`"));
                }
            }
        }
        if let Some(key) = &run.unique_key {
            Invalid::text("unique_key", key, 1, 200)?;
            Invalid::no_nul("unique_key", key)?;
        }
        run.constraints.validate()
    };
}
