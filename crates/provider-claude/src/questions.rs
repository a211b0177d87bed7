use std::path::PathBuf;

use lime_core::governance::ToolPattern;
use lime_core::ports::ToolAnswer;
use lime_core::runs::AgentEvent;
use serde::Deserialize;
use serde_json::Value;

use crate::permissions::{Decision, Permissions};
use crate::say;
use crate::wire::{Ask, Call, Question};

/// How many questions can be open; an agent that has more is told no.
const MAX_OPEN: usize = 1_000;
/// How many calls that were allowed are remembered until they are made.
const MAX_ALLOWED: usize = 1_000;

/// The CLI's questions whether a call is allowed: which the run's permissions answer, and which a person does.
///
/// - A person is asked in the hook before the call, since the CLI asks about nothing that it would approve by itself.
///   Once the hook has passed, the CLI judges the call as in any run, so a person's leave never goes beyond what the
///   run may do.
/// - Should a hook be lost, as when an older CLI's stdin closes, the CLI still asks about what is not approved
///   beforehand, and a person is asked then.
#[derive(Debug)]
pub(crate) struct Questions {
    ask: Vec<ToolPattern>,
    workdir: PathBuf,
    permissions: Permissions,
    open: Vec<Open>,
    /// Calls that a person has allowed in their hook, the newest last.
    allowed: Vec<String>,
    calls_hooks: bool,
}

/// A question that waits for a person.
#[derive(Debug)]
struct Open {
    call_id: String,
    request_id: String,
    about: About,
}

#[derive(Debug)]
enum About {
    /// The hook before a call.
    Hook,
    /// The permission for a call with this input, which goes back with the leave as it came.
    Permission(Value),
}

/// What comes of a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// This is answered.
    Answer(Value),
    /// A person is asked this.
    Asks(AgentEvent),
}

impl Questions {
    pub(crate) fn new(ask: Vec<ToolPattern>, workdir: PathBuf, permissions: Permissions) -> Self {
        Self { ask, workdir, permissions, open: Vec::new(), allowed: Vec::new(), calls_hooks: false }
    }

    /// Whether the CLI must call its hooks, and has not: then it makes calls without asking.
    pub(crate) fn goes_unasked(&self) -> bool {
        self.needs_hooks() && !self.calls_hooks
    }

    /// Whether a person is to be asked about some calls.
    pub(crate) fn needs_hooks(&self) -> bool {
        !self.ask.is_empty()
    }

    /// Hears a line of the CLI; what comes of it, if it is a question.
    pub(crate) fn hear(&mut self, line: &Value) -> Option<Heard> {
        match line.get("type").and_then(Value::as_str) {
            Some("control_request") => {}
            Some("control_cancel_request") => {
                self.open.retain(|open| line["request_id"] != open.request_id.as_str());
                return None;
            }
            Some(_) | None => return None,
        }
        let ask = Ask::deserialize(line).unwrap_or_default();
        let (Some(id), Some(question)) = (ask.request_id.as_ref(), ask.request.as_ref()) else {
            return None;
        };
        Some(match question.subtype.as_deref() {
            Some(Question::CAN_USE_TOOL) => self.permission(id, question),
            Some(Question::HOOK) => self.hook(id, question),
            Some(_) | None => Heard::Answer(say::unsupported(id)),
        })
    }

    /// A person's answer: what the CLI is told; `None` if the question is not open.
    pub(crate) fn answer(&mut self, call_id: &str, answer: ToolAnswer) -> Option<Value> {
        let at = self.open.iter().position(|open| open.call_id == call_id)?;
        let Open { call_id, request_id, about } = self.open.swap_remove(at);
        Some(match (about, answer) {
            (About::Hook, ToolAnswer::Allow) => {
                if self.allowed.len() == MAX_ALLOWED {
                    self.allowed.remove(0);
                }
                self.allowed.push(call_id);
                say::pass(&request_id)
            }
            (About::Hook, ToolAnswer::Deny(reason)) => say::block(&request_id, &reason),
            (About::Permission(input), ToolAnswer::Allow) => say::allow(&request_id, &input),
            (About::Permission(_), ToolAnswer::Deny(reason)) => say::deny(&request_id, &reason),
        })
    }

    fn hook(&mut self, id: &str, question: &Question) -> Heard {
        match question.callback_id.as_deref() {
            Some(say::BEFORE_PROMPT) => {
                self.calls_hooks = true;
                Heard::Answer(say::pass(id))
            }
            Some(say::BEFORE_CALL) => match question.call() {
                Some(call) if self.means(call) => match self.permissions.refusal(call, &self.workdir) {
                    Some(reason) => Heard::Answer(say::block(id, &reason)),
                    None => self.ask(id, call, About::Hook),
                },
                Some(_) => Heard::Answer(say::pass(id)),
                None => Heard::Answer(say::block(id, "It cannot be told what call this is.")),
            },
            Some(_) | None => Heard::Answer(say::unsupported(id)),
        }
    }

