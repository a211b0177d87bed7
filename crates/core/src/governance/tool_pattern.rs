use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::glob::{is_like, overlap};
use super::shell::simple_commands;
use crate::Invalid;

/// Which tool calls are meant: a tool by its name, such as `Bash`, or some of its calls, such as `Bash(git push *)`.
///
/// - `*` stands for any text, in the name too: `*` alone is every call. The case of a name does not matter (000 §5.12
///   writes `bash`).
/// - At the end, ` *` stands for no text as well, and `:*` is another way to write it, so `Bash(git:*)` is `git` with
///   or without arguments. `Bash(*)` is `Bash`.
/// - What stands in brackets is held against the call's command, or else its path, its URL or its pattern, and against
///   the path of each of its changes. A call without any of them is matched by a bare name only.
/// - A command of several parts, such as `cd app && git push`, is meant if one of its parts is, or the whole. That
///   is right for rules that ask or deny; what lets calls pass is an [`Allowlist`](super::Allowlist).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ToolPattern(String);

impl ToolPattern {
    /// The most characters of a pattern.
    pub const MAX_CHARS: usize = 1_000;

    /// Checks a pattern.
    pub fn parse(pattern: impl Into<String>) -> Result<Self, Invalid> {
        let pattern = pattern.into();
        Invalid::text("tool", &pattern, 1, Self::MAX_CHARS)?;
        Invalid::no_nul("tool", &pattern)?;
        let (name, rest) = split(&pattern);
        let closed = rest.is_none_or(|rest| rest.ends_with(')') && rest.len() > 1);
        if name.trim().is_empty() || name.contains(')') || !closed {
            return Err(Invalid::new("tool", "must be a tool's name, such as `Bash` or `Bash(git push *)`"));
        }
        Ok(Self(pattern))
    }

    /// The pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the tool, which may have `*` in it.
    pub fn tool(&self) -> &str {
        split(&self.0).0
    }

    /// Whether this call is meant.
    pub fn matches(&self, tool: &str, input: &Json) -> bool {
        if !self.may_mean(tool) {
            return false;
        }
        let Some(calls) = self.calls() else {
            return true;
        };
        let commands = || input.get("command")?.as_str().and_then(|line| simple_commands(line).ok());
        subjects(input)
            .any(|subject| calls.covers(subject.trim()) || parts(subject).any(|part| calls.covers(part)))
            || commands().is_some_and(|commands| commands.iter().any(|command| calls.touches(command)))
    }

    /// Whether some calls of this tool are meant, or all.
    pub fn may_mean(&self, tool: &str) -> bool {
        is_like(&self.tool().to_ascii_lowercase(), &tool.to_ascii_lowercase())
    }

    /// Whether every call that the other means is meant by this one.
    pub fn contains(&self, other: &Self) -> bool {
        let calls = match (self.calls(), other.calls()) {
            (None, Some(_) | None) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => others.forms().all(|form| own.covers(&form)),
        };
        self.may_mean(other.tool()) && calls
    }

    /// Whether both may mean a tool of the same name.
    pub(crate) fn meets_name(&self, other: &Self) -> bool {
        overlap(&self.tool().to_ascii_lowercase(), &other.tool().to_ascii_lowercase())
    }

    /// Which of the tool's calls are meant; `None` if all are.
    pub(crate) fn calls(&self) -> Option<Calls<'_>> {
        let calls = split(&self.0).1?.strip_suffix(')')?;
        (calls != "*").then_some(Calls(calls))
    }
}

/// What stands in the brackets of a pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Calls<'p>(&'p str);

impl<'p> Calls<'p> {
    /// Whether this is meant, and all that it may stand for if it has a `*` in it.
    pub(crate) fn covers(self, part: &str) -> bool {
        self.forms().any(|form| is_like(&form, part))
    }

    /// Whether this is meant, or some of what it may stand for if it has a `*` in it.
    pub(crate) fn touches(self, part: &str) -> bool {
        self.forms().any(|form| overlap(&form, part))
    }

    /// Whether something may be meant by both, also if one means a path from the root and the other from a folder.
    pub(crate) fn meets(self, other: Calls<'_>) -> bool {
        other.forms().any(|form| self.touches(&form) || self.touches(&format!("/*{form}")))
            || self.forms().any(|form| other.touches(&format!("/*{form}")))
    }

    /// The texts with `*` that it is like: one, or one with arguments and one without.
    fn forms(self) -> impl Iterator<Item = Cow<'p, str>> {
        let (bare, whole) = match (self.0.strip_suffix(" *"), self.0.strip_suffix(":*")) {
            (Some(bare), _) => (Some(bare), self.0.into()),
            (None, Some(bare)) => (Some(bare), format!("{bare} *").into()),
            (None, None) => (None, self.0.into()),
        };
        [Some(whole), bare.map(Cow::Borrowed)].into_iter().flatten()
    }
}

