use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::governance::Redactor;
use lime_core::ports::{AgentSession, SessionReport};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Outcome, Usage};
use lime_provider_cli::{CliExit, CliInput, CliProcess, Line, ReadError, StopPlan, WriteError};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::permissions::{Decision, Permissions};
use crate::say;
use crate::translate::Translator;
use crate::verdict::ExitFacts;
use crate::wire::{Ask, Question};

/// How long the CLI may take to end once it has said its result and its stdin is closed; it takes 0.1 s.
const END_GRACE: Duration = Duration::from_secs(3);
/// How long the CLI may take to answer an interruption; it takes milliseconds, and a tool that it must kill more.
const INTERRUPT_GRACE: Duration = Duration::from_millis(500);
/// The patience after that. With the grace before it 1 s, which leaves the kernel 1 s of the 2 s of a cancellation.
const STOP: StopPlan =
    StopPlan { stdin_grace: Duration::from_millis(250), interrupt_grace: Duration::from_millis(250) };
/// How many messages to the CLI wait to be written before no more of its lines are read.
const MAX_UNWRITTEN: usize = 16;
/// How much of what the CLI prints while it is being cancelled is still translated, in bytes.
const MAX_LAST_WORDS: usize = 4 << 20;
/// How much is shown of a line that was too long to be kept, in characters.
const CUT_LINE_SHOWN: usize = 200;

/// A run of Claude Code.
pub(crate) struct ClaudeSession {
    process: CliProcess,
    to_cli: mpsc::Sender<Value>,
    unwritten: VecDeque<Value>,
    events: VecDeque<AgentEvent>,
    translator: Translator,
    permissions: Permissions,
    redactor: Redactor,
    began: Instant,
    stage: Stage,
    /// What went wrong on this side of the wire.
    fault: Option<Failure>,
}

/// How far a session is.
enum Stage {
    Works,
    /// It has said its result, or closed its stdout; until this time it may end by itself.
    Ends(Instant),
    Ended(CliExit),
}

impl ClaudeSession {
    /// Gives the agent its task, in a task of its own: the CLI takes seconds to start reading.
    pub(crate) fn begin(
        process: CliProcess,
        instructions: &str,
        prompt: &str,
        permissions: Permissions,
        redactor: Redactor,
    ) -> Self {
        let (to_cli, messages) = mpsc::channel(MAX_UNWRITTEN);
        let first = [say::initialize(instructions), say::prompt(prompt)];
        tokio::spawn(write(process.input(), first, messages));
        Self {
            process,
            to_cli,
            unwritten: VecDeque::new(),
            events: VecDeque::new(),
            translator: Translator::new(),
            permissions,
            redactor,
            began: Instant::now(),
            stage: Stage::Works,
            fault: None,
        }
    }

    /// Translates a line, and answers it if it is a question.
    fn take(&mut self, line: &Line) {
        let events = if let Some(bytes) = line.truncated {
            let start: String = line.text.chars().take(CUT_LINE_SHOWN).collect();
            vec![AgentEvent::Log {
                text: format!(
                    "Claude Code printed a line of {bytes} bytes, which is too long. It begins: {start}"
                ),
            }]
        } else {
            let events = self.translator.line(&line.text, self.began.elapsed());
            self.answer(&line.text);
            events
        };
        let redactor = &self.redactor;
        self.events.extend(events.into_iter().map(|event| redactor.event(event).bounded()));
        if self.translator.has_result() && matches!(self.stage, Stage::Works) {
            self.process.close_stdin();
            self.stage = Stage::Ends(Instant::now() + END_GRACE);
        }
    }

    /// Answers a question; an allowed call gets back the very input that it has, secrets and all.
    fn answer(&mut self, line: &str) {
        if !line.contains("control_request") {
            return;
        }
        let Ok(value) = serde_json::from_str::<Value>(line) else {
            return;
        };
        if value.get("type").and_then(Value::as_str) != Some("control_request") {
            return;
        }
        let ask = Ask::deserialize(&value).unwrap_or_default();
        let (Some(id), Some(question)) = (ask.request_id.as_ref(), ask.request.as_ref()) else {
            return;
        };
        let answer = match question.subtype.as_deref() {
            Some(Question::CAN_USE_TOOL) => match self.permissions.decide(question) {
                Decision::Allow => say::allow(id, question.input.as_ref().unwrap_or(&Value::Null)),
                Decision::Deny(reason) => say::deny(id, &reason),
            },
            Some(_) | None => say::unsupported(id),
        };
        self.say(answer);
    }

    fn say(&mut self, message: Value) {
        self.translator.sent(&message);
        self.unwritten.push_back(message);
    }

    /// Hands over what is to be said; a message is taken off only when there is room for it.
    async fn hand_over(&mut self) {
        while !self.unwritten.is_empty() {
            match self.to_cli.reserve().await {
                Ok(room) => {
                    if let Some(message) = self.unwritten.pop_front() {
                        room.send(message);
                    }
                }
                // Nobody reads any more: the CLI ends, and its stdout will tell.
                Err(_) => self.unwritten.clear(),
            }
        }
    }

