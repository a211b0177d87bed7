//! Turns a recording into the moments of one session. Pure: what it asks of the disk happens later.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use lime_core::Micros;
use lime_core::governance::{Allowlist, ToolPattern};
use lime_core::ports::SessionSpec;
use lime_core::runs::{AgentEvent, Constraints, Failure, Limit, MessageRole, Outcome, ToolStatus, Usage};
use serde_json::{Value as Json, json};

use crate::file::FileWork;
use crate::place::Place;
use crate::recording::Recording;
use crate::step::{Action, Append, Delete, Edit, Fail, Leave, Millis, Read, Rename, Run, Step, Tool, Write};

/// Something that happens in a session, after a wait.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) wait: Duration,
    pub(crate) what: What,
    /// The answers to questions without which it does not happen.
    pub(crate) needs: Vec<Needed>,
}

impl Moment {
    /// At once.
    pub(crate) fn now(what: What) -> Self {
        Self { wait: Duration::ZERO, what, needs: Vec::new() }
    }
}

/// The answer that a question must have had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The question, in the order of the recording.
    pub(crate) question: usize,
    pub(crate) answer: Leave,
}

#[derive(Debug)]
pub(crate) enum What {
    /// The agent says something.
    Tell(AgentEvent),
    /// The agent asks for leave to make a call, and waits for the answer.
    Ask { question: usize, call_id: String, event: AgentEvent },
    /// A person was against a call: what is told of it, without the reason.
    Deny(AgentEvent),
    /// A tool works on a file and ends: `told` is what it tells if that goes well, without its output.
    Work { told: AgentEvent, work: FileWork, line: usize },
    /// The agent ends; if well, with the last that it said.
    End(Outcome),
    /// The agent does nothing more until it is cancelled.
    Hang,
}

/// The moments of a session; the last one is an end or a hang.
///
/// - Limits and denials are decided here, since a recording uses the same tokens and tools each time.
pub(crate) fn script(recording: &Recording, spec: &SessionSpec) -> VecDeque<Moment> {
    let mut script = Script {
        moments: VecDeque::new(),
        words: Words {
            prompt: &spec.request.prompt,
            mode: spec.request.mode.as_str(),
            run: spec.request.run_id.to_string(),
        },
        constraints: spec.request.constraints.clone().unwrap_or_default(),
        tools: &spec.tools,
        workdir: &spec.workdir,
        ask: &spec.ask,
        usage: Usage::default(),
        calls: 0,
        questions: 0,
        last_call: LastCall::Was(Leave::Allowed),
        needs: Vec::new(),
    };
    for step in &recording.steps {
        match script.limit() {
            Some(limit) if !step.action.is_end() => {
                script.needs.clear();
                script.add(Duration::ZERO, What::End(Outcome::Limited(limit)));
                return script.moments;
            }
            Some(_) | None => script.step(step),
        }
    }
    if !recording.steps.last().is_some_and(Step::is_end) {
        script.needs.clear();
        script.add(Duration::ZERO, What::End(Outcome::Succeeded { summary: None }));
    }
    script.moments
}

struct Script<'a> {
    moments: VecDeque<Moment>,
    words: Words<'a>,
    constraints: Constraints,
    tools: &'a Allowlist,
    workdir: &'a Path,
    ask: &'a [ToolPattern],
    usage: Usage,
    calls: usize,
    questions: usize,
    last_call: LastCall,
    /// What the moments of the step need that is being written.
    needs: Vec<Needed>,
}

/// What is known of the last call that is made in every playing, before any is.
#[derive(Debug, Clone, Copy)]
enum LastCall {
    Was(Leave),
    /// A person will decide, by the answer to this question.
    DependsOn(usize),
}

/// What a tool call does.
enum Effect {
    /// Nothing: the recording only says that it was done.
    Claimed {
        output: String,
        fails: bool,
    },
    File(FileWork),
}