impl fmt::Display for ToolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ToolPattern {
    type Error = Invalid;

    fn try_from(pattern: String) -> Result<Self, Invalid> {
        Self::parse(pattern)
    }
}

impl From<ToolPattern> for String {
    fn from(pattern: ToolPattern) -> Self {
        pattern.0
    }
}

/// The name, and what follows its bracket.
fn split(pattern: &str) -> (&str, Option<&str>) {
    match pattern.split_once('(') {
        Some((name, rest)) => (name, Some(rest)),
        None => (pattern, None),
    }
}

/// What a call is about, as far as it can be told from its input; a patch is about each file that it changes,
/// and where it moves it.
pub(crate) fn subjects(input: &Json) -> impl Iterator<Item = &str> {
    let own = ["command", "file_path", "notebook_path", "path", "url", "pattern"]
        .into_iter()
        .find_map(|field| input.get(field)?.as_str());
    let changes = input.get("changes").and_then(Json::as_array).into_iter().flatten();
    let paths = changes
        .flat_map(|change| ["path", "movedTo"].into_iter().filter_map(|field| change.get(field)?.as_str()));
    own.into_iter().chain(paths)
}

/// The parts of a command line that a shell would run one by one, roughly.
fn parts(command: &str) -> impl Iterator<Item = &str> {
    command.split(['\n', ';', '|', '&', '(', ')', '`']).map(str::trim).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pattern(text: &str) -> ToolPattern {
        ToolPattern::parse(text).unwrap()
    }

    #[test]
    fn a_name_means_every_call_of_the_tool() {
        assert!(pattern("Bash").matches("Bash", &json!({ "command": "ls" })));
        assert!(pattern("mcp__*").matches("mcp__shop__buy", &json!({})));
        assert!(pattern("*").matches("Anything", &Json::Null));
        assert!(!pattern("Bash").matches("BashOutput", &json!({})));
    }

    #[test]
    fn brackets_mean_some_calls() {
        let push = pattern("Bash(git push *)");
        assert!(push.matches("Bash", &json!({ "command": "git push origin main" })));
        assert!(push.matches("Bash", &json!({ "command": "cd app && git push -f" })));
        assert!(push.matches("Bash", &json!({ "command": "echo `git push x`" })));
        assert!(!push.matches("Bash", &json!({ "command": "git pull" })));
        assert!(!push.matches("Bash", &json!({ "other": "git push x" })));
        assert!(pattern("Write(*.env)").matches("Write", &json!({ "file_path": "/app/.env" })));
        let patch = json!({ "changes": [{ "path": "a.rs" }, { "path": "app/.env" }], "patch": "…" });
        assert!(pattern("apply_patch(*.env)").matches("apply_patch", &patch));
        assert!(!pattern("apply_patch(*.toml)").matches("apply_patch", &patch));
        let moved = json!({ "changes": [{ "path": "a", "movedTo": ".env" }] });
        assert!(pattern("apply_patch(*.env)").matches("apply_patch", &moved));
        assert!(push.may_mean("Bash") && !push.may_mean("Write") && pattern("*").may_mean("Write"));
    }

    #[test]
    fn arguments_are_optional_and_quotes_hide_nothing() {
        for push in ["Bash(git push *)", "Bash(git push:*)", "bash(git push *)"].map(pattern) {
            for command in
                ["git push", "git push -f", "git 'push' x", "cd x; git pu\"sh\"", "sh -c 'git push'"]
            {
                assert!(push.matches("Bash", &json!({ "command": command })), "{push} {command}");
            }
            assert!(!push.matches("Bash", &json!({ "command": "git pushy" })));
        }
        assert!(pattern("Bash(*)").matches("Bash", &json!({})));
    }

    #[test]
    fn a_wider_pattern_contains_a_narrower_one() {
        for (wide, narrow) in [
            ("*", "Bash(git *)"),
            ("Bash", "bash(git *)"),
            ("Bash(*)", "Bash"),
            ("Bash(git *)", "Bash(git push *)"),
            ("Bash(git *)", "Bash(git)"),
            ("Bash(git:*)", "Bash(git *)"),
            ("mcp__*", "mcp__shop__*"),
            ("Write(src/**)", "Write(src/*)"),
        ] {
            assert!(pattern(wide).contains(&pattern(narrow)), "{wide} {narrow}");
        }
        for (one, other) in [
            ("Bash(git *)", "Bash"),
            ("Bash(git *)", "Bash(git*)"),
            ("Bash(git push *)", "Bash(git *)"),
            ("Bash(git * --dry)", "Bash(git push *)"),
            ("Read", "Bash"),
            ("Bash", "*"),
        ] {
            assert!(!pattern(one).contains(&pattern(other)), "{one} {other}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "  ", "(x)", "Bash(", "Bash(x", "Ba)sh"] {
            assert!(ToolPattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
