use std::path::PathBuf;
use std::time::Duration;

use assembly_lime::ports::Live;
use assembly_lime::runs::{AgentEvent, MessageRole, RunStatus, ToolStatus, Usage};
use console::{Style, style};

use super::call::Call;
use super::screen::Screen;
use super::text::{clean, count, cut, first_line, time, wrap};
use super::{End, Show, cost};

/// How many columns the name of a fact takes.
const NAME: usize = 12;
/// How many columns the name of a tool takes, unless it is longer.
const TOOL: usize = 6;
/// How many lines of a message in the making are shown, and of how many bytes at its end.
const DRAFT_LINES: usize = 6;
const DRAFT_BYTES: usize = 4 << 10;
/// How many lines of the agent's thoughts, and of what a failed tool said, are shown.
const THOUGHT_LINES: usize = 3;
const FAILURE_LINES: usize = 3;
/// How many lines of the diff are shown.
const DIFF_LINES: usize = 40;

/// Shows a run to a person: few lines, few colours, and on a terminal one line that moves.
pub(crate) struct Person {
    screen: Screen,
    verbose: bool,
    checkouts: PathBuf,
    /// The end of the message that is being written.
    draft: String,
    calls: Vec<Call>,
    usage: Option<Usage>,
    /// A blank line goes before what comes next.
    parted: bool,
}

impl Person {
    /// Shows a run that works below the folder `checkouts`.
    pub(crate) fn new(screen: Screen, verbose: bool, checkouts: PathBuf) -> Self {
        Self {
            screen,
            verbose,
            checkouts,
            draft: String::new(),
            calls: Vec::new(),
            usage: None,
            parted: true,
        }
    }

    /// Lines with a mark before the first.
    fn block(&mut self, mark: &str, text: &str, look: &Style, most: usize) {
        let columns = self.screen.width().saturating_sub(4);
        let text = clean(text);
        let lines = wrap(text.trim(), columns);
        self.gap();
        for (index, line) in lines.iter().take(most).enumerate() {
            let mark = if index == 0 { mark } else { " " };
            self.screen.line(format!("  {mark} {}", look.apply_to(line)).trim_end());
        }
        if lines.len() > most {
            self.screen.line(&format!("    {}", style(format!("… {} more lines", lines.len() - most)).dim()));
        }
    }

    /// A line or two of the machinery.
    fn aside(&mut self, text: &str) {
        self.block(" ", text, &Style::new().dim(), usize::MAX);
    }

    fn gap(&mut self) {
        if std::mem::take(&mut self.parted) {
            self.screen.line("");
        }
    }

