use std::time::Duration;

use chrono::DateTime;
use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, Denial, MessageRole};
use serde_json::Value;

use crate::calls::{Answered, Calls};
use crate::failure::{Trouble, quote};
use crate::usage::Tally;
use crate::verdict::{ExitFacts, Verdict};
use crate::wire::{Ask, Assistant, Block, Line, Message, RateLimit, RunResult, Stream, System, User};

/// How a user's line begins that the CLI writes when it was interrupted.
const INTERRUPTED: &str = "[Request interrupted by user";
/// What the CLI answers to a call of a tool that exists, and that this run may not use; the second since 2.1.3xx.
const NOT_ENABLED: [&str; 2] = ["exists but is not enabled in this context", "is disabled for this session"];
/// What the CLI puts where an answer would be empty.
const NO_CONTENT: &str = "(no content)";
/// System lines that only matter to the CLI's own interface: their subtypes, or how these begin.
const QUIET_SYSTEM: &[&str] = &["hook_", "status", "task_", "thinking_tokens"];

/// Turns what Claude Code prints into events, and in the end into a report.
///
/// - Pure: the time of a line is given with it, and nothing is read or written elsewhere. The same lines give the
///   same events, so recorded sessions are tests.
/// - Never fails: a line that is not JSON becomes a [`Log`](AgentEvent::Log), one that nobody knows an
///   [`Unknown`](AgentEvent::Unknown).
/// - Holds a bounded state, however long the session is.
#[derive(Debug, Default)]
pub struct Translator {
    session_id: Option<String>,
    tally: Tally,
    calls: Calls,
    /// The agent's own message that is being streamed.
    streaming: Option<String>,
    /// How many messages the agent itself has begun: its calls of the model.
    begun: u32,
    /// How many turns have ended.
    results: u32,
    /// Messages that were sent to the agent, and that it has not heard yet, by their uuids.
    unheard: Vec<String>,
    verdict: Verdict,
}

impl Translator {
    /// A translator for one process of the CLI.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events of a line from the CLI's stdout, which came this long after the start.
    pub fn line(&mut self, line: &str, at: Duration) -> Vec<AgentEvent> {
        match serde_json::from_str::<Value>(line) {
            Ok(value) => self.value(&value, at),
            Err(_) if line.trim().is_empty() => Vec::new(),
            Err(_) => log(line),
        }
    }

    fn value(&mut self, value: &Value, at: Duration) -> Vec<AgentEvent> {
        match Line::read(value) {
            Line::System(system) => self.system(&system, value),
            Line::Assistant(assistant) => self.assistant(&assistant, at),
            Line::User(user) => self.user(&user, at),
            Line::Stream(stream) => self.stream(&stream),
            Line::Result(result) => self.result(*result),
            Line::Ask(ask) => self.ask(&ask),
            Line::RateLimit(limit) => self.rate_limit(&limit),
            Line::Quiet => Vec::new(),
            Line::Unknown => vec![AgentEvent::Unknown(value.clone())],
        }
    }

    /// Takes note of a line that was written to the CLI's stdin: a message with a uuid, an interruption, or the answer
    /// to a question.
    ///
    /// - After an interruption the session counts as cancelled, whatever the CLI says.
    pub fn sent(&mut self, value: &Value) {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        match text("/type") {
            Some("control_request") if text("/request/subtype") == Some("interrupt") => self.verdict.cancel(),
            Some("control_response") => {
                if let Some(id) = text("/response/request_id") {
                    let hook = text("/response/response/hookSpecificOutput/permissionDecision");
                    let denied = [text("/response/response/behavior"), hook].contains(&Some("deny"));
                    self.calls.answer(id, !denied);
                }
            }
            Some("user") => self.unheard.extend(text("/uuid").map(str::to_owned)),
            Some(_) | None => {}
        }
    }

    /// Whether the CLI has said how its turn ended.
    pub(crate) fn has_result(&self) -> bool {
        self.verdict.has_result()
    }

    /// Whether the agent has nothing more to do: its turn has ended, and all that was sent to it is answered, or never
    /// will be.
    pub(crate) fn is_done(&self) -> bool {
        self.has_result() && (self.unheard.is_empty() || self.verdict.is_limited())
    }

    /// How often the agent itself has called the model.
    pub(crate) fn begun(&self) -> u32 {
        self.begun
    }

    /// How many turns of the CLI have ended.
    pub(crate) fn results(&self) -> u32 {
        self.results
    }

    /// The last events, when no line comes any more: calls that never ended, end here.
    pub fn close(&mut self, at: Duration) -> Vec<AgentEvent> {
        self.calls.close(at)
    }

    /// How the session ended, from all that was said and from how the process ended.
    pub fn finish(self, exit: &ExitFacts) -> SessionReport {
        SessionReport {
            outcome: self.verdict.outcome(exit),
            session_id: self.session_id,
            usage: self.tally.total(),
            denials: self.calls.into_denied(),
            diagnostics: Some(exit.to_string()),
        }
    }

