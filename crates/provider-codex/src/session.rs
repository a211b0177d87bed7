use std::collections::VecDeque;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::governance::{Redactor, SessionRedactor};
use lime_core::ports::{AgentSession, SessionReport, ToolAnswer};
use lime_core::runs::{AgentEvent, Failure, FailureKind, Outcome, Usage};
use lime_core::{Error, ErrorKind, Result};
use lime_provider_cli::{CliExit, CliProcess, Line as CliLine, ReadError, StopPlan};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::approval::ApprovalRule;
use crate::dialogue::Dialogue;
use crate::failure;
use crate::gate::{Breach, Call, Gate, Judged};
use crate::home::Home;
use crate::limits::Limits;
use crate::translate::{Exit, Translator};
use crate::wire::Line;
use crate::wire::app::Outgoing;

/// How long Codex may take from its start until the turn runs; it takes 0.2 s, seconds on a busy machine.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long Codex may take to end the turn at a limit; it takes 20 ms.
const LIMIT_PATIENCE: Duration = Duration::from_secs(5);
/// How long Codex may take to end once the turn is over and its stdin is closed; it takes 50 ms.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How long a cancelled Codex may take to end its turn by itself.
const INTERRUPT_PATIENCE: Duration = Duration::from_millis(500);
/// The patience after that. With the one before it 1 s, which leaves the kernel 1 s of the 2 s of a cancellation.
const STOP: StopPlan =
    StopPlan { stdin_grace: Duration::from_millis(300), interrupt_grace: Duration::from_millis(200) };
/// How often it is looked for a question that is about to come; it takes milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is said of a Codex that makes calls without asking.
const UNASKED: &str = "This Codex makes calls without asking, though this run's calls need leave: it knows no hooks, or they \
                       are switched off. Use 0.169 or newer, or run it without approvals of tool calls.";
/// How many messages to Codex may wait to be written; one that asks more without reading answers is broken.
const MAX_UNWRITTEN: usize = 64;
/// How much of what Codex says while it is being cancelled is still read, in bytes.
const MAX_LAST_WORDS: usize = 4 << 20;

/// A run of Codex.
pub(crate) struct CodexSession {
    process: CliProcess,
    to_codex: mpsc::Sender<Outgoing>,
    dialogue: Dialogue,
    approvals: ApprovalRule,
    /// There is one if some calls need a person's leave.
    gate: Option<Gate>,
    looked: Instant,
    limits: Limits,
    translator: Translator,
    redactor: SessionRedactor,
    events: VecDeque<AgentEvent>,
    stage: Stage,
    /// How it ended as far as this side decided it.
    verdict: Option<Outcome>,
    exit: Option<CliExit>,
    // After the process, which writes there as long as it lives.
    home: Home,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The turn is to run by this time.
    Starts(Instant),
    Works,
    /// A limit is reached, and the turn is to end by this time.
    Limited(Instant),
    /// The turn is over, or stdout is, and the process is to end by this time.
    Ends(Instant),
    Ended,
}

/// What a session is made of.
pub(crate) struct Parts {
    pub(crate) process: CliProcess,
    pub(crate) opening: Outgoing,
    pub(crate) dialogue: Dialogue,
    pub(crate) approvals: ApprovalRule,
    pub(crate) gate: Option<Gate>,
    pub(crate) limits: Limits,
    pub(crate) translator: Translator,
    pub(crate) redactor: Redactor,
    pub(crate) home: Home,
}

impl CodexSession {
    /// Begins the conversation.
    pub(crate) fn begin(parts: Parts) -> Self {
        let (to_codex, messages) = mpsc::channel(MAX_UNWRITTEN);
        to_codex.try_send(parts.opening).expect("a new channel has room");
        let input = parts.process.input();
        tokio::spawn(async move { input.feed(messages).await });
        Self {
            process: parts.process,
            to_codex,
            dialogue: parts.dialogue,
            approvals: parts.approvals,
            gate: parts.gate,
            looked: Instant::now(),
            limits: parts.limits,
            translator: parts.translator,
            redactor: SessionRedactor::new(parts.redactor),
            events: VecDeque::new(),
            stage: Stage::Starts(Instant::now() + START_PATIENCE),
            verdict: None,
            exit: None,
            home: parts.home,
        }
    }