    fn show_event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Status { status, detail } => self.status(status, detail),
            AgentEvent::Message { role: MessageRole::Assistant, text } => {
                self.draft.clear();
                self.parted = true;
                self.block("•", &text, &Style::new(), usize::MAX);
            }
            AgentEvent::Message {
                role: MessageRole::System | MessageRole::Tool | MessageRole::User,
                text,
            } => {
                self.aside(&text);
            }
            AgentEvent::Delta { text } => self.piece(&text),
            AgentEvent::Reasoning { text } => {
                let most = if self.verbose { usize::MAX } else { THOUGHT_LINES };
                self.block(" ", &text, &Style::new().dim().italic(), most);
            }
            AgentEvent::Tool { call_id, name, status: ToolStatus::Started, input, .. } => {
                self.calls.push(Call::begin(&call_id, &name, input.as_ref(), &self.checkouts));
            }
            AgentEvent::Tool { call_id, name, status, input, output, duration_ms } => {
                let known = self.calls.iter().position(|call| call.id == call_id);
                let call = match known {
                    Some(index) => self.calls.remove(index),
                    None => Call::begin(&call_id, &name, input.as_ref(), &self.checkouts),
                };
                let took = duration_ms.map_or_else(|| call.since.elapsed(), Duration::from_millis);
                self.call(&call, status, took, output.as_deref());
            }
            // Nothing is asked here unless somebody has stored a policy that says so.
            AgentEvent::Approval { status, summary, .. } => self.aside(&format!("{status}: {summary}")),
            AgentEvent::Artifact { name, url, .. } => {
                self.aside(&format!("made {name} {}", url.unwrap_or_default()));
            }
            AgentEvent::Error { message, .. } => self.block("✗", &message, &Style::new().red(), usize::MAX),
            AgentEvent::Usage(usage) => self.usage = Some(usage),
            AgentEvent::Log { text } if self.verbose => self.aside(&text),
            AgentEvent::Session { session_id, model } if self.verbose => {
                self.aside(&format!("session {session_id} {}", model.unwrap_or_default()));
            }
            AgentEvent::Unknown(raw) if self.verbose => self.aside(&format!("unknown: {raw}")),
            // The diff is shown at the end, when it is what was committed.
            AgentEvent::Diff { .. }
            | AgentEvent::Log { .. }
            | AgentEvent::Session { .. }
            | AgentEvent::Unknown(_) => {}
        }
    }

    fn status(&mut self, status: RunStatus, detail: Option<String>) {
        if self.verbose && !status.is_final() {
            self.aside(&format!("{status} {}", detail.unwrap_or_default()));
        }
    }

    fn piece(&mut self, text: &str) {
        self.draft.push_str(text);
        if self.draft.len() > 2 * DRAFT_BYTES {
            let from = self.draft.ceil_char_boundary(self.draft.len() - DRAFT_BYTES);
            self.draft.drain(..from);
        }
    }

    fn call(&mut self, call: &Call, status: ToolStatus, took: Duration, output: Option<&str>) {
        let mark = match status {
            ToolStatus::Started | ToolStatus::Completed => style("✓").green(),
            ToolStatus::Failed => style("✗").red(),
            ToolStatus::Denied => style("⊘").yellow(),
        };
        let took = style(format!("{:>8}", time(took))).dim();
        let tool = format!("{:TOOL$}", call.tool);
        let room = self.screen.width().saturating_sub(19 + tool.chars().count());
        self.gap();
        self.screen.line(
            format!("    {mark} {took}  {} {}", style(tool).cyan(), cut(&call.subject, room)).trim_end(),
        );
        if matches!(status, ToolStatus::Failed | ToolStatus::Denied) {
            let said = clean(output.unwrap_or_default());
            let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
            for line in &lines[lines.len().saturating_sub(FAILURE_LINES)..] {
                let line = cut(line, self.screen.width().saturating_sub(16));
                self.screen.line(&format!("{:16}{}", "", style(line).dim()));
            }
        }
    }

    /// What the line that moves says now.
    fn reparted(&self, since_now: bool) {
        let columns = self.screen.width().saturating_sub(4);
        let draft = if self.draft.is_empty() { Vec::new() } else { wrap(clean(&self.draft).trim(), columns) };
        let last = &draft[draft.len().saturating_sub(DRAFT_LINES)..];
        self.screen.writing(&last.iter().map(|line| format!("    {line}")).collect::<Vec<_>>());
        let doing = match self.calls.last() {
            Some(call) => format!("{} {}", call.tool, call.subject),
            None if self.draft.is_empty() => "thinking".to_owned(),
            None => "writing".to_owned(),
        };
        let used = self.usage.map(|usage| format!(" · {}", cost(&usage))).unwrap_or_default();
        let room = self.screen.width().saturating_sub(16 + used.chars().count());
        self.screen.waiting(&format!("{}{used}", cut(&doing, room)), since_now);
    }

    /// The beginning of the diff, without what is only for programs.
    fn diff(&mut self, diff: &str) {
        let diff = clean(diff);
        let mut in_head = true;
        let mut lines = Vec::new();
        for line in diff.lines() {
            let begins_file = line.starts_with("diff --git ");
            in_head = begins_file || in_head && !line.starts_with("@@");
            let look = match line.as_bytes().first() {
                _ if begins_file => Style::new().bold(),
                _ if in_head && ["index ", "--- ", "+++ "].iter().any(|start| line.starts_with(start)) => {
                    continue;
                }
                _ if in_head => Style::new().dim(),
                Some(b'+') => Style::new().green(),
                Some(b'-') => Style::new().red(),
                Some(b'@') => Style::new().cyan(),
                _ => Style::new(),
            };
            let path = line.rsplit_once(" b/").filter(|_| begins_file).map(|(_, path)| path);
            lines.push((look, path.unwrap_or(line)));
        }
        for (look, line) in lines.iter().take(DIFF_LINES) {
            let line = cut(line, self.screen.width().saturating_sub(4));
            self.screen.line(format!("    {}", look.apply_to(line)).trim_end());
        }
        if let Some(more @ 1..) = lines.len().checked_sub(DIFF_LINES) {
            self.screen
                .line(&format!("    {}", style(format!("… {}", count(more as u64, "more line"))).dim()));
        }
        self.screen.line("");
    }
}

impl Show for Person {
    fn title(&mut self) {
        let version = env!("CARGO_PKG_VERSION");
        self.screen.line(&format!(
            "{} {}\n",
            style("Assembly Lime").bold(),
            style(format!("{version} quickstart")).dim()
        ));
    }

    fn fact(&mut self, name: &str, value: &str) {
        self.screen.line(&format!("  {}{}", style(format!("{name:NAME$}")).dim(), clean(value)));
    }

    fn waiting(&mut self, what: &str) {
        self.screen.waiting(what, true);
    }

    fn event(&mut self, live: Live) {
        let event = match live {
            Live::Recorded(event) => event.event,
            Live::Ephemeral(event) => event,
        };
        let since_now =
            matches!(event, AgentEvent::Message { .. } | AgentEvent::Tool { .. } | AgentEvent::Status { .. });
        self.show_event(event);
        self.reparted(since_now);
    }

    fn note(&mut self, text: &str) {
        self.aside(text);
    }

    fn end(&mut self, end: &End) {
        self.screen.rest();
        for call in std::mem::take(&mut self.calls) {
            self.call(
                &call,
                ToolStatus::Failed,
                call.since.elapsed(),
                Some("the agent stopped before the call ended"),
            );
        }
        let mark = match end.run.status {
            RunStatus::Succeeded => style("✓").green().bold(),
            RunStatus::Cancelled => style("■").yellow().bold(),
            _ => style("✗").red().bold(),
        };
        self.screen.line(&format!("\n  {mark} {}\n", style(first_line(&end.in_a_line())).bold()));
        if let Some(diff) = &end.diff {
            self.diff(&diff.unified_diff);
        }
        for (name, value) in end.facts() {
            self.fact(name, &value);
        }
    }
}
