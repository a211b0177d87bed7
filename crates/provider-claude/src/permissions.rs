use std::collections::BTreeSet;
use std::path::Path;

use lime_core::governance::{Allowlist, ToolGrant, ToolPattern};
use lime_core::runs::AgentMode;
use lime_core::{Error, Result};
use lime_provider_cli::path_within;
use serde_json::Value;

use crate::wire::{Call, Question};

/// What a run that builds or mends may use unless its constraints say otherwise.
const DEFAULT_TOOLS: &[&str] = &[
    "Bash",
    "Edit",
    "Glob",
    "Grep",
    "NotebookEdit",
    "Read",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskUpdate",
    "TodoWrite",
    "Write",
];
/// What it may use if its list names it.
const OTHER_TOOLS: &[&str] = &["LS", "MultiEdit", "NotebookRead", "Task", "WebFetch", "WebSearch"];
/// Tools that change files; a run that plans or reviews has none of them.
const EDITS: &[&str] = &["Edit", "MultiEdit", "NotebookEdit", "Write"];
/// Tools on files, which are never approved beforehand: that would approve them outside of the work folder too.
///
/// - Inside of it, the permission mode lets them pass; outside, the CLI asks.
const ON_FILES: &[&str] = &["Edit", "Glob", "Grep", "LS", "MultiEdit", "NotebookEdit", "Read", "Write"];
/// The CLI's reasons to ask that no rule overcomes: a path outside of the working folder, a sensitive file.
const NEVER: &[&str] = &["workingDir", "safetyCheck"];
/// The tool that runs commands; a run that changes nothing has it for commands that only read.
const SHELL: &str = "Bash";
const OUTSIDE: &str = "This run may not touch that: it is outside of the working folder, or sensitive. Work on the \
                       repository's own files.";

/// Which tools a run has, and what is answered when the CLI asks about a call.
///
/// - A tool is named as the CLI does, such as `Edit`, or with a pattern for what is approved of it, such as
///   `Bash(cargo test *)`.
/// - A run that plans or reviews has no tool that edits, and of `Bash` only what reads, as far as the CLI can
///   tell; a pattern is taken at its word in every mode.
#[derive(Debug)]
pub(crate) struct Permissions {
    /// The tools that exist.
    tools: Vec<String>,
    /// What is approved of them beforehand.
    rules: Vec<Rule>,
    list: Allowlist,
    may_change: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    text: String,
    /// The length of the tool's name, where a pattern follows.
    name: usize,
}

impl Rule {
    fn tool(&self) -> &str {
        &self.text[..self.name]
    }

    fn is_whole_tool(&self) -> bool {
        self.name == self.text.len()
    }
}

/// What is answered to a question whether a call is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow,
    /// With the reason, which the agent reads.
    Deny(String),
}

impl Permissions {
    /// The permissions of a run; fails with `Invalid` for a name that the CLI would read as something else.
    pub(crate) fn new(mode: AgentMode, list: Allowlist) -> Result<Self> {
        let may_change = match mode {
            AgentMode::Implement | AgentMode::Bugfix => true,
            AgentMode::Plan | AgentMode::Review => false,
        };
        let grants = list.grants().unwrap_or_default();
        let mut tools: Vec<String> = Vec::new();
        for name in names(&list, &grants)? {
            let is_there = tools.iter().any(|known| known.eq_ignore_ascii_case(&name));
            if !is_there && list.may_use(&name) && (may_change || !EDITS.contains(&name.as_str())) {
                tools.push(name);
            }
        }
        tools.sort_unstable();
        let mut rules: Vec<Rule> = Vec::new();
        for tool in &tools {
            if !list.is_partial(tool) {
                rules.push(Rule { text: tool.clone(), name: tool.len() });
            }
            // What several patterns allow only together, and what is ruled out, the check of each call tells.
            if list.never().iter().any(|never| never.may_mean(tool)) {
                continue;
            }
            let exact = grants.iter().filter_map(ToolGrant::exact);
            for pattern in exact.filter(|pattern| pattern.tool().eq_ignore_ascii_case(tool)) {
                let calls = &pattern.as_str()[pattern.tool().len()..];
                if !matches!(calls, "" | "(*)") {
                    rules.push(Rule { text: format!("{tool}{calls}"), name: tool.len() });
                }
            }
        }
        Ok(Self { tools, rules, list, may_change })
    }

    /// The tools that exist, separated by commas.
    pub(crate) fn tools(&self) -> String {
        self.tools.join(",")
    }

    /// What is approved beforehand, separated by commas; no tool of which some calls need a person's leave.
    ///
    /// - Of such a tool a pattern stays approved: what it covers, only the CLI can tell.
    pub(crate) fn approved(&self, ask: &[ToolPattern]) -> String {
        let approved = self.rules.iter().filter(|rule| {
            let tool = rule.tool();
            let asks = ask.iter().any(|pattern| pattern.may_mean(tool));
            !rule.is_whole_tool() || (!ON_FILES.contains(&tool) && !asks && self.covers_all_of(rule))
        });
        approved.map(|rule| rule.text.as_str()).collect::<Vec<_>>().join(",")
    }

