//! From Codex's wire to events and a report: pure, so that recordings test it.

mod app;
mod exec;
mod items;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::{DateTime, Utc};
use lime_core::governance::PriceTable;
use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, Denial, Failure, FailureKind, Outcome, Usage};

pub(crate) use self::items::{PATCH, SHELL};
use crate::failure;
use crate::wire::Line;
use crate::wire::app::Tokens;

/// The most denied calls that are listed; later ones are still told as events.
const MAX_DENIALS: usize = 1_000;
/// How many bytes of a line that was too long are shown.
const SHOWN_OF_CUT_LINE: usize = 200;
/// The most bytes of stderr in the diagnostics.
const MAX_DIAGNOSTICS_BYTES: usize = 4 << 10;

/// Turns what Codex prints into events, line by line, and into a report in the end.
///
/// - Understands `codex app-server` and `codex exec --json`, and tells them apart by themselves.
/// - Pure: no I/O and no clock. The same lines give the same events.
/// - What it does not know becomes [`AgentEvent::Unknown`]; a line that is not JSON becomes [`AgentEvent::Log`].
#[derive(Debug)]
pub struct Translator {
    prices: PriceTable,
    model: Option<String>,
    session_id: Option<String>,
    last_words: Option<String>,
    open: BTreeMap<String, OpenCall>,
    denials: Vec<Denial>,
    diff: Option<u64>,
    plan: Option<u64>,
    tally: Tally,
    /// Tools were asked for since the last count of tokens.
    acting: bool,
    /// Tools were asked for by the call that was counted last, so the model will be called again.
    goes_on: bool,
    turn_began: bool,
    end: Option<TurnEnd>,
    /// Why a call of ours was refused.
    refusal: Option<String>,
    limit_reached: Option<String>,
    retry_at: Option<DateTime<Utc>>,
}

/// How a program ended, as far as the one who ran it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// The last that it wrote to stderr.
    pub stderr: String,
}

#[derive(Debug)]
struct OpenCall {
    tool: String,
    started_at_ms: Option<u64>,
}

#[derive(Debug)]
enum TurnEnd {
    Completed,
    Interrupted,
    Failed(Failure),
}

/// What was used: Codex counts over a thread's whole life, the report only from this session's beginning.
#[derive(Debug, Default)]
struct Tally {
    before: BTreeMap<String, Tokens>,
    now: BTreeMap<String, Tokens>,
    calls: u32,
}

impl Translator {
    /// A translator that knows what models cost; Codex itself never says.
    pub fn new(prices: PriceTable) -> Self {
        Self {
            prices,
            model: None,
            session_id: None,
            last_words: None,
            open: BTreeMap::new(),
            denials: Vec::new(),
            diff: None,
            plan: None,
            tally: Tally::default(),
            acting: false,
            goes_on: false,
            turn_began: false,
            end: None,
            refusal: None,
            limit_reached: None,
            retry_at: None,
        }
    }

    /// Reads one line, without its end.
    ///
    /// - How the turn ended, and why it failed, is told by the report alone.
    pub fn line(&mut self, raw: &str) -> Vec<AgentEvent> {
        self.take(Line::read(raw), raw)
    }

    /// Reads the beginning of a line of this many bytes that was too long to be kept whole.
    pub fn cut_line(&mut self, beginning: &str, bytes: u64) -> Vec<AgentEvent> {
        let shown = &beginning[..beginning.floor_char_boundary(SHOWN_OF_CUT_LINE)];
        let text = format!("Codex wrote a line of {bytes} bytes, which is too long to be read: {shown}…");
        vec![AgentEvent::Log { text }]
    }

    /// Reads a line that has been told apart.
    pub(crate) fn take(&mut self, line: Line, raw: &str) -> Vec<AgentEvent> {
        match line {
            Line::App(message) => self.app(message),
            Line::Exec(event) => self.exec(event),
            Line::Neither(value) => vec![AgentEvent::Unknown(value)],
            Line::Text if raw.trim().is_empty() => Vec::new(),
            Line::Text => vec![AgentEvent::Log { text: raw.to_owned() }],
        }
    }

    /// The report, once the program has ended and its last line was read.
    ///
    /// - By the end of the turn where Codex told it; otherwise by how the program ended: SIGHUP, SIGINT and
    ///   SIGTERM are requests to stop, anything else is a failure.
    pub fn finish(mut self, exit: &Exit) -> SessionReport {
        let stderr = plain(&exit.stderr);
        let usage = self.usage();
        // A patch that the read-only sandbox refuses without asking leaves no trace on stdout.
        for (nth, _) in stderr.matches("patch rejected: writing is blocked").enumerate() {
            self.deny(format!("unnamed_{nth}"), items::PATCH);
        }
        let outcome = match self.end {
            Some(TurnEnd::Completed) => Outcome::Succeeded { summary: self.last_words },
            Some(TurnEnd::Interrupted) => Outcome::Cancelled,
            Some(TurnEnd::Failed(failure)) => Outcome::Failed(failure),
            None => unfinished(exit, &stderr, self.refusal.as_deref()),
        };
        let outcome = match outcome {
            Outcome::Failed(mut failure)
                if matches!(failure.kind, FailureKind::QuotaExceeded | FailureKind::RateLimited) =>
            {
                failure.retry_at = failure.retry_at.or(self.retry_at);
                Outcome::Failed(failure)
            }
            other => other,
        };
        SessionReport {
            outcome,
            session_id: self.session_id,
            usage,
            denials: self.denials,
            diagnostics: diagnostics(exit, &stderr),
        }
    }

