use std::collections::VecDeque;
use std::path::PathBuf;

use async_trait::async_trait;
use lime_core::Result;
use lime_core::ports::{AgentSession, SessionReport, ToolAnswer};
use lime_core::runs::{AgentEvent, Denial, Failure, FailureKind, MessageRole, Outcome, ToolStatus, Usage};
use tokio::time::{Instant, sleep_until};

use crate::script::{Moment, Needed, What};
use crate::step::Leave;

/// A recording that is being played.
#[derive(Debug)]
pub(crate) struct ReplaySession {
    workdir: PathBuf,
    session_id: Option<String>,
    /// What is still to happen.
    moments: VecDeque<Moment>,
    /// When the first of them happens; known from the first time that it is waited for.
    due: Option<Instant>,
    /// How it ended, once it has.
    outcome: Option<Outcome>,
    usage: Usage,
    denials: Vec<Denial>,
    /// The question that waits for its answer: its number, and its call.
    open: Option<(usize, String)>,
    answers: Vec<Needed>,
    /// Why the last call was denied.
    reason: String,
    /// What was said to the agent, and is still to be answered.
    unanswered: VecDeque<String>,
    last_words: Option<String>,
}

impl ReplaySession {
    pub(crate) fn new(workdir: PathBuf, session_id: Option<String>, moments: VecDeque<Moment>) -> Self {
        Self {
            workdir,
            session_id,
            moments,
            due: None,
            outcome: None,
            usage: Usage::default(),
            denials: Vec::new(),
            open: None,
            answers: Vec::new(),
            reason: String::new(),
            unanswered: VecDeque::new(),
            last_words: None,
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.moments.clear();
        // The first end counts: a cancel after the end does nothing, and so does an end after a cancel.
        self.outcome.get_or_insert(outcome);
    }

    /// Does what a moment says; gives the event that tells of it.
    fn perform(&mut self, what: What) -> Option<AgentEvent> {
        match what {
            What::Tell(event) => Some(event),
            What::Ask { question, call_id, event } => {
                self.open = Some((question, call_id));
                Some(event)
            }
            What::Deny(told) => Some(told_with(told, Err(std::mem::take(&mut self.reason)))),
            What::Work { told, work, line } => {
                let result = work.run(&self.workdir);
                if let Err(reason) = &result {
                    let message = format!(
                        "The recording does not fit this repository: {reason} (the step at its line {line}). \
                         Start from the files that it was made for, or change the recording."
                    );
                    self.end(Outcome::Failed(Failure::new(FailureKind::InvalidRequest, message)));
                }
                Some(told_with(told, result))
            }
            What::End(Outcome::Succeeded { .. }) => {
                let summary = self.last_words.take();
                self.end(Outcome::Succeeded { summary });
                None
            }
            What::End(outcome) => {
                self.end(outcome);
                None
            }
            What::Hang => None,
        }
    }

    /// Keeps what the report will say in step with what was told.
    fn keep_account(&mut self, event: &AgentEvent) {
        if let AgentEvent::Usage(usage) = event {
            self.usage = *usage;
        }
        if let AgentEvent::Message { role: MessageRole::Assistant, text } = event {
            self.last_words = Some(text.clone());
        }
        if let AgentEvent::Tool { call_id, name, status: ToolStatus::Denied, .. } = event {
            self.denials.push(Denial { call_id: call_id.clone(), tool: name.clone() });
        }
    }
}

#[async_trait]
impl AgentSession for ReplaySession {
    /// The engine asks in a `select!`, so this future may be dropped at its await and made anew. Nothing is lost by
    /// that: before the await, nothing is taken; after it, everything happens without another one.
    async fn next_event(&mut self) -> Option<AgentEvent> {
        while self.outcome.is_none() {
            if let Some(text) = self.unanswered.pop_front() {
                let text = format!("This recording hears you, and goes on as it was recorded: {text}");
                return Some(AgentEvent::Message { role: MessageRole::Assistant, text });
            }
            let next = match self.moments.front() {
                Some(next) if self.open.is_none() => next,
                // It waits for an answer, or hangs. An answer, a message or a cancel needs this future dropped first.
                Some(_) | None => return std::future::pending().await,
            };
            if !next.needs.iter().all(|needed| self.answers.contains(needed)) {
                self.moments.pop_front();
                continue;
            }
            if !next.wait.is_zero() {
                // A fixed point in time, so that a wait that is broken off does not begin again.
                sleep_until(*self.due.get_or_insert_with(|| Instant::now() + next.wait)).await;
            }
            self.due = None;
            let event = self.moments.pop_front().and_then(|moment| self.perform(moment.what));
            if let Some(event) = event {
                self.keep_account(&event);
                return Some(event);
            }
        }
        None
    }

    async fn answer(&mut self, call_id: &str, answer: ToolAnswer) {
        let Some((question, _)) = self.open.take_if(|(_, asked)| asked == call_id) else {
            return;
        };
        let answer = match answer {
            ToolAnswer::Allow => Leave::Allowed,
            ToolAnswer::Deny(reason) => {
                self.reason = reason;
                Leave::Denied
            }
        };
        self.answers.push(Needed { question, answer });
    }

    async fn send(&mut self, text: &str) -> Result<bool> {
        let hears = self.outcome.is_none();
        if hears {
            self.unanswered.push_back(text.to_owned());
        }
        Ok(hears)
    }

    async fn cancel(&mut self) {
        self.end(Outcome::Cancelled);
    }

    async fn report(mut self: Box<Self>) -> SessionReport {
        self.end(Outcome::Cancelled);
        SessionReport {
            outcome: self.outcome.unwrap_or(Outcome::Cancelled),
            session_id: self.session_id,
            usage: self.usage,
            denials: self.denials,
            diagnostics: None,
        }
    }
}

/// The end of a tool call, with what came of it.
fn told_with(mut told: AgentEvent, result: std::result::Result<String, String>) -> AgentEvent {
    if let AgentEvent::Tool { status, output, .. } = &mut told {
        if result.is_err() && *status == ToolStatus::Completed {
            *status = ToolStatus::Failed;
        }
        *output = Some(result.unwrap_or_else(|reason| reason));
    }
    told
}