impl Script<'_> {
    fn add(&mut self, wait: Duration, what: What) {
        self.moments.push_back(Moment { wait, what, needs: self.needs.clone() });
    }

    fn tell(&mut self, wait: Duration, event: AgentEvent) {
        self.add(wait, What::Tell(event));
    }

    /// The limit that the turns so far have reached: an agent takes no further turn then.
    fn limit(&self) -> Option<Limit> {
        let Constraints { max_turns, max_cost_cents, .. } = self.constraints;
        if max_turns.is_some_and(|most| self.usage.turns >= most) {
            return Some(Limit::Turns);
        }
        let money = max_cost_cents.map(Micros::from_cents).zip(self.usage.cost);
        money.is_some_and(|(most, used)| used >= most).then_some(Limit::Cost)
    }

    fn step(&mut self, step: &Step) {
        self.needs.clear();
        match (step.only_if, self.last_call) {
            (None, _) => {}
            (Some(answer), LastCall::DependsOn(question)) => self.needs.push(Needed { question, answer }),
            (Some(leave), LastCall::Was(was)) if leave == was => {}
            (Some(_), LastCall::Was(_)) => return,
        }
        let wait = step.wait;
        match &step.action {
            Action::Say(say) => self.say(wait, self.words.fill(&say.say), say.stream_ms.duration()),
            Action::Think(think) => {
                let text = self.words.fill(&think.think);
                self.tell(wait, AgentEvent::Reasoning { text });
            }
            Action::Read(Read { read, takes_ms }) => {
                let input = json!({ "file_path": read.as_str() });
                self.call(step, "Read", input, *takes_ms, Effect::File(FileWork::Read(read.clone())));
            }
            Action::Write(Write { write, content, takes_ms }) => {
                let content = self.words.fill(content);
                let input = json!({ "file_path": write.as_str(), "content": content });
                let work = FileWork::Write { place: write.clone(), content };
                self.call(step, "Write", input, *takes_ms, Effect::File(work));
            }
            Action::Append(Append { append, content, takes_ms }) => {
                let content = self.words.fill(content);
                let input = json!({ "file_path": append.as_str(), "append": content });
                let work = FileWork::Append { place: append.clone(), content };
                self.call(step, "Edit", input, *takes_ms, Effect::File(work));
            }
            Action::Edit(Edit { edit, find, replace, takes_ms }) => {
                let (find, replace) = (self.words.fill(find.as_str()), self.words.fill(replace));
                let input = json!({ "file_path": edit.as_str(), "old_string": find, "new_string": replace });
                let work = FileWork::Edit { place: edit.clone(), find, replace };
                self.call(step, "Edit", input, *takes_ms, Effect::File(work));
            }
            Action::Delete(Delete { delete, takes_ms }) => {
                let input = json!({ "command": format!("rm {}", quoted(delete)) });
                self.call(step, "Bash", input, *takes_ms, Effect::File(FileWork::Delete(delete.clone())));
            }
            Action::Rename(Rename { rename, to, takes_ms }) => {
                let input = json!({ "command": format!("mv {} {}", quoted(rename), quoted(to)) });
                let work = FileWork::Rename { from: rename.clone(), to: to.clone() };
                self.call(step, "Bash", input, *takes_ms, Effect::File(work));
            }
            Action::Run(Run { run, output, fails, takes_ms }) => {
                let input = json!({ "command": self.words.fill(run) });
                let effect = Effect::Claimed { output: self.words.fill(output), fails: *fails };
                self.call(step, "Bash", input, *takes_ms, effect);
            }
            Action::Tool(Tool { tool, input, output, fails, takes_ms }) => {
                let effect = Effect::Claimed { output: self.words.fill(output), fails: *fails };
                self.call(step, tool.as_str(), Json::Object(input.clone()), *takes_ms, effect);
            }
            Action::TurnUsage(turn) => {
                self.usage = self.usage.plus(turn.usage.into());
                self.tell(wait, AgentEvent::Usage(self.usage));
            }
            Action::Event(free) => self.tell(wait, free.event.0.clone()),
            Action::Fail(Fail { fail, message }) => {
                let failure = Failure::new(*fail, self.words.fill(message));
                self.add(wait, What::End(Outcome::Failed(failure)));
            }
            Action::Limited(limited) => self.add(wait, What::End(Outcome::Limited(limited.limit))),
            Action::Hang(_) => self.add(wait, What::Hang),
        }
    }

    /// A message: as a whole, or first word by word.
    fn say(&mut self, wait: Duration, text: String, stream: Duration) {
        let mut wait = wait;
        if !stream.is_zero() {
            let words: Vec<_> = text.split_inclusive(' ').collect();
            let pause = stream / u32::try_from(words.len().max(1)).unwrap_or(u32::MAX);
            for word in words {
                self.tell(wait, AgentEvent::Delta { text: word.to_owned() });
                wait = pause;
            }
        }
        self.tell(wait, AgentEvent::Message { role: MessageRole::Assistant, text });
    }

    /// A tool call: it begins, takes its time, and ends; or is denied, by the run's list or by the person who is asked.
    fn call(&mut self, step: &Step, tool: &str, input: Json, takes: Millis, effect: Effect) {
        self.calls += 1;
        let call_id = format!("call-{}", self.calls);
        let told = |status, input, output, duration_ms| AgentEvent::Tool {
            call_id: call_id.clone(),
            name: tool.to_owned(),
            status,
            input,
            output,
            duration_ms,
        };
        self.tell(step.wait, told(ToolStatus::Started, Some(input.clone()), None, None));
        let refusal = self.tools.check(tool, &input, self.workdir).err();
        let listed = refusal.is_none();
        let asked = listed && self.ask.iter().any(|pattern| pattern.matches(tool, &input));
        if step.only_if.is_none() {
            self.last_call = match (listed, asked) {
                (false, _) => LastCall::Was(Leave::Denied),
                (true, false) => LastCall::Was(Leave::Allowed),
                (true, true) => LastCall::DependsOn(self.questions),
            };
        }
        if let Some(refusal) = refusal {
            let output = Some(refusal.to_string());
            return self.tell(Duration::ZERO, told(ToolStatus::Denied, None, output, None));
        }
        if asked {
            let question = self.questions;
            self.questions += 1;
            let event = AgentEvent::asks(&call_id, tool, input);
            self.add(Duration::ZERO, What::Ask { question, call_id: call_id.clone(), event });
            self.needs.push(Needed { question, answer: Leave::Denied });
            self.add(Duration::ZERO, What::Deny(told(ToolStatus::Denied, None, None, None)));
            self.needs.pop();
            self.needs.push(Needed { question, answer: Leave::Allowed });
        }
        let what = match effect {
            Effect::Claimed { output, fails } => {
                let status = if fails { ToolStatus::Failed } else { ToolStatus::Completed };
                What::Tell(told(status, None, Some(output), Some(takes.get())))
            }
            Effect::File(work) => {
                let told = told(ToolStatus::Completed, None, None, Some(takes.get()));
                What::Work { told, work, line: step.line }
            }
        };
        self.add(takes.duration(), what);
    }
}

/// What the placeholders in a recording's texts stand for.
struct Words<'a> {
    prompt: &'a str,
    mode: &'a str,
    run: String,
}

impl Words<'_> {
    /// The text with its placeholders filled in; other `{{…}}` are the recording's own and stay.
    ///
    /// - In one pass, so that a prompt with a placeholder in it stays as it is.
    fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("{{") {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            let known = [("{{prompt}}", self.prompt), ("{{mode}}", self.mode), ("{{run_id}}", &self.run)];
            let (taken, put) = known
                .into_iter()
                .find(|(placeholder, _)| rest.starts_with(placeholder))
                .unwrap_or(("{{", "{{"));
            filled.push_str(put);
            rest = &rest[taken.len()..];
        }
        filled + rest
    }
}

/// The path as a shell takes it; only for show.
fn quoted(place: &Place) -> String {
    let path = place.as_str();
    if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