    fn system(&mut self, system: &System, raw: &Value) -> Vec<AgentEvent> {
        match system.subtype.as_deref() {
            Some("init") => self.init(system),
            Some("api_retry") => self.retry(system),
            Some("compact_boundary") => log("Claude shortened the conversation to make room."),
            Some(quiet) if QUIET_SYSTEM.iter().any(|known| quiet.starts_with(known)) => Vec::new(),
            Some(_) | None => vec![AgentEvent::Unknown(raw.clone())],
        }
    }

    /// Each turn of a process begins with such a line; only a new session is told.
    fn init(&mut self, system: &System) -> Vec<AgentEvent> {
        self.verdict.own_key(system.api_key_source.as_deref() == Some("ANTHROPIC_API_KEY"));
        let Some(session_id) = system.session_id.clone() else {
            return Vec::new();
        };
        if self.session_id.as_ref() == Some(&session_id) {
            return Vec::new();
        }
        self.session_id = Some(session_id.clone());
        vec![AgentEvent::Session { session_id, model: system.model.clone() }]
    }

    fn retry(&mut self, system: &System) -> Vec<AgentEvent> {
        let trouble = Trouble {
            status: *system.error_status,
            word: system.error.clone(),
            retrying: true,
            ..Trouble::default()
        };
        let mut message = match (*system.error_status, system.error.as_deref()) {
            (Some(status), Some(word)) => format!("Claude's API answered HTTP {status} ({word})"),
            (Some(status), None) => format!("Claude's API answered HTTP {status}"),
            (None, _) => "Claude's API did not answer".to_owned(),
        };
        if let (Some(attempt), Some(most)) = (*system.attempt, *system.max_retries) {
            message.push_str(&format!("; attempt {attempt} of {most} to try again"));
        }
        if let Some(delay) = *system.retry_delay_ms {
            message.push_str(&format!(", in {:.1} s", delay / 1_000.0));
        }
        message.push('.');
        let kind = trouble.kind();
        self.verdict.trouble(trouble);
        vec![AgentEvent::Error { message, kind, stack: None }]
    }

    fn assistant(&mut self, assistant: &Assistant, at: Duration) -> Vec<AgentEvent> {
        let Some(message) = assistant.message.as_ref() else {
            return Vec::new();
        };
        if assistant.error.is_some() || message.is_synthetic() {
            return self.own_words(assistant, message);
        }
        self.verdict.progress();
        self.count(message);
        let of_sub_agent = assistant.parent_tool_use_id.is_some();
        let mut events = Vec::new();
        for block in message.blocks() {
            match block {
                Block::Text(text) if text.trim().is_empty() || text == NO_CONTENT => {}
                Block::Text(text) if of_sub_agent => {
                    events.extend(log(&format!("A sub-agent says: {text}")));
                }
                Block::Text(text) => events.push(AgentEvent::Message { role: MessageRole::Assistant, text }),
                Block::Thinking(text) if text.trim().is_empty() => {}
                Block::Thinking(text) => events.push(AgentEvent::Reasoning { text }),
                Block::Hidden => {}
                Block::Call { id, name, input } => events.push(self.calls.begin(id, name, input, at)),
                Block::Answer { id, text, is_error } => {
                    events.push(self.calls.end(id, text, answered(is_error), at));
                }
                Block::Unknown(raw) => events.push(AgentEvent::Unknown(raw)),
            }
        }
        events
    }

    /// What the CLI says in the agent's place, such as an error of the API; the result line follows.
    fn own_words(&mut self, assistant: &Assistant, message: &Message) -> Vec<AgentEvent> {
        let texts: Vec<String> = message
            .blocks()
            .into_iter()
            .filter_map(|block| match block {
                Block::Text(text) => Some(text),
                _ => None,
            })
            .collect();
        let text = texts.join("\n");
        if assistant.error.is_some() {
            self.verdict.trouble(Trouble {
                word: assistant.error.clone(),
                text: text.clone(),
                stop_reason: message.stop_reason.clone(),
                ..Trouble::default()
            });
        }
        log(&text)
    }

    fn user(&mut self, user: &User, at: Duration) -> Vec<AgentEvent> {
        let Some(message) = user.message.as_ref() else {
            return Vec::new();
        };
        if *user.is_replay == Some(true) {
            self.heard(user.uuid.as_deref());
            return Vec::new();
        }
        let mut events = Vec::new();
        for block in message.blocks() {
            match block {
                Block::Answer { id, text, is_error } => {
                    let not_enabled = is_error
                        && text.contains("No such tool available")
                        && NOT_ENABLED.iter().any(|words| text.contains(words));
                    let how =
                        if refused(user, &id) || not_enabled { Answered::Denied } else { answered(is_error) };
                    events.push(self.calls.end(id, text, how, at));
                }
                Block::Text(text) if text.starts_with(INTERRUPTED) => {
                    self.verdict.interrupted();
                    events.extend(log(&text));
                }
                // What a sub-agent is told is the input of the call that started it.
                Block::Text(_) if user.parent_tool_use_id.is_some() || *user.is_synthetic == Some(true) => {}
                Block::Text(text) => events.extend(log(&text)),
                Block::Unknown(raw) => events.push(AgentEvent::Unknown(raw)),
                Block::Thinking(_) | Block::Hidden | Block::Call { .. } => {}
            }
        }
        events
    }