    /// Whether the turn has come to its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// The model, once Codex has said it, if its price is not known.
    pub(crate) fn unpriced_model(&self) -> Option<&str> {
        self.model.as_deref().filter(|model| self.prices.cost(model, &Usage::default()).is_none())
    }

    /// Whether the model will be called again, as far as can be told: its last answer asked for tools.
    ///
    /// - Codex counts a call's tokens after the call's tools have run.
    pub(crate) fn will_call_again(&self) -> bool {
        self.goes_on && !self.has_ended()
    }

    /// What was used since the session began.
    fn usage(&self) -> Usage {
        if self.tally.calls == 0 {
            return Usage::default();
        }
        let mut usage = Usage { turns: self.tally.calls, ..Usage::default() };
        for (thread, now) in &self.tally.now {
            let before = self.tally.before.get(thread).copied().unwrap_or_default();
            usage.input_tokens += now.input_tokens.saturating_sub(before.input_tokens);
            usage.cached_input_tokens += now.cached_input_tokens.saturating_sub(before.cached_input_tokens);
            usage.cache_write_tokens +=
                now.cache_write_input_tokens.saturating_sub(before.cache_write_input_tokens);
            usage.output_tokens += now.output_tokens.saturating_sub(before.output_tokens);
        }
        usage.cost = self.model.as_deref().and_then(|model| self.prices.cost(model, &usage));
        usage
    }

    /// Takes a thread's count of tokens: one from before the turn is what it had, and no news.
    fn count(&mut self, thread: String, total: Tokens) -> Vec<AgentEvent> {
        self.goes_on = std::mem::take(&mut self.acting);
        if !self.turn_began {
            self.tally.before.insert(thread, total);
            return Vec::new();
        }
        if self.tally.now.insert(thread, total) == Some(total) {
            return Vec::new();
        }
        self.tally.calls = self.tally.calls.saturating_add(1);
        vec![AgentEvent::Usage(self.usage())]
    }

    fn session(&mut self, id: String, model: Option<String>) -> Vec<AgentEvent> {
        if self.session_id.as_deref() == Some(id.as_str()) {
            return Vec::new();
        }
        self.session_id = Some(id.clone());
        self.model = model.or_else(|| self.model.take());
        vec![AgentEvent::Session { session_id: id, model: self.model.clone() }]
    }

    fn fail(&mut self, failure: Failure) -> Vec<AgentEvent> {
        self.end = Some(TurnEnd::Failed(failure));
        self.close_calls()
    }

    fn deny(&mut self, call_id: String, tool: &str) {
        if self.denials.len() < MAX_DENIALS {
            self.denials.push(Denial { call_id, tool: tool.to_owned() });
        }
    }

    /// A text, unless it is the same as the last time.
    fn changed(last: &mut Option<u64>, text: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        last.replace(hasher.finish()) != Some(hasher.finish())
    }
}

/// The outcome of a program that ended without an end of its turn.
fn unfinished(exit: &Exit, stderr: &str, refusal: Option<&str>) -> Outcome {
    const HANG_UP: i32 = 1;
    const INTERRUPT: i32 = 2;
    const TERMINATE: i32 = 15;
    if let Some(refusal) = refusal {
        return Outcome::Failed(failure::of_text(refusal));
    }
    match exit.signal {
        Some(HANG_UP | INTERRUPT | TERMINATE) => return Outcome::Cancelled,
        Some(signal) => {
            let said = format!("it was killed by signal {signal}");
            return Outcome::Failed(failure::failure(FailureKind::Crashed, &said));
        }
        None => {}
    }
    // Settings are checked before the first message; such an error is one line `Error: …` and nothing on stdout.
    let error = stderr.lines().find_map(|line| line.strip_prefix("Error: "));
    let failure = match error.map(failure::of_text) {
        Some(failure) if failure.kind != FailureKind::Internal => failure,
        _ => {
            let code = exit.code.map_or_else(String::new, |code| format!("exit code {code}"));
            let said = error.map_or(code, str::to_owned);
            failure::failure(FailureKind::Crashed, &said)
        }
    };
    Outcome::Failed(failure)
}

fn diagnostics(exit: &Exit, stderr: &str) -> Option<String> {
    let ended = match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("signal {signal}"),
        (Some(code), None) => format!("exit code {code}"),
        (None, None) => return (!stderr.is_empty()).then(|| tail(stderr).to_owned()),
    };
    Some(if stderr.is_empty() { ended } else { format!("{ended}\n{}", tail(stderr)) })
}

fn tail(text: &str) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(MAX_DIAGNOSTICS_BYTES))..]
}

/// The text without the colours that the app-server writes even to a pipe.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part
            .strip_prefix('[')
            .map(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';'));
        plain.push_str(rest.map_or(part, |rest| rest.strip_prefix('m').unwrap_or(rest)));
    }
    plain.trim().to_owned()
}
