use std::path::Path;

use lime_core::governance::ToolPattern;
use lime_core::runs::AgentMode;
use lime_core::{Error, Result};
use lime_provider_cli::path_within;

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
/// The longest name of a tool with its pattern, in bytes.
const MAX_TOOL: usize = 1_000;

/// Which tools a run has, and what is answered when the CLI asks about a call.
///
/// - A tool is named as the CLI does, such as `Edit`, or with a pattern for what is approved of it, such as
///   `Bash(cargo test *)`.
/// - A run that plans or reviews has no tool that edits, and of `Bash` only what reads, as far as the CLI can
///   tell; a pattern is taken at its word in every mode.
#[derive(Debug)]
pub(crate) struct Permissions {
    rules: Vec<Rule>,
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
    pub(crate) fn new(mode: AgentMode, allowed: Option<&[String]>) -> Result<Self> {
        let may_change = match mode {
            AgentMode::Implement | AgentMode::Bugfix => true,
            AgentMode::Plan | AgentMode::Review => false,
        };
        let mut rules = Vec::new();
        match allowed {
            Some(tools) => {
                for tool in tools {
                    let rule = parse(tool)?;
                    if !rules.contains(&rule) {
                        rules.push(rule);
                    }
                }
            }
            None => rules
                .extend(DEFAULT_TOOLS.iter().map(|tool| Rule { text: (*tool).to_owned(), name: tool.len() })),
        }
        if !may_change {
            rules.retain(|rule| !EDITS.contains(&rule.tool()));
        }
        Ok(Self { rules, may_change })
    }

    /// The tools that exist, separated by commas.
    pub(crate) fn tools(&self) -> String {
        let mut tools: Vec<&str> = self.rules.iter().map(Rule::tool).collect();
        tools.sort_unstable();
        tools.dedup();
        tools.join(",")
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
    pub(crate) fn decide(&self, question: &Question) -> Decision {
        let tool = question.tool_name.as_deref().unwrap_or_default();
        let reason = question.decision_reason_type.as_deref().unwrap_or_default();
        if ON_FILES.contains(&tool) || question.blocked_path.is_some() || NEVER.contains(&reason) {
            return Decision::Deny(OUTSIDE.to_owned());
        }
        let whole = |rule: &&Rule| rule.tool() == tool && rule.is_whole_tool();
        match self.rules.iter().find(whole) {
            Some(rule) if self.covers_all_of(rule) => Decision::Allow,
            Some(_) => Decision::Deny(
                "This run may not change anything, so only commands that read are allowed.".to_owned(),
            ),
            None => Decision::Deny(self.not_allowed(tool)),
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
        let known = self.rules.iter().any(|rule| rule.tool() == call.tool);
        (!known).then(|| self.not_allowed(call.tool))
    }

    fn not_allowed(&self, tool: &str) -> String {
        let rules: Vec<&str> = self.rules.iter().map(|rule| rule.text.as_str()).collect();
        format!("This run may not use {tool} for that. It may use: {}.", rules.join(", "))
    }

    fn covers_all_of(&self, rule: &Rule) -> bool {
        self.may_change || rule.tool() != SHELL
    }
}

/// Reads `Tool` or `Tool(pattern)`; a comma outside of the pattern would be read as the next tool.
fn parse(text: &str) -> Result<Rule> {
    let name = text.find('(').unwrap_or(text.len());
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let pattern = &text[name..];
    let whole = pattern.is_empty() || (pattern.ends_with(')') && !pattern.contains(char::is_control));
    if text.len() > MAX_TOOL
        || !text.starts_with(|c: char| c.is_ascii_alphabetic())
        || !text[..name].chars().all(is_word)
        || !whole
    {
        return Err(Error::invalid(
            "claude.start",
            "constraints.allowedTools: a tool is a name, such as `Edit`, or a name with a pattern, such as `Bash(cargo test *)`",
        )
        .with("tool", text.chars().take(80).collect::<String>()));
    }
    Ok(Rule { text: text.to_owned(), name })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn permissions(mode: AgentMode, allowed: &[&str]) -> Permissions {
        let allowed: Vec<String> = allowed.iter().map(|tool| (*tool).to_owned()).collect();
        Permissions::new(mode, Some(&allowed)).unwrap()
    }

    fn decide(permissions: &Permissions, question: Value) -> bool {
        permissions.decide(&serde_json::from_value(question).unwrap()) == Decision::Allow
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
            let default = Permissions::new(mode, None).unwrap();
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
        assert_eq!(builder.approved(&ask), "Task,Bash(ls *)");
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
        for bad in ["", "Edit,Bash", "--model", "Bash(ls", "Bash(l\ns)", "a b", "(x)"] {
            let allowed = [bad.to_owned()];
            let refused = Permissions::new(AgentMode::Implement, Some(&allowed));
            assert!(refused.is_err(), "{bad:?}");
        }
    }
}
