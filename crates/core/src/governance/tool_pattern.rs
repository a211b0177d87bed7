use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::Invalid;

/// Which tool calls are meant: a tool by its name, such as `Bash`, or some of its calls, such as `Bash(git push *)`.
///
/// - `*` stands for any text, in the name too: `*` alone is every call.
/// - What stands in brackets is held against the call's command, or else its path, its URL or its pattern, and against
///   the path of each of its changes. A call without any of them is matched by a bare name only.
/// - A command of several parts, such as `cd app && git push`, is meant if one of its parts is, or the whole. That
///   is right for rules that ask or deny; a rule that lets calls pass must not be built on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
        let (name, rest) = split(&self.0);
        if !is_like(name, tool) {
            return false;
        }
        let Some(calls) = rest.and_then(|rest| rest.strip_suffix(')')) else {
            return true;
        };
        subjects(input)
            .any(|subject| is_like(calls, subject.trim()) || parts(subject).any(|part| is_like(calls, part)))
    }

    /// Whether some calls of this tool are meant, or all.
    pub fn may_mean(&self, tool: &str) -> bool {
        is_like(self.tool(), tool)
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

/// What a call is about, as far as it can be told from its input; a patch is about each file that it changes.
pub(crate) fn subjects(input: &Json) -> impl Iterator<Item = &str> {
    let own = ["command", "file_path", "notebook_path", "path", "url", "pattern"]
        .into_iter()
        .find_map(|field| input.get(field)?.as_str());
    let changes = input.get("changes").and_then(Json::as_array).into_iter().flatten();
    own.into_iter().chain(changes.filter_map(|change| change.get("path")?.as_str()))
}

/// The parts of a command line that a shell would run one by one, roughly.
fn parts(command: &str) -> impl Iterator<Item = &str> {
    command.split(['\n', ';', '|', '&', '(', ')', '`']).map(str::trim).filter(|part| !part.is_empty())
}

/// Whether a text is like a pattern in which `*` stands for any text.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
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
        assert!(push.may_mean("Bash") && !push.may_mean("Write") && pattern("*").may_mean("Write"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "  ", "(x)", "Bash(", "Bash(x", "Ba)sh"] {
            assert!(ToolPattern::parse(bad).is_err(), "{bad:?}");
        }
    }
}