    /// The CLI's permission mode; `plan` is not used, since it would have the agent ask for the plan's approval.
    pub(crate) fn mode(&self) -> &'static str {
        if self.may_change { "acceptEdits" } else { "default" }
    }

    /// The answer to a question about a call.
    ///
    /// - Denies what lies outside of the working folder, and what the CLI calls sensitive, such as `.git`. Every
    ///   question about a tool on files is one of these.
    pub(crate) fn decide(&self, question: &Question, workdir: &Path) -> Decision {
        let tool = question.tool_name.as_deref().unwrap_or_default();
        let reason = question.decision_reason_type.as_deref().unwrap_or_default();
        if ON_FILES.contains(&tool) || question.blocked_path.is_some() || NEVER.contains(&reason) {
            return Decision::Deny(OUTSIDE.to_owned());
        }
        let known = self.tools.iter().any(|known| known == tool);
        if known && !self.may_change && tool == SHELL && !self.list.is_partial(tool) {
            return Decision::Deny(
                "This run may not change anything, so only commands that read are allowed.".to_owned(),
            );
        }
        let input = question.input.as_ref().unwrap_or(&Value::Null);
        match self.list.check(tool, input, workdir) {
            Ok(()) if known => Decision::Allow,
            Ok(()) => Decision::Deny(self.not_allowed(tool)),
            Err(denied) => Decision::Deny(denied.to_string()),
        }
    }

    /// Why a call is refused before the CLI has judged it, so that nobody is asked in vain.
    ///
    /// - What only the CLI can tell, it asks about later: whether a file is sensitive, whether a command only reads.
    pub(crate) fn refusal(&self, call: Call<'_>, workdir: &Path) -> Option<String> {
        if ON_FILES.contains(&call.tool) {
            let field = |name: &&str| call.input.get(*name)?.as_str();
            let path = ["file_path", "notebook_path", "path"].iter().find_map(field)?;
            return path_within(workdir, Path::new(path)).is_none().then(|| OUTSIDE.to_owned());
        }
        let known = self.tools.iter().any(|tool| tool == call.tool);
        (!known).then(|| self.not_allowed(call.tool))
    }

    fn not_allowed(&self, tool: &str) -> String {
        format!("This run may not use {tool}. It may use: {}.", self.tools.join(", "))
    }

    fn covers_all_of(&self, rule: &Rule) -> bool {
        self.may_change || rule.tool() != SHELL
    }
}

