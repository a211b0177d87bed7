//! Agents that act by a list.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use lime_core::governance::{ActionScope, ApprovalStatus};
use lime_core::ports::{AgentProvider, AgentSession, Readiness, SessionReport, SessionSpec, ToolAnswer};
use lime_core::runs::{
    AgentEvent, Denial, Failure, FailureKind, MessageRole, Outcome, ProviderId, ToolStatus, Usage,
};
use lime_core::{Error, ErrorKind};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use super::Ground;

pub const STUB: ProviderId = ProviderId::from_static("stub");

/// What an agent does.
#[derive(Clone)]
pub enum Act {
    /// Says something.
    Event(AgentEvent),
    /// Changes a file of its checkout.
    Write,
    /// Asks for leave to call a tool with this input, and waits for nothing.
    Ask(&'static str, Json),
    /// Waits for the answers to all that it has asked, and says how the calls ended.
    Answers,
    /// Waits until somebody says something.
    Listen,
    /// Waits until it is cancelled.
    Hang,
    /// Waits until the test lets it go on.
    Gate(Arc<Notify>),
    /// Panics.
    Panic,
}

/// One session of an agent: what it does, and how it ends.
#[derive(Clone)]
pub struct Play {
    pub acts: Vec<Act>,
    pub outcome: Outcome,
    pub usage: Usage,
    /// It hears nothing but its prompt.
    pub deaf: bool,
}

/// Agents that play one session after another.
#[derive(Clone)]
pub struct Stub {
    plays: Arc<Mutex<VecDeque<Play>>>,
    ground: Ground,
    seen: Arc<Mutex<Seen>>,
    /// The file that its agents read by themselves.
    reads: Option<&'static str>,
    /// Its agents cannot call what is not on the run's list.
    refuses_unlisted: bool,
}

/// What agents were given.
#[derive(Default)]
struct Seen {
    specs: Vec<Arc<SessionSpec>>,
    answers: Vec<(String, ToolAnswer)>,
    heard: Vec<String>,
    alive: usize,
}

struct StubSession {
    stub: Stub,
    workdir: PathBuf,
    acts: VecDeque<Act>,
    play: Play,
    asked: usize,
    open: HashMap<String, Option<ToolAnswer>>,
    unheard: VecDeque<String>,
    cancelled: bool,
    ended: bool,
}

impl Play {
    /// A session that does this and comes to its end.
    pub fn of(acts: impl IntoIterator<Item = Act>) -> Self {
        Self {
            acts: acts.into_iter().collect(),
            outcome: Outcome::Succeeded { summary: Some("I did it.".into()) },
            usage: Usage::default(),
            deaf: false,
        }
    }

    /// A session that writes a file, and comes to its end.
    pub fn work() -> Self {
        Self::of([Act::Write])
    }

    /// A session that fails.
    pub fn failed(kind: FailureKind) -> Self {
        Self { outcome: Outcome::Failed(Failure::new(kind, format!("It failed: {kind}."))), ..Self::work() }
    }
}

/// The agent says something.
pub fn says(text: &str) -> Act {
    Act::Event(AgentEvent::Message { role: MessageRole::Assistant, text: text.into() })
}

/// The session says which it is.
pub fn session(id: &str) -> Act {
    Act::Event(AgentEvent::Session { session_id: id.into(), model: Some("model-1".into()) })
}

/// A call of Bash begins or ends.
pub fn tool(call_id: &str, status: ToolStatus, output: Option<&str>) -> Act {
    Act::Event(AgentEvent::Tool {
        call_id: call_id.into(),
        name: "Bash".into(),
        status,
        input: (status == ToolStatus::Started).then(|| json!({ "command": "ls" })),
        output: output.map(Into::into),
        duration_ms: output.map(|_| 12),
    })
}

impl Stub {
    pub fn new(plays: impl IntoIterator<Item = Play>, ground: Ground) -> Self {
        let plays = Arc::new(Mutex::new(plays.into_iter().collect()));
        Self { plays, ground, seen: Arc::default(), reads: None, refuses_unlisted: false }
    }

    /// The same, with agents that read a file by themselves.
    pub fn reading(self, path: &'static str) -> Self {
        Self { reads: Some(path), ..self }
    }

    /// The same, with agents that cannot call what is not on the run's list.
    pub fn refusing(self) -> Self {
        Self { refuses_unlisted: true, ..self }
    }

    /// What the sessions were started with.
    pub fn specs(&self) -> Vec<Arc<SessionSpec>> {
        self.seen.lock().unwrap().specs.clone()
    }

    pub fn starts(&self) -> usize {
        self.seen.lock().unwrap().specs.len()
    }

    pub fn prompts(&self) -> Vec<String> {
        self.specs().iter().map(|spec| spec.request.prompt.clone()).collect()
    }

    /// The sessions that were to be gone on with.
    pub fn resumed(&self) -> Vec<Option<String>> {
        self.specs().iter().map(|spec| spec.resume.clone()).collect()
    }

    /// The answers that the agents were given, by the call.
    pub fn answers(&self) -> Vec<(String, ToolAnswer)> {
        self.seen.lock().unwrap().answers.clone()
    }

