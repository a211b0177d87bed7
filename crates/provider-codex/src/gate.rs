//! The gate before Codex's calls, at which a person is asked.
//!
//! - It is a hook of Codex's own (`PreToolUse`), a script in the run's home that writes the call into a file and waits
//!   for the answer. What passes is still held by the sandbox, and by [`ApprovalRule`] where it asks to leave it.
//! - Codex's approvals could not be it: to accept one lets the command leave the sandbox, silently where it fails
//!   inside (policy `untrusted`), or where it asked to, which the question does not always tell (0.169.0).
//! - What the script cannot do, it takes for a no. The sandbox writes neither the script nor the answers.

mod files;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use lime_core::governance::ToolPattern;
use lime_core::ports::ToolAnswer;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use self::files::{Name, Question, Questions};
use crate::approval::ApprovalRule;
use crate::translate::{PATCH, SHELL};
use crate::wire::app::{Incoming, ItemChanged};
use crate::wire::item::{Item, Kind};

/// What Codex runs before each call, in a shell.
const COMMAND: &str = "/bin/sh \"$CODEX_HOME/ask\"";
/// The longest that a question can wait, in seconds: 31 days, longer than any approval. Then the hook fails, and with
/// it the session.
const PATIENCE: u32 = 31 * 24 * 3_600;
/// How many questions can be open; an agent that has more is told no.
const MAX_OPEN: usize = 1_000;
/// How many calls that came to the gate are remembered until they begin.
const MAX_SEEN: usize = 1_000;

/// The gate of one run.
#[derive(Debug)]
pub(crate) struct Gate {
    questions: Questions,
    ask: Vec<ToolPattern>,
    /// Hooks that have begun, and whose question has not been read yet.
    coming: usize,
    open: Vec<Open>,
    /// Calls that came to the gate, the newest last.
    seen: VecDeque<String>,
}

/// A question that waits for a person.
#[derive(Debug)]
struct Open {
    call: Call,
    name: Name,
}

/// A call, named as events name it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) input: Json,
}

/// What comes of a call at the gate.
#[derive(Debug, PartialEq)]
pub(crate) enum Judged {
    /// A person is asked; the tool has the name by which a rule means it.
    Asked(Call),
    /// It was denied, for this reason.
    Denied(Call, String),
}

/// A call that got round the gate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach;

impl Gate {
    /// Makes the gate in a run's home.
    pub(crate) fn set_up(home: &Path, ask: Vec<ToolPattern>) -> io::Result<Self> {
        let questions = Questions::set_up(home)?;
        Ok(Self { questions, ask, coming: 0, open: Vec::new(), seen: VecDeque::new() })
    }

    /// The settings by which Codex calls it.
    pub(crate) fn settings() -> String {
        format!(
            "\n[[hooks.PreToolUse]]\n\
             [[hooks.PreToolUse.hooks]]\ntype = \"command\"\ncommand = {}\ntimeout = {PATIENCE}\n",
            json!(COMMAND)
        )
    }

    /// Whether a hook, as Codex lists it, is the gate.
    pub(crate) fn is_it(hook: &Json) -> bool {
        hook["eventName"] == "preToolUse" && hook["source"] == "user" && hook["command"] == COMMAND
    }

    /// Whether a question is about to come.
    pub(crate) fn is_awaited(&self) -> bool {
        self.coming > 0
    }