/// The names of the tools that a list may mean, as the CLI writes them.
///
/// - A list names a tool in any case; of a name with `*`, and without a list, those that the CLI is known to have.
fn names(list: &Allowlist, grants: &BTreeSet<ToolGrant>) -> Result<Vec<String>> {
    let known = || DEFAULT_TOOLS.iter().chain(OTHER_TOOLS);
    if list.grants().is_none() {
        return Ok(DEFAULT_TOOLS.iter().map(|tool| (*tool).to_owned()).collect());
    }
    let mut names = Vec::new();
    for pattern in grants.iter().flat_map(ToolGrant::patterns) {
        check_pattern(pattern)?;
        let name = pattern.tool();
        match known().find(|tool| tool.eq_ignore_ascii_case(name)) {
            Some(tool) => names.push((*tool).to_owned()),
            None if name == "*" => names.extend(DEFAULT_TOOLS.iter().map(|tool| (*tool).to_owned())),
            None if name.contains('*') => {
                names.extend(known().filter(|tool| pattern.may_mean(tool)).map(|tool| (*tool).to_owned()));
            }
            None => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// Checks what the CLI would read as something else: a comma outside of the brackets is the next tool.
fn check_pattern(pattern: &ToolPattern) -> Result<()> {
    let (text, name) = (pattern.as_str(), pattern.tool());
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*');
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
    if starts && name.chars().all(is_word) && !text.contains(char::is_control) {
        return Ok(());
    }
    let message =
        "tools: a tool is a name, such as `Edit`, or a name with a pattern, such as `Bash(cargo test *)`";
    Err(Error::invalid("claude.start", message).with("tool", text.chars().take(80).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use lime_core::governance::ToolLayer;
    use serde_json::json;

    use super::*;

    fn permissions(mode: AgentMode, allowed: &[&str]) -> Permissions {
        Permissions::new(mode, Allowlist::parse(ToolLayer::Run, allowed).unwrap()).unwrap()
    }

    fn decide(permissions: &Permissions, question: Value) -> bool {
        let question = serde_json::from_value(question).unwrap();
        permissions.decide(&question, Path::new("/srv/app")) == Decision::Allow
    }

    #[test]
    fn the_allowed_tools_exist_and_no_others() {
        let some = permissions(
            AgentMode::Implement,
            &["Read", "Edit", "Bash(git status *)", "Bash(ls *)", "WebFetch"],
        );
        assert_eq!(some.tools(), "Bash,Edit,Read,WebFetch");
        assert_eq!(some.approved(&[]), "Bash(git status *),Bash(ls *),WebFetch");
        assert_eq!(permissions(AgentMode::Implement, &[]).tools(), "");
    }

    #[test]
    fn whoever_plans_or_reviews_edits_nothing() {
        for mode in [AgentMode::Plan, AgentMode::Review] {
            let default = Permissions::new(mode, Allowlist::all()).unwrap();
            assert!(!default.tools().split(',').any(|tool| EDITS.contains(&tool)), "{}", default.tools());
            assert!(!default.approved(&[]).contains("Bash"), "{}", default.approved(&[]));
            assert_eq!(default.mode(), "default");
            assert!(!decide(&default, json!({ "tool_name": "Bash", "input": { "command": "touch x" } })));
            let pattern = permissions(mode, &["Bash(cargo test *)", "Write"]);
            assert_eq!(
                (pattern.tools(), pattern.approved(&[])),
                ("Bash".to_owned(), "Bash(cargo test *)".to_owned())
            );
        }
    }

    #[test]
    fn questions_are_answered_by_the_rules() {
        let builder = permissions(AgentMode::Bugfix, &["Bash", "Write", "Read(src/**)"]);
        assert!(decide(&builder, json!({ "tool_name": "Bash" })));
        assert!(!decide(&builder, json!({ "tool_name": "Write" })), "it asks only about what lies outside");
        assert!(!decide(&builder, json!({ "tool_name": "WebFetch" })));
        assert!(!decide(&builder, json!({ "tool_name": "Bash", "blocked_path": "/etc/passwd" })));
        assert!(!decide(&builder, json!({ "tool_name": "Bash", "decision_reason_type": "safetyCheck" })));
        assert!(!decide(&builder, json!({})));
    }

    #[test]
    fn what_needs_leave_is_not_approved_beforehand() {
        let ask: Vec<ToolPattern> =
            ["Bash(git push *)", "Web*"].iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect();
        let builder = permissions(AgentMode::Implement, &["Bash", "WebFetch", "Task", "Bash(ls *)"]);
        assert_eq!(builder.approved(&ask), "Bash(ls *),Task");
    }

    #[test]
    fn nobody_is_asked_about_what_is_refused_anyway() {
        let folder = tempfile::tempdir().unwrap();
        let builder = permissions(AgentMode::Implement, &["Bash", "Write", "Grep"]);
        let refused = |tool, input: Value| {
            builder.refusal(Call { id: "c", tool, input: &input }, folder.path()).is_some()
        };
        assert!(!refused("Bash", json!({ "command": "ls" })) && refused("WebFetch", json!({})));
        assert!(refused("Write", json!({ "file_path": "/etc/passwd" })));
        assert!(!refused("Write", json!({ "file_path": folder.path().join("new/a.rs") })));
        assert!(refused("Grep", json!({ "pattern": "x", "path": "/etc" })));
        assert!(!refused("Grep", json!({ "pattern": "x" })));
    }

    #[test]
    fn names_that_would_be_read_otherwise_are_refused() {
        for bad in ["Edit,Bash", "--model", "Bash(l\ns)", "a b"] {
            let list = Allowlist::parse(ToolLayer::Run, &[bad]).unwrap();
            assert!(Permissions::new(AgentMode::Implement, list).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_list_of_several_layers_is_said_as_far_as_the_cli_can_be_told() {
        let list = |layer, tools: &[&str]| Allowlist::parse(layer, tools).unwrap();
        let never = [ToolPattern::parse("Bash(git push *)").unwrap()];
        let defaults = list(ToolLayer::Default, &["read", "bash", "edit", "mcp__*", "Web*"]);
        let run = defaults.narrow(&list(ToolLayer::Run, &["Read", "Bash(git *)", "WebFetch", "Grep"]));
        let told = Permissions::new(AgentMode::Implement, run.clone()).unwrap();
        assert_eq!(told.tools(), "Bash,Read,WebFetch");
        assert_eq!(told.approved(&[]), "Bash(git *),WebFetch");
        let bash = |command: &str| json!({ "tool_name": "Bash", "input": { "command": command } });
        assert!(decide(&told, bash("git log && git diff")) && !decide(&told, bash("git log; rm x")));
        // What is ruled out of a tool, the CLI cannot be told: it asks about each call.
        let run = run.narrow(&Allowlist::new(ToolLayer::Agent, None::<Vec<_>>, never));
        let told = Permissions::new(AgentMode::Implement, run).unwrap();
        assert_eq!(told.approved(&[]), "WebFetch");
        assert!(decide(&told, bash("git log")) && !decide(&told, bash("git push")));
        let all = permissions(AgentMode::Implement, &["*"]);
        assert_eq!(all.tools(), Permissions::new(AgentMode::Implement, Allowlist::all()).unwrap().tools());
    }
}
