//! This side of the conversation with the app-server: what is said when.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::mem;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::gate::Gate;
use crate::wire::app::{Incoming, Outgoing, RpcError, ThreadOpened, TurnChanged};

const INITIALIZE: u64 = 1;
const OPEN_THREAD: u64 = 2;
const TELL: u64 = 3;
const START_TURN: u64 = 4;
const INTERRUPT: u64 = 5;
const FIND_GATE: u64 = 6;
const TRUST_GATE: u64 = 7;
const CHECK_GATE: u64 = 8;
/// The first id of a message that was sent while the agent worked.
const MESSAGE: u64 = 100;

/// Whether an answer is one to a message that was sent while the agent worked.
pub(crate) fn is_message(id: &Json) -> bool {
    id.as_u64().is_some_and(|id| id >= MESSAGE)
}

/// What a run says to Codex.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) prompt: String,
    /// What it is told beside the prompt; empty if nothing.
    pub(crate) instructions: String,
    pub(crate) model: Option<String>,
    /// The thread to go on with.
    pub(crate) resume: Option<String>,
    pub(crate) workdir: String,
    pub(crate) sandbox: &'static str,
    /// Whether calls pass the gate, which Codex must then trust.
    pub(crate) gated: bool,
}

/// The order of calls: initialise, have the gate trusted, open a thread, begin a turn, say what more there is.
///
/// - A message is said by beginning a turn, always: Codex adds it to the turn that runs, or begins one with it, and
///   answers which turn that is.
#[derive(Debug)]
pub(crate) struct Dialogue {
    task: Task,
    thread_id: Option<String>,
    turn_id: Option<String>,
    /// Messages for the time when there is a thread.
    waiting: Vec<String>,
    next_message: u64,
    /// Messages to which Codex has not said yet which turn they are in.
    untold: BTreeSet<u64>,
    /// The turn that runs.
    running: Option<String>,
    /// The turn that ended last.
    ended: Option<String>,
    refused: bool,
    /// Codex would make calls without the gate.
    ungated: bool,
    interrupted: bool,
}

impl Dialogue {
    /// A dialogue, and what opens it.
    pub(crate) fn open(task: Task) -> (Self, Outgoing) {
        let opening = Outgoing::Request {
            id: INITIALIZE,
            method: "initialize",
            params: json!({
                "clientInfo": { "name": "assembly-lime", "version": env!("CARGO_PKG_VERSION") }
            }),
        };
        let dialogue = Self {
            task,
            thread_id: None,
            turn_id: None,
            waiting: Vec::new(),
            next_message: MESSAGE,
            untold: BTreeSet::new(),
            running: None,
            ended: None,
            refused: false,
            ungated: false,
            interrupted: false,
        };
        (dialogue, opening)
    }

    /// Hears a message: what is to be said next.
    pub(crate) fn hear(&mut self, message: &Incoming) -> Vec<Outgoing> {
        match message {
            Incoming::Response { id, answer } => match (id.as_u64(), answer) {
                (Some(INITIALIZE), Ok(_)) => {
                    let next = if self.task.gated { self.list_hooks(FIND_GATE) } else { self.open_thread() };
                    vec![Outgoing::Notification { method: "initialized" }, next]
                }
                (Some(FIND_GATE), Ok(hooks)) => match gate(hooks) {
                    Some(hook) => vec![trust(hook)],
                    None => self.ungated(),
                },
                (Some(TRUST_GATE), Ok(_)) => vec![self.list_hooks(CHECK_GATE)],
                (Some(CHECK_GATE), Ok(hooks)) => match gate(hooks) {
                    Some(hook) if hook["trustStatus"] == "trusted" && hook["enabled"] == true => {
                        vec![self.open_thread()]
                    }
                    Some(_) | None => self.ungated(),
                },
                (Some(FIND_GATE | TRUST_GATE | CHECK_GATE), Err(_)) => self.ungated(),
                (Some(OPEN_THREAD), Ok(result)) => match ThreadOpened::deserialize(result) {
                    Ok(opened) => self.begin(opened.thread.id),
                    Err(_) => self.refuse(),
                },
                (Some(id), answer) if self.untold.remove(&id) => match answer {
                    Ok(result) => {
                        self.turn_began(result);
                        Vec::new()
                    }
                    Err(_) if id == START_TURN => self.refuse(),
                    // It is lost, as the translator tells; what else was said is not.
                    Err(_) => Vec::new(),
                },
                (Some(INITIALIZE | OPEN_THREAD | TELL), Err(RpcError { .. })) => self.refuse(),
                _ => Vec::new(),
            },
            Incoming::Notification { method, params } => {
                match method.as_str() {
                    "turn/started" => self.turn_began(params),
                    "turn/completed" => self.turn_ended(params),
                    _ => {}
                }
                Vec::new()
            }
            Incoming::Request { .. } => Vec::new(),
        }
    }

    /// Whether the turn runs.
    pub(crate) fn is_under_way(&self) -> bool {
        self.turn_id.is_some()
    }

