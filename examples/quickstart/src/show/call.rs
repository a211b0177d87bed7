use std::path::Path;
use std::time::Instant;

use serde_json::Value as Json;

use super::text::first_line;

/// What a call is about, by the names that agents give it: the first that is there is shown.
const SUBJECTS: &[&str] = &[
    "command",
    "cmd",
    "file_path",
    "path",
    "notebook_path",
    "pattern",
    "query",
    "url",
    "description",
    "changes",
];
/// What agents put before a command, which says nothing.
const SHELLS: &[&str] = &["/bin/bash -lc ", "bash -lc ", "/bin/sh -c ", "sh -c "];

/// A tool call in progress.
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) tool: String,
    pub(crate) subject: String,
    pub(crate) since: Instant,
}

impl Call {
    /// A call that begins now; paths below `checkouts` are shown as they are in the repository.
    pub(crate) fn begin(id: &str, tool: &str, input: Option<&Json>, checkouts: &Path) -> Self {
        let subject = input.and_then(subject).unwrap_or_default();
        Self {
            id: id.to_owned(),
            tool: first_line(tool),
            subject: first_line(&in_repository(&subject, checkouts)),
            since: Instant::now(),
        }
    }
}

/// What a call is about, in a line: a command, a path, a pattern.
fn subject(input: &Json) -> Option<String> {
    let said = SUBJECTS.iter().find_map(|name| input.get(name))?;
    match said {
        Json::String(text) => {
            let shell = SHELLS.iter().find_map(|shell| text.strip_prefix(shell));
            Some(shell.map_or(text.as_str(), |command| command.trim_matches(['\'', '"'])).to_owned())
        }
        Json::Array(parts) => {
            let word = |part: &Json| Some(part.as_str().or_else(|| part.get("path")?.as_str())?.to_owned());
            Some(parts.iter().filter_map(word).collect::<Vec<_>>().join(" "))
        }
        Json::Object(changes) => Some(changes.keys().cloned().collect::<Vec<_>>().join(" ")),
        Json::Null | Json::Bool(_) | Json::Number(_) => None,
    }
}

/// The text with the paths of checkouts (`<checkouts>/<attempt>/…`) made relative to the repository.
fn in_repository(text: &str, checkouts: &Path) -> String {
    let prefix = format!("{}/", checkouts.display());
    let mut parts = text.split(&prefix);
    let mut short = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let below = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        match below.strip_prefix('/') {
            Some(path) if path.starts_with(|c: char| !c.is_whitespace()) => short.push_str(path),
            Some(rest) => short.extend([".", rest]),
            None => short.extend([".", below]),
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_about_its_command_or_its_file() {
        let about = |input| Call::begin("1", "Tool", Some(&input), Path::new("/w/checkouts")).subject;
        assert_eq!(about(json!({ "command": "cargo test\nsecond line", "description": "x" })), "cargo test");
        assert_eq!(about(json!({ "command": "/bin/bash -lc 'ls -l'" })), "ls -l");
        assert_eq!(about(json!({ "command": ["git", "status"] })), "git status");
        assert_eq!(about(json!({ "file_path": "/w/checkouts/1-2/src/a.rs" })), "src/a.rs");
        assert_eq!(
            about(json!({ "command": "cd /w/checkouts/1-2 && ls /w/checkouts/1-2/" })),
            "cd . && ls ."
        );
        assert_eq!(about(json!({ "changes": [{ "path": "a" }, { "path": "b" }] })), "a b");
        assert_eq!(about(json!({ "something": 1 })), "");
    }
}
