//! This side of the conversation with the app-server: what is said when.

use std::mem;

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::wire::app::{Incoming, Outgoing, RpcError, ThreadOpened, TurnChanged};

const INITIALIZE: u64 = 1;
const OPEN_THREAD: u64 = 2;
const TELL: u64 = 3;
const START_TURN: u64 = 4;
const INTERRUPT: u64 = 5;

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
}

/// The order of calls: initialise, open a thread, begin a turn.
#[derive(Debug)]
pub(crate) struct Dialogue {
    task: Task,
    thread_id: Option<String>,
    turn_id: Option<String>,
    refused: bool,
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
        let dialogue = Self { task, thread_id: None, turn_id: None, refused: false, interrupted: false };
        (dialogue, opening)
    }

    /// Hears a message: what is to be said next.
    pub(crate) fn hear(&mut self, message: &Incoming) -> Vec<Outgoing> {
        match message {
            Incoming::Response { id, answer } => match (id.as_u64(), answer) {
                (Some(INITIALIZE), Ok(_)) => {
                    vec![Outgoing::Notification { method: "initialized" }, self.open_thread()]
                }
                (Some(OPEN_THREAD), Ok(result)) => match ThreadOpened::deserialize(result) {
                    Ok(opened) => self.begin(opened.thread.id),
                    Err(_) => self.refuse(),
                },
                (Some(START_TURN), Ok(result)) => {
                    self.turn_began(result);
                    Vec::new()
                }
                (Some(INITIALIZE | OPEN_THREAD | TELL | START_TURN), Err(RpcError { .. })) => self.refuse(),
                _ => Vec::new(),
            },
            Incoming::Notification { method, params } if method == "turn/started" => {
                self.turn_began(params);
                Vec::new()
            }
            Incoming::Notification { .. } | Incoming::Request { .. } => Vec::new(),
        }
    }

    /// Whether the turn runs.
    pub(crate) fn is_under_way(&self) -> bool {
        self.turn_id.is_some()
    }

    /// Whether Codex refused one of the calls that must succeed.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
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
        said.push(Outgoing::Request {
            id: START_TURN,
            method: "turn/start",
            params: json!({
                "threadId": thread_id,
                "input": [{ "type": "text", "text": self.task.prompt }],
            }),
        });
        self.thread_id = Some(thread_id);
        said
    }

    fn turn_began(&mut self, changed: &Json) {
        if let Ok(TurnChanged { thread_id, turn }) = TurnChanged::deserialize(changed)
            && (thread_id.is_none() || thread_id == self.thread_id)
        {
            self.turn_id = Some(turn.id);
        }
    }

    fn refuse(&mut self) -> Vec<Outgoing> {
        self.refused = true;
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(resume: Option<&str>) -> Task {
        Task {
            prompt: "Do it.".into(),
            instructions: "Be brief.".into(),
            model: None,
            resume: resume.map(str::to_owned),
            workdir: "repo".into(),
            sandbox: "read-only",
        }
    }

    fn answer(id: u64, result: Json) -> Incoming {
        Incoming::Response { id: json!(id), answer: Ok(result) }
    }

    fn methods(said: &[Outgoing]) -> Vec<&str> {
        said.iter()
            .filter_map(|message| match message {
                Outgoing::Request { method, .. } | Outgoing::Notification { method } => Some(*method),
                Outgoing::Answer { .. } | Outgoing::Refusal { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_new_thread_is_started_with_the_instructions() {
        let (mut dialogue, _) = Dialogue::open(task(None));
        let said = dialogue.hear(&answer(INITIALIZE, json!({})));
        assert_eq!(methods(&said), ["initialized", "thread/start"]);
        let Outgoing::Request { params, .. } = &said[1] else {
            panic!("{said:?}");
        };
        assert_eq!(params["developerInstructions"], "Be brief.");
        let said = dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
        assert_eq!(methods(&said), ["turn/start"]);
        assert_eq!(dialogue.interrupt(), None);
        dialogue.hear(&answer(START_TURN, json!({ "turn": { "id": "u", "status": "inProgress" } })));
        assert!(dialogue.is_under_way() && !dialogue.was_refused());
        assert_eq!(methods(&dialogue.interrupt().into_iter().collect::<Vec<_>>()), ["turn/interrupt"]);
        assert_eq!(dialogue.interrupt(), None);
    }

    #[test]
    fn a_resumed_thread_is_told_the_instructions_anew() {
        let (mut dialogue, _) = Dialogue::open(task(Some("t")));
        let said = dialogue.hear(&answer(INITIALIZE, json!({})));
        assert_eq!(methods(&said), ["initialized", "thread/resume"]);
        let said = dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
        assert_eq!(methods(&said), ["thread/inject_items", "turn/start"]);
    }

    #[test]
    fn a_sub_agents_turn_is_not_taken_for_ours() {
        let (mut dialogue, _) = Dialogue::open(task(None));
        dialogue.hear(&answer(OPEN_THREAD, json!({ "thread": { "id": "t" } })));
        dialogue.hear(&Incoming::Notification {
            method: "turn/started".into(),
            params: json!({ "threadId": "other", "turn": { "id": "x", "status": "inProgress" } }),
        });
        assert!(!dialogue.is_under_way());
    }

    #[test]
    fn a_refused_call_is_noticed() {
        let (mut dialogue, _) = Dialogue::open(task(None));
        let refusal = RpcError { code: -32600, message: "no".into() };
        dialogue.hear(&Incoming::Response { id: json!(OPEN_THREAD), answer: Err(refusal) });
        assert!(dialogue.was_refused());
    }
}