    /// Whether something that was said is still to be answered by the end of a turn.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.running.is_some() || !self.untold.is_empty() || !self.waiting.is_empty()
    }

    /// Whether Codex refused one of the calls that must succeed.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether Codex would make calls without asking at the gate.
    pub(crate) fn is_ungated(&self) -> bool {
        self.ungated
    }

    /// What says this to the agent; nothing yet, if there is no thread.
    pub(crate) fn send(&mut self, text: &str) -> Option<Outgoing> {
        if self.thread_id.is_none() {
            self.waiting.push(text.to_owned());
            return None;
        }
        let id = self.next_message;
        self.next_message += 1;
        Some(self.turn(id, text))
    }

    /// What interrupts the turn; nothing if none runs, or it was said already.
    pub(crate) fn interrupt(&mut self) -> Option<Outgoing> {
        let (thread_id, turn_id) = (self.thread_id.as_ref()?, self.turn_id.as_ref()?);
        if mem::replace(&mut self.interrupted, true) {
            return None;
        }
        Some(Outgoing::Request {
            id: INTERRUPT,
            method: "turn/interrupt",
            params: json!({ "threadId": thread_id, "turnId": turn_id }),
        })
    }

    fn list_hooks(&self, id: u64) -> Outgoing {
        Outgoing::Request { id, method: "hooks/list", params: json!({ "cwds": [self.task.workdir] }) }
    }

    fn open_thread(&self) -> Outgoing {
        let mut params = json!({
            "cwd": self.task.workdir,
            // Codex asks before anything leaves the sandbox, so that a refusal is seen; `never` refuses in silence.
            "approvalPolicy": "on-request",
            "sandbox": self.task.sandbox,
        });
        if let Some(model) = &self.task.model {
            params["model"] = json!(model);
        }
        let method = match &self.task.resume {
            Some(thread_id) => {
                params["threadId"] = json!(thread_id);
                params["excludeTurns"] = json!(true);
                "thread/resume"
            }
            None => {
                if !self.task.instructions.is_empty() {
                    params["developerInstructions"] = json!(self.task.instructions);
                }
                "thread/start"
            }
        };
        Outgoing::Request { id: OPEN_THREAD, method, params }
    }

    fn begin(&mut self, thread_id: String) -> Vec<Outgoing> {
        let mut said = Vec::new();
        // A thread keeps the instructions that it was started with: those of this run are put into its history.
        if self.task.resume.is_some() && !self.task.instructions.is_empty() {
            let content = json!([{ "type": "input_text", "text": self.task.instructions }]);
            said.push(Outgoing::Request {
                id: TELL,
                method: "thread/inject_items",
                params: json!({
                    "threadId": thread_id,
                    "items": [{ "type": "message", "role": "developer", "content": content }],
                }),
            });
        }
        self.thread_id = Some(thread_id);
        let prompt = mem::take(&mut self.task.prompt);
        said.push(self.turn(START_TURN, &prompt));
        let waiting = mem::take(&mut self.waiting);
        said.extend(waiting.iter().filter_map(|text| self.send(text)));
        said
    }

    fn turn(&mut self, id: u64, text: &str) -> Outgoing {
        self.untold.insert(id);
        Outgoing::Request {
            id,
            method: "turn/start",
            params: json!({ "threadId": self.thread_id, "input": [{ "type": "text", "text": text }] }),
        }
    }

    fn turn_began(&mut self, changed: &Json) {
        if let Some(id) = self.own_turn(changed) {
            // The answer to a message may come after the end of the turn that it was added to.
            if self.ended.as_ref() != Some(&id) {
                self.running = Some(id.clone());
            }
            self.turn_id = Some(id);
        }
    }

    fn turn_ended(&mut self, changed: &Json) {
        if let Some(id) = self.own_turn(changed) {
            self.running.take_if(|running| *running == id);
            self.ended = Some(id);
        }
    }

    /// The id of a turn of this thread; a sub-agent's is another's.
    fn own_turn(&self, changed: &Json) -> Option<String> {
        let TurnChanged { thread_id, turn } = TurnChanged::deserialize(changed).ok()?;
        (thread_id.is_none() || thread_id == self.thread_id).then_some(turn.id)
    }

    fn ungated(&mut self) -> Vec<Outgoing> {
        self.ungated = true;
        Vec::new()
    }

    fn refuse(&mut self) -> Vec<Outgoing> {
        self.refused = true;
        Vec::new()
    }
}

/// The gate among the hooks that Codex lists.
fn gate(hooks: &Json) -> Option<&Json> {
    let folders = hooks["data"].as_array()?.iter();
    folders.filter_map(|folder| folder["hooks"].as_array()).flatten().find(|hook| Gate::is_it(hook))
}

/// What makes Codex trust a hook: it runs none that nobody has looked at.
fn trust(hook: &Json) -> Outgoing {
    let mut trusted = serde_json::Map::new();
    trusted.insert(
        hook["key"].as_str().unwrap_or_default().to_owned(),
        json!({ "trusted_hash": hook["currentHash"] }),
    );
    let edit = json!({ "keyPath": "hooks.state", "value": trusted, "mergeStrategy": "upsert" });
    Outgoing::Request {
        id: TRUST_GATE,
        method: "config/batchWrite",
        params: json!({ "edits": [edit], "reloadUserConfig": true }),
    }
}