    /// Reads one line, or takes one step towards the end; nothing is lost if it is dropped while it waits.
    async fn step(&mut self) {
        let line = match self.stage {
            Stage::Works if self.gate.as_ref().is_some_and(Gate::is_awaited) => {
                let line = timeout_at(self.looked + LOOK_EVERY, self.process.next_line()).await;
                if self.looked.elapsed() >= LOOK_EVERY {
                    self.look();
                }
                match line {
                    Ok(line) => Ok(line),
                    Err(_) => return,
                }
            }
            Stage::Works => Ok(self.process.next_line().await),
            Stage::Starts(until) | Stage::Limited(until) => timeout_at(until, self.process.next_line()).await,
            Stage::Ends(until) => {
                let exit = match timeout_at(until, self.process.finish()).await {
                    Ok(exit) => exit,
                    Err(_) => {
                        self.must_be_killed();
                        self.process.stop(STOP).await
                    }
                };
                self.ended(exit);
                return;
            }
            Stage::Ended => return,
        };
        match line {
            Ok(Ok(Some(line))) => self.take(&line),
            Ok(Ok(None)) => self.ends(),
            Ok(Err(error)) => self.unreadable(&error),
            Err(_) => {
                if let Stage::Starts(_) = self.stage {
                    let said = format!("it did not begin to work within {} s", START_PATIENCE.as_secs());
                    self.decide(Outcome::Failed(failure::failure(FailureKind::Crashed, &said)));
                }
                self.ends();
            }
        }
    }

    /// Hears a line: translates it, answers it, and sees whether the run goes on.
    fn take(&mut self, line: &CliLine) {
        let clean = self.redactor.redactor().text(&line.text).into_owned();
        if let Some(bytes) = line.truncated {
            for event in self.translator.cut_line(&clean, bytes) {
                self.tell(event);
            }
            return;
        }
        let read = Line::read(&clean);
        let mut answers = Vec::new();
        if let Line::App(message) = &read {
            answers = self.dialogue.hear(message);
            answers.extend(self.approvals.hear(message));
            let breach = self.gate.as_mut().is_some_and(|gate| gate.hear(message) == Err(Breach));
            if breach || self.dialogue.is_ungated() {
                self.decide(Outcome::Failed(Failure::new(FailureKind::InvalidRequest, UNASKED)));
                self.ends();
            }
        }
        let events = self.translator.take(read, &clean);
        for event in events {
            match &event {
                AgentEvent::Session { session_id, .. } => self.opened(session_id),
                AgentEvent::Usage(usage) => self.check(usage),
                _ => {}
            }
            self.tell(event);
        }
        let goes_on = matches!(self.stage, Stage::Starts(_) | Stage::Works) && self.dialogue.is_unanswered();
        if self.dialogue.was_refused() || (self.translator.has_ended() && !goes_on) {
            self.ends();
            return;
        }
        if let Stage::Ends(_) = self.stage {
            return;
        }
        for answer in answers {
            self.say(answer);
        }
        if let Stage::Starts(_) = self.stage
            && self.dialogue.is_under_way()
        {
            self.stage = Stage::Works;
        }
    }

    /// Looks for questions at the gate.
    fn look(&mut self) {
        self.looked = Instant::now();
        let judged = self.gate.as_mut().map(|gate| gate.judge(&self.approvals));
        for judged in judged.into_iter().flatten() {
            match judged {
                Judged::Asked(Call { id, tool, input }) => self.tell(AgentEvent::asks(id, tool, input)),
                Judged::Denied(call, reason) => self.denied(call, reason),
            }
        }
    }

    fn denied(&mut self, call: Call, reason: String) {
        for event in self.translator.call_denied(call, reason) {
            self.tell(event);
        }
    }

    fn tell(&mut self, event: AgentEvent) {
        self.events.extend(self.redactor.events(event).map(AgentEvent::bounded));
    }

    /// The thread is there: it is kept, and it is seen whether the run's limits can be.
    fn opened(&mut self, thread_id: &str) {
        if let Err(error) = self.home.keep(thread_id) {
            warn!(%error, "this Codex thread cannot be resumed later");
        }
        let unpriced = self.translator.unpriced_model();
        if let Some(failure) = unpriced.and_then(|model| self.limits.objection(model)) {
            self.decide(Outcome::Failed(failure));
            self.ends();
        }
    }

    fn check(&mut self, usage: &Usage) {
        let Some(limit) = self.limits.reached(usage, self.translator.will_call_again()) else {
            return;
        };
        if let Stage::Works | Stage::Starts(_) = self.stage {
            self.decide(Outcome::Limited(limit));
            self.interrupt();
            self.stage = Stage::Limited(Instant::now() + LIMIT_PATIENCE);
        }
    }