    /// What the agents were told while they worked.
    pub fn heard(&self) -> Vec<String> {
        self.seen.lock().unwrap().heard.clone()
    }

    /// How many agents are there now.
    pub fn alive(&self) -> usize {
        self.seen.lock().unwrap().alive
    }
}

#[async_trait]
impl AgentProvider for Stub {
    fn id(&self) -> ProviderId {
        STUB
    }

    async fn readiness(&self) -> Readiness {
        Readiness::Ready("a stub".into())
    }

    fn reads(&self, path: &str) -> bool {
        self.reads == Some(path)
    }

    fn refuses_unlisted(&self) -> bool {
        self.refuses_unlisted
    }

    async fn start(&self, spec: SessionSpec) -> lime_core::Result<Box<dyn AgentSession>> {
        let play = {
            let mut plays = self.plays.lock().unwrap();
            if plays.len() > 1 { plays.pop_front() } else { plays.front().cloned() }
        };
        let play = play.unwrap_or_else(Play::work);
        let workdir = spec.workdir.clone();
        let mut seen = self.seen.lock().unwrap();
        seen.specs.push(Arc::new(spec));
        seen.alive += 1;
        Ok(Box::new(StubSession {
            stub: self.clone(),
            workdir,
            acts: play.acts.clone().into(),
            play,
            asked: 0,
            open: HashMap::new(),
            unheard: VecDeque::new(),
            cancelled: false,
            ended: false,
        }))
    }
}

impl Drop for StubSession {
    fn drop(&mut self) {
        self.stub.seen.lock().unwrap().alive -= 1;
    }
}

impl StubSession {
    fn ask(&mut self, tool: &str, input: Json) -> AgentEvent {
        self.asked += 1;
        let call_id = format!("ask-{}", self.asked);
        self.open.insert(call_id.clone(), None);
        AgentEvent::Approval {
            approval_id: None,
            scope: ActionScope::tool(),
            action: tool.into(),
            call_id: Some(call_id),
            status: ApprovalStatus::Pending,
            summary: format!("{tool} wants to run."),
            payload: Some(input),
        }
    }

    /// The end of a call whose question was answered.
    fn answered(&mut self) -> Option<AgentEvent> {
        let (call_id, answer) = self.open.iter().find(|(_, answer)| answer.is_some())?;
        let (call_id, answer) = (call_id.clone(), answer.clone()?);
        self.open.remove(&call_id);
        let (status, output) = match answer {
            ToolAnswer::Allow => (ToolStatus::Completed, "done".to_owned()),
            ToolAnswer::Deny(reason) => (ToolStatus::Denied, reason),
        };
        let name = "Bash".into();
        Some(AgentEvent::Tool { call_id, name, status, input: None, output: Some(output), duration_ms: None })
    }
}

#[async_trait]
impl AgentSession for StubSession {
    async fn next_event(&mut self) -> Option<AgentEvent> {
        loop {
            tokio::task::yield_now().await;
            if self.cancelled || self.ended {
                return None;
            }
            match self.acts.front().cloned() {
                None => self.ended = true,
                Some(Act::Hang) => std::future::pending().await,
                Some(Act::Listen) => match self.unheard.pop_front() {
                    Some(heard) => {
                        self.stub.seen.lock().unwrap().heard.push(heard);
                        self.acts.pop_front();
                    }
                    None => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
                },
                Some(Act::Gate(gate)) => {
                    gate.notified().await;
                    self.acts.pop_front();
                }
                Some(Act::Panic) => panic!("the stub was told to panic"),
                Some(Act::Write) => {
                    self.stub.ground.write(&self.workdir);
                    self.acts.pop_front();
                }
                Some(Act::Event(event)) => {
                    self.acts.pop_front();
                    return Some(event);
                }
                Some(Act::Ask(tool, input)) => {
                    self.acts.pop_front();
                    return Some(self.ask(tool, input));
                }
                Some(Act::Answers) => {
                    if let Some(event) = self.answered() {
                        return Some(event);
                    }
                    if self.open.is_empty() {
                        self.acts.pop_front();
                    } else {
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                }
            }
        }
    }

    async fn answer(&mut self, call_id: &str, answer: ToolAnswer) {
        if let Some(open) = self.open.get_mut(call_id) {
            self.stub.seen.lock().unwrap().answers.push((call_id.to_owned(), answer.clone()));
            *open = Some(answer);
        }
    }

    async fn send(&mut self, text: &str) -> lime_core::Result<bool> {
        if self.play.deaf {
            return Err(Error::new(ErrorKind::Unsupported, "stub.send", "the stub is deaf"));
        }
        if self.ended || self.cancelled {
            return Ok(false);
        }
        self.unheard.push_back(text.to_owned());
        Ok(true)
    }

    async fn cancel(&mut self) {
        self.cancelled = true;
    }

    async fn report(self: Box<Self>) -> SessionReport {
        SessionReport {
            outcome: if self.cancelled { Outcome::Cancelled } else { self.play.outcome.clone() },
            session_id: None,
            usage: self.play.usage,
            denials: Vec::<Denial>::new(),
            diagnostics: Some("exit code 1; stderr: boom".into()),
        }
    }
}