    async fn step(&mut self) {
        self.hand_over().await;
        let line = match self.stage {
            Stage::Works => self.process.next_line().await,
            Stage::Ends(until) => match timeout_at(until, self.process.next_line()).await {
                Ok(line) => line,
                Err(_) => Ok(None),
            },
            Stage::Ended(_) => return,
        };
        match line {
            Ok(Some(line)) => self.take(&line),
            Ok(None) => self.end().await,
            Err(error) => self.broken(&error).await,
        }
    }

    /// The CLI's output cannot be read on: without it, the run cannot either.
    async fn broken(&mut self, error: &ReadError) {
        warn!(error = %error, "the output of Claude Code cannot be read");
        self.fault = Some(Failure::new(
            FailureKind::Protocol,
            format!("The output of Claude Code could not be read on: {error}. Try again."),
        ));
        let exit = self.process.stop(STOP).await;
        self.ended(exit);
    }

    /// Waits for the process to end by itself, then ends it.
    async fn end(&mut self) {
        if let Stage::Works = self.stage {
            self.stage = Stage::Ends(Instant::now() + END_GRACE);
        }
        let Stage::Ends(until) = self.stage else { return };
        let exit = match timeout_at(until, self.process.finish()).await {
            Ok(exit) => exit,
            Err(_) => self.process.stop(STOP).await,
        };
        self.ended(exit);
    }

    fn ended(&mut self, exit: CliExit) {
        self.events.extend(self.translator.close(self.began.elapsed()));
        self.stage = Stage::Ended(exit);
    }

    /// Reads on until the CLI has answered the interruption, or has not in time.
    async fn last_words(&mut self, until: Instant) {
        let mut read = 0;
        while !self.translator.has_result() && read < MAX_LAST_WORDS {
            match timeout_at(until, self.process.next_line()).await {
                Ok(Ok(Some(line))) => {
                    read += line.text.len();
                    self.take(&line);
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        }
    }
}

#[async_trait]
impl AgentSession for ClaudeSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if let Stage::Ended(_) = self.stage {
                return None;
            }
            self.step().await;
        }
    }

    async fn cancel(&mut self) {
        if let Stage::Ended(_) = self.stage {
            return;
        }
        // With its result said, the agent has come to its end, and only the process is still there.
        if !self.translator.has_result() {
            let until = Instant::now() + INTERRUPT_GRACE;
            self.say(say::interrupt());
            if timeout_at(until, self.hand_over()).await.is_ok() {
                self.last_words(until).await;
            }
        }
        let exit = self.process.stop(STOP).await;
        self.ended(exit);
    }

    async fn report(mut self: Box<Self>) -> SessionReport {
        self.cancel().await;
        let mut facts = ExitFacts::default();
        if let Stage::Ended(exit) = &self.stage {
            facts.code = exit.code;
            facts.signal = exit.signal;
            facts.stderr.clone_from(&exit.stderr_tail);
            facts.notes = notes(exit);
        }
        let Self { translator, fault, redactor, .. } = *self;
        let report = redactor.report(translator.finish(&facts));
        match fault {
            Some(fault) if report.outcome != Outcome::Cancelled => {
                SessionReport { outcome: Outcome::Failed(fault), ..report }
            }
            _ => report,
        }
    }
}

fn notes(exit: &CliExit) -> Vec<String> {
    let mut notes = Vec::new();
    if exit.forced {
        notes.push("had to be killed".to_owned());
    }
    if exit.leftovers_killed > 0 {
        notes.push(format!("{} leftover processes killed", exit.leftovers_killed));
    }
    if exit.survivors {
        notes.push("some process could not be confirmed gone".to_owned());
    }
    if exit.cut_lines > 0 {
        notes.push(format!("{} lines cut", exit.cut_lines));
    }
    notes
}

/// Writes what is to be said, in order, until nobody says or reads anything any more.
async fn write(input: CliInput, first: [Value; 2], mut messages: mpsc::Receiver<Value>) {
    let mut written = Ok(());
    for message in &first {
        if written.is_ok() {
            written = input.write_json(message).await;
        }
    }
    while written.is_ok() {
        let Some(message) = messages.recv().await else { return };
        written = input.write_json(&message).await;
    }
    match written {
        Ok(()) | Err(WriteError::Closed) => {}
        Err(error) => debug!(error = %error, "Claude Code does not read its stdin"),
    }
}

/// A session that never came to be, and says why.
pub(crate) struct StillbornSession(pub(crate) Failure);

#[async_trait]
impl AgentSession for StillbornSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        None
    }

    async fn cancel(&mut self) {}

    async fn report(self: Box<Self>) -> SessionReport {
        SessionReport {
            outcome: Outcome::Failed(self.0),
            session_id: None,
            usage: Usage::default(),
            denials: Vec::new(),
            diagnostics: None,
        }
    }
}