    /// The agent hears what was sent to it: in the turn that goes on, or in the next one, which begins with that.
    fn heard(&mut self, uuid: Option<&str>) {
        let before = self.unheard.len();
        self.unheard.retain(|sent| Some(sent.as_str()) != uuid);
        if self.unheard.len() < before {
            self.verdict.next_turn();
        }
    }

    fn stream(&mut self, stream: &Stream) -> Vec<AgentEvent> {
        let Some(event) = stream.event.as_ref() else {
            return Vec::new();
        };
        let of_sub_agent = stream.parent_tool_use_id.is_some();
        match event.kind.as_deref() {
            Some("message_start") => {
                self.verdict.progress();
                if let Some(message) = event.message.as_ref() {
                    self.count(message);
                    if !of_sub_agent {
                        self.begun = self.begun.saturating_add(1);
                        self.streaming.clone_from(&message.id);
                    }
                }
                Vec::new()
            }
            // The line does not name its message, and sub-agents stream in between.
            Some("message_delta") if !of_sub_agent => {
                let (Some(id), Some(tokens)) = (self.streaming.as_deref(), event.usage.as_ref()) else {
                    return Vec::new();
                };
                self.tally.message(id, tokens);
                vec![AgentEvent::Usage(self.tally.total())]
            }
            Some("content_block_delta") if !of_sub_agent => {
                let text = event.delta.as_ref().and_then(|delta| delta.text.clone());
                text.map(|text| AgentEvent::Delta { text }).into_iter().collect()
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn result(&mut self, result: RunResult) -> Vec<AgentEvent> {
        self.tally.result(&result);
        if self.session_id.is_none() {
            self.session_id.clone_from(&result.session_id);
        }
        let mut events = Vec::new();
        for denied in result.permission_denials.iter().flatten() {
            let Some(call_id) = denied.tool_use_id.clone() else {
                continue;
            };
            let tool = denied.tool_name.clone().unwrap_or_else(|| "unknown".to_owned());
            events.extend(self.calls.listed(Denial { call_id, tool }));
        }
        events.push(AgentEvent::Usage(self.tally.total()));
        self.results = self.results.saturating_add(1);
        self.verdict.result(result);
        events
    }

    /// Questions are answered by the session, which tells the answer by [`sent`](Translator::sent).
    fn ask(&mut self, ask: &Ask) -> Vec<AgentEvent> {
        if let (Some(request_id), Some(question)) = (ask.request_id.as_ref(), ask.request.as_ref())
            && let Some(call) = question.call()
        {
            let call = Denial { call_id: call.id.to_owned(), tool: call.tool.to_owned() };
            self.calls.ask(request_id.clone(), call);
        }
        Vec::new()
    }

    fn rate_limit(&mut self, limit: &RateLimit) -> Vec<AgentEvent> {
        let Some(info) = limit.rate_limit_info.as_ref() else {
            return Vec::new();
        };
        let resets_at = info.resets_at.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let until = resets_at
            .map(|at| format!(" It is lifted at {}.", at.format("%Y-%m-%d %H:%M UTC")))
            .unwrap_or_default();
        match info.status.as_deref() {
            Some("rejected") => {
                self.verdict.resets_at(resets_at);
                log(&format!("The limit of the account's plan is reached.{until}"))
            }
            Some("allowed_warning") => log(&format!("The limit of the account's plan is near.{until}")),
            Some(_) | None => Vec::new(),
        }
    }

    fn count(&mut self, message: &Message) {
        if let (Some(id), Some(tokens)) = (message.id.as_deref(), message.usage.as_ref()) {
            self.tally.message(id, tokens);
        }
    }
}

/// Whether the line says that this call was decided against; since 2.1.3xx.
fn refused(user: &User, call_id: &str) -> bool {
    user.tool_result_meta.iter().flatten().any(|meta| {
        let decision = meta.permission_decision.as_ref();
        meta.id.as_deref() == Some(call_id)
            && matches!(decision.and_then(|decision| decision.decision.as_deref()), Some("reject" | "deny"))
    })
}

fn answered(is_error: bool) -> Answered {
    if is_error { Answered::Badly } else { Answered::Well }
}

fn log(text: &str) -> Vec<AgentEvent> {
    if quote(text).is_empty() {
        return Vec::new();
    }
    vec![AgentEvent::Log { text: text.to_owned() }]
}