    /// Hears a message: whether a call got round the gate.
    pub(crate) fn hear(&mut self, message: &Incoming) -> Result<(), Breach> {
        let Incoming::Notification { method, params } = message else {
            return Ok(());
        };
        let run = &params["run"];
        // The run's own settings are the user's, and name no other.
        let ours = || run["eventName"] == "preToolUse" && run["source"] == "user";
        match method.as_str() {
            "hook/started" if ours() => self.coming += 1,
            "hook/completed" if ours() && run["status"] == "failed" => return Err(Breach),
            "turn/completed" => {
                self.coming = 0;
                self.open.clear();
            }
            "item/started" => {
                let changed = ItemChanged::deserialize(params).ok();
                let item = changed.and_then(|changed| Item::from_json(&changed.item));
                if let Some(Item {
                    id, kind: Kind::CommandExecution { .. } | Kind::FileChange { .. }, ..
                }) = item
                    && !self.seen.contains(&id)
                {
                    return Err(Breach);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Judges the calls that have come to the gate: those that nobody need be asked about pass at once.
    pub(crate) fn judge(&mut self, rule: &ApprovalRule) -> Vec<Judged> {
        let mut judged = Vec::new();
        for (name, question) in self.questions.take() {
            self.coming = self.coming.saturating_sub(1);
            let Some(Question { tool_name, tool_input, tool_use_id: id }) = question else {
                name.reply(Err("It cannot be told what call this is."));
                continue;
            };
            if self.seen.len() == MAX_SEEN {
                self.seen.pop_front();
            }
            self.seen.push_back(id.clone());
            let calls = calls(&id, &tool_name, tool_input);
            let meant = calls.into_iter().find_map(|call| Some((self.meant_as(&call)?, call)));
            let Some((asked_as, call)) = meant else {
                name.reply(Ok(()));
                continue;
            };
            let refused = (tool_name == PATCH).then(|| rule.objection(&paths(&call))).flatten();
            let crowd = (self.open.len() == MAX_OPEN).then_some("Too many calls wait for leave already.");
            if let Some(reason) = refused.or(crowd) {
                name.reply(Err(reason));
                judged.push(Judged::Denied(call, reason.to_owned()));
                continue;
            }
            judged.push(Judged::Asked(Call { tool: asked_as, ..call.clone() }));
            self.open.push(Open { call, name });
        }
        judged
    }

    /// A person's answer; gives back the call and the reason if it is denied by it.
    pub(crate) fn answer(&mut self, call_id: &str, answer: ToolAnswer) -> Option<(Call, String)> {
        let at = self.open.iter().position(|open| open.call.id == call_id)?;
        let Open { call, name } = self.open.swap_remove(at);
        match answer {
            ToolAnswer::Allow => {
                name.reply(Ok(()));
                None
            }
            ToolAnswer::Deny(reason) => {
                name.reply(Err(&reason));
                Some((call, reason))
            }
        }
    }

    /// The name by which the call's tool is meant; `None` if nobody need be asked.
    ///
    /// - Codex's own, or that of the same tool elsewhere, so that one rule holds for every agent.
    fn meant_as(&self, call: &Call) -> Option<String> {
        let own = [call.tool.as_str()];
        let names: &[&str] = match call.tool.as_str() {
            SHELL => &[SHELL, "Bash", "exec_command"],
            PATCH => &[PATCH, "Edit", "Write"],
            _ => &own,
        };
        let is_meant = |name: &&&str| self.ask.iter().any(|pattern| pattern.matches(name, &call.input));
        names.iter().find(is_meant).map(|name| (*name).to_owned())
    }
}

/// What a call may be: a command may hold a patch, which Codex then applies itself.
fn calls(id: &str, tool: &str, input: Json) -> Vec<Call> {
    let call = |tool: &str, input: Json| Call { id: id.to_owned(), tool: tool.to_owned(), input };
    let command = input["command"].as_str().unwrap_or_default();
    let changes = changes(command);
    let patch = (!changes.is_empty())
        .then(|| call(PATCH, json!({ "changes": Json::from(changes), "patch": command })));
    match tool {
        "Bash" => std::iter::once(call(SHELL, input)).chain(patch).collect(),
        PATCH => vec![patch.unwrap_or_else(|| call(PATCH, input))],
        other => vec![call(other, input)],
    }
}

/// The files that a patch names, each with what is done to it.
fn changes(patch: &str) -> Vec<Json> {
    const VERBS: [(&str, &str); 4] = [
        ("*** Add File: ", "add"),
        ("*** Update File: ", "update"),
        ("*** Delete File: ", "delete"),
        ("*** Move to: ", "add"),
    ];
    let change = |line: &str| {
        let (path, kind) = VERBS.iter().find_map(|(verb, kind)| Some((line.strip_prefix(verb)?, kind)))?;
        Some(json!({ "path": path.trim(), "kind": kind }))
    };
    patch.lines().map(str::trim_start).filter_map(change).collect()
}

fn paths(call: &Call) -> Vec<PathBuf> {
    let changes = call.input["changes"].as_array().into_iter().flatten();
    changes.filter_map(|change| change["path"].as_str()).map(PathBuf::from).collect()
}
