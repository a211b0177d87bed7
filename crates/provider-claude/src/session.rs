use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::Result;
use lime_core::governance::{Redactor, SessionRedactor};
use lime_core::ports::{AgentSession, SessionReport, ToolAnswer};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Limit, Outcome, ToolStatus, Usage};
use lime_provider_cli::{CliExit, CliProcess, Line, ReadError, StopPlan};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::questions::{Heard, Questions};
use crate::say;
use crate::translate::Translator;
use crate::verdict::ExitFacts;

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
/// What is said of a CLI that makes calls without asking.
const UNASKED: &str = "Claude Code made a call without asking, though this run's calls need leave: this machine's \
                       managed settings switch hooks off. Allow hooks, or run it without approvals of tool calls.";

/// A run of Claude Code.
pub(crate) struct ClaudeSession {
    process: CliProcess,
    to_cli: mpsc::Sender<Value>,
    unwritten: VecDeque<Value>,
    events: VecDeque<AgentEvent>,
    translator: Translator,
    questions: Questions,
    redactor: SessionRedactor,
    /// The most calls of the model; the CLI itself counts them anew in each of its turns.
    max_turns: Option<u32>,
    began: Instant,
    stage: Stage,
    /// How it ended as far as this side of the wire decided it.
    decided: Option<Outcome>,
}

/// What a session is made of.
pub(crate) struct Parts<'p> {
    pub(crate) process: CliProcess,
    pub(crate) instructions: &'p str,
    pub(crate) prompt: &'p str,
    pub(crate) questions: Questions,
    pub(crate) redactor: Redactor,
    pub(crate) max_turns: Option<u32>,
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
    pub(crate) fn begin(parts: Parts<'_>) -> Self {
        let (to_cli, messages) = mpsc::channel(MAX_UNWRITTEN);
        let initialize = say::initialize(parts.instructions, parts.questions.needs_hooks());
        for first in [initialize, say::prompt(parts.prompt)] {
            to_cli.try_send(first).expect("a new channel has room for two");
        }
        let input = parts.process.input();
        tokio::spawn(async move { input.feed(messages).await });
        Self {
            process: parts.process,
            to_cli,
            unwritten: VecDeque::new(),
            events: VecDeque::new(),
            translator: Translator::new(),
            questions: parts.questions,
            redactor: SessionRedactor::new(parts.redactor),
            max_turns: parts.max_turns,
            began: Instant::now(),
            stage: Stage::Works,
            decided: None,
        }
    }

    /// Translates a line, answers it if it is a question, and sees whether the session goes on.
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
            events.into_iter().chain(self.hear(&line.text)).collect()
        };
        if let Stage::Works = self.stage {
            self.watch(&events);
        }
        self.tell(events);
    }

    fn tell(&mut self, events: Vec<AgentEvent>) {
        let Self { redactor, .. } = self;
        let clean = events.into_iter().flat_map(|event| redactor.events(event)).map(AgentEvent::bounded);
        self.events.extend(clean);
    }

    /// Ends the session where it is done, has reached a limit, or gets round its questions.
    fn watch(&mut self, events: &[AgentEvent]) {
        let calls =
            |event: &AgentEvent| matches!(event, AgentEvent::Tool { status: ToolStatus::Started, .. });
        let (begun, goes_on) = (self.translator.begun(), self.translator.has_result());
        let later = self.translator.results() > 0;
        if self.translator.is_done() {
            self.ends(END_GRACE);
        } else if self.questions.goes_unasked() && events.iter().any(calls) {
            self.decide(Outcome::Failed(Failure::new(FailureKind::InvalidRequest, UNASKED)));
        } else if later && self.max_turns.is_some_and(|most| begun > most || (begun == most && goes_on)) {
            self.decide(Outcome::Limited(Limit::Turns));
        }
    }

    /// What a line asks a person; any other question is answered at once.
    fn hear(&mut self, line: &str) -> Option<AgentEvent> {
        if !line.contains("control_") {
            return None;
        }
        match self.questions.hear(&serde_json::from_str(line).ok()?)? {
            Heard::Asks(event) => Some(event),
            Heard::Answer(answer) => {
                self.say(answer);
                None
            }
        }
    }

    /// Ends the agent for this reason, unless there is one already.
    fn decide(&mut self, outcome: Outcome) {
        self.decided.get_or_insert(outcome);
        self.ends(Duration::ZERO);
    }

    /// Closes the agent's stdin; it may take this long to end by itself.
    fn ends(&mut self, grace: Duration) {
        self.process.close_stdin();
        self.stage = Stage::Ends(Instant::now() + grace);
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
        let message = format!("The output of Claude Code could not be read on: {error}. Try again.");
        self.decided.get_or_insert(Outcome::Failed(Failure::new(FailureKind::Protocol, message)));
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
        let events = self.translator.close(self.began.elapsed());
        self.tell(events);
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

    async fn answer(&mut self, call_id: &str, answer: ToolAnswer) {
        if let Some(message) = self.questions.answer(call_id, answer) {
            self.say(message);
        }
    }

    async fn send(&mut self, text: &str) -> Result<bool> {
        let works = matches!(self.stage, Stage::Works);
        if works {
            self.say(say::message(text));
        }
        Ok(works)
    }

    async fn cancel(&mut self) {
        if let Stage::Ended(_) = self.stage {
            return;
        }
        // With its result said, the agent has come to its end, and only the process is still there.
        if self.decided.is_none() && !self.translator.is_done() {
            self.decided = Some(Outcome::Cancelled);
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
            facts.notes = exit.notes();
        }
        let Self { translator, decided, redactor, .. } = *self;
        let report = redactor.redactor().report(translator.finish(&facts));
        SessionReport { outcome: decided.unwrap_or(report.outcome), ..report }
    }
}

/// A session that never came to be, and says why.
pub(crate) struct StillbornSession(pub(crate) Failure);

#[async_trait]
impl AgentSession for StillbornSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        None
    }

    async fn answer(&mut self, _call_id: &str, _answer: ToolAnswer) {}

    async fn send(&mut self, _text: &str) -> Result<bool> {
        Ok(false)
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