    fn permission(&mut self, id: &str, question: &Question) -> Heard {
        let input = question.input.as_ref().unwrap_or(&Value::Null);
        match (self.permissions.decide(question, &self.workdir), question.call()) {
            (Decision::Deny(reason), _) => Heard::Answer(say::deny(id, &reason)),
            (Decision::Allow, Some(call)) if self.means(call) && !self.was_allowed(call) => {
                self.ask(id, call, About::Permission(input.clone()))
            }
            (Decision::Allow, _) => Heard::Answer(say::allow(id, input)),
        }
    }

    fn ask(&mut self, id: &str, call: Call<'_>, about: About) -> Heard {
        if self.open.len() == MAX_OPEN {
            let reason = "Too many calls wait for leave already.";
            return Heard::Answer(match about {
                About::Hook => say::block(id, reason),
                About::Permission(_) => say::deny(id, reason),
            });
        }
        self.open.push(Open { call_id: call.id.to_owned(), request_id: id.to_owned(), about });
        Heard::Asks(AgentEvent::asks(call.id, call.tool, call.input.clone()))
    }

    fn means(&self, call: Call<'_>) -> bool {
        self.ask.iter().any(|pattern| pattern.matches(call.tool, call.input))
    }

    fn was_allowed(&self, call: Call<'_>) -> bool {
        self.allowed.iter().any(|allowed| allowed == call.id)
    }
}

#[cfg(test)]
mod tests {
    use lime_core::governance::Allowlist;
    use lime_core::runs::AgentMode;
    use serde_json::json;

    use super::*;

    fn questions(ask: &[&str]) -> Questions {
        let ask = ask.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect();
        let permissions = Permissions::new(AgentMode::Implement, Allowlist::all()).unwrap();
        Questions::new(ask, std::env::temp_dir(), permissions)
    }

    fn hook(id: &str, tool: &str, input: &Value) -> Value {
        let input = json!({ "tool_name": tool, "tool_input": input });
        json!({ "type": "control_request", "request_id": id, "request": {
            "subtype": "hook_callback", "callback_id": say::BEFORE_CALL, "tool_use_id": id, "input": input,
        }})
    }

    fn permission(id: &str, tool: &str, input: &Value) -> Value {
        json!({ "type": "control_request", "request_id": id, "request": {
            "subtype": "can_use_tool", "tool_name": tool, "tool_use_id": id, "input": input,
        }})
    }

    /// Whether a person is asked about this.
    fn asks(questions: &mut Questions, line: &Value) -> bool {
        matches!(questions.hear(line), Some(Heard::Asks(AgentEvent::Approval { .. })))
    }

    #[test]
    fn only_what_is_meant_is_asked_about() {
        let mut questions = questions(&["Bash(git push *)"]);
        let passes = questions.hear(&hook("1", "Bash", &json!({ "command": "ls" })));
        assert_eq!(passes, Some(Heard::Answer(say::pass("1"))));
        assert!(asks(&mut questions, &hook("2", "Bash", &json!({ "command": "git push x" }))));
        assert_eq!(questions.answer("2", ToolAnswer::Allow), Some(say::pass("2")));
        assert_eq!(questions.answer("2", ToolAnswer::Allow), None);
        assert!(asks(&mut questions, &hook("3", "Bash", &json!({ "command": "git push x" }))));
        let denied = questions.answer("3", ToolAnswer::Deny("No.".to_owned()));
        assert_eq!(denied, Some(say::block("3", "No.")));
    }

    #[test]
    fn what_is_refused_is_not_asked_about() {
        let mut questions = questions(&["*"]);
        for (tool, input) in [("WebFetch", json!({})), ("Write", json!({ "file_path": "/etc/passwd" }))] {
            let Some(Heard::Answer(answer)) = questions.hear(&hook("1", tool, &input)) else {
                panic!("somebody was asked about {tool}");
            };
            assert_eq!(answer["response"]["response"]["hookSpecificOutput"]["permissionDecision"], "deny");
        }
    }

    #[test]
    fn a_call_whose_hook_was_lost_is_asked_about_still() {
        let mut questions = questions(&["Bash"]);
        let input = json!({ "command": "git push", "token": "hunter2" });
        assert!(asks(&mut questions, &permission("1", "Bash", &input)));
        assert_eq!(questions.answer("1", ToolAnswer::Allow), Some(say::allow("1", &input)));
        assert!(asks(&mut questions, &permission("2", "Bash", &input)));
        assert_eq!(questions.answer("2", ToolAnswer::Deny("No.".to_owned())), Some(say::deny("2", "No.")));
        // One that was asked about in its hook is not asked about again.
        assert!(asks(&mut questions, &hook("3", "Bash", &input)));
        questions.answer("3", ToolAnswer::Allow);
        let allowed = questions.hear(&permission("3", "Bash", &input));
        assert_eq!(allowed, Some(Heard::Answer(say::allow("3", &input))));
    }

    #[test]
    fn too_many_questions_are_a_no() {
        let mut questions = questions(&["Bash"]);
        for number in 0..MAX_OPEN {
            assert!(asks(&mut questions, &hook(&number.to_string(), "Bash", &json!({}))));
        }
        assert!(!asks(&mut questions, &hook("more", "Bash", &json!({}))));
    }
}