    fn interrupt(&mut self) {
        if let Some(message) = self.dialogue.interrupt() {
            self.say(message);
        }
    }

    fn say(&mut self, message: Outgoing) {
        match self.to_codex.try_send(message) {
            Ok(()) => {}
            // Its stdout will tell why it reads no more.
            Err(mpsc::error::TrySendError::Closed(_)) => debug!("Codex does not read its stdin any more"),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let said = "it asks without reading the answers";
                self.decide(Outcome::Failed(failure::failure(FailureKind::Protocol, said)));
                self.ends();
            }
        }
    }

    /// The output cannot be read on, and without it the run cannot go on either.
    fn unreadable(&mut self, error: &ReadError) {
        warn!(%error, "the output of Codex cannot be read");
        self.decide(Outcome::Failed(failure::failure(FailureKind::Protocol, &error.to_string())));
        self.ends();
    }

    /// What is decided first stays.
    fn decide(&mut self, outcome: Outcome) {
        self.verdict.get_or_insert(outcome);
    }

    fn ends(&mut self) {
        self.process.close_stdin();
        if !matches!(self.stage, Stage::Ends(_) | Stage::Ended) {
            self.stage = Stage::Ends(Instant::now() + END_PATIENCE);
        }
    }

    /// A signal of ours must not be taken for somebody's wish that it stop.
    fn must_be_killed(&mut self) {
        if !self.translator.has_ended() && !self.dialogue.was_refused() {
            let said = "it closed its output and went on running";
            self.decide(Outcome::Failed(failure::failure(FailureKind::Crashed, said)));
        }
    }

    fn ended(&mut self, exit: CliExit) {
        for event in self.translator.close_calls() {
            self.tell(event);
        }
        self.exit = Some(exit);
        self.stage = Stage::Ended;
    }

    /// Reads on until the turn has ended, or has not in time.
    async fn last_words(&mut self, until: Instant) {
        let mut read = 0;
        while !self.translator.has_ended() && read < MAX_LAST_WORDS {
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
impl AgentSession for CodexSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.stage == Stage::Ended {
                return None;
            }
            self.step().await;
        }
    }

    async fn answer(&mut self, call_id: &str, answer: ToolAnswer) {
        if let Some((call, reason)) = self.gate.as_mut().and_then(|gate| gate.answer(call_id, answer)) {
            self.denied(call, reason);
        }
    }

    async fn send(&mut self, text: &str) -> Result<bool> {
        if !matches!(self.stage, Stage::Starts(_) | Stage::Works) {
            return Ok(false);
        }
        if self.to_codex.capacity() == 0 {
            let message = "Codex does not read what it is sent just now; send it again later";
            return Err(Error::new(ErrorKind::Unavailable, "codex.send", message));
        }
        if let Some(message) = self.dialogue.send(text) {
            self.say(message);
        }
        Ok(true)
    }

    async fn cancel(&mut self) {
        match self.stage {
            Stage::Ended => return,
            // It has come to its end, and only the process is still there.
            Stage::Ends(_) => {}
            Stage::Starts(_) | Stage::Works | Stage::Limited(_) => {
                self.decide(Outcome::Cancelled);
                self.interrupt();
                if self.dialogue.is_under_way() {
                    self.last_words(Instant::now() + INTERRUPT_PATIENCE).await;
                }
            }
        }
        let exit = self.process.stop(STOP).await;
        self.ended(exit);
    }

    async fn report(mut self: Box<Self>) -> SessionReport {
        self.cancel().await;
        let Self { translator, verdict, exit, redactor, .. } = *self;
        let mut facts = Exit::default();
        let mut notes = Vec::new();
        if let Some(exit) = exit {
            notes = exit.notes();
            facts = Exit {
                code: exit.code,
                signal: exit.signal,
                stderr: redactor.redactor().text(&exit.stderr_tail).into_owned(),
            };
        }
        let mut report = translator.finish(&facts);
        match verdict {
            // It was done before it could be stopped at the limit.
            Some(Outcome::Limited(_)) if matches!(report.outcome, Outcome::Succeeded { .. }) => {}
            Some(verdict) => report.outcome = verdict,
            None => {}
        }
        if !notes.is_empty() {
            notes.extend(report.diagnostics);
            report.diagnostics = Some(notes.join("\n"));
        }
        report
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
