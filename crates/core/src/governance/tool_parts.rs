//! What a tool call would do, part by part.

use std::path::{Component, Path};

use serde_json::Value as Json;

use super::shell::{Unclear, simple_commands};

/// One thing that a call would do: a command, or what it reads or changes; in each of its spellings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The first is the one to show.
    pub(crate) spellings: Vec<String>,
}

const NO_TEXT: Unclear = Unclear("what it is about is not given as a text");
const UPWARD: Unclear = Unclear("a path with `..` leads where the list cannot say");

/// All that a call would do; nothing, for a call whose input names neither a command, a path nor a URL.
///
/// - A path is spelled from the folder that the agent works in, where it lies below it, and from the root.
/// - What a search looks for is no part of it: it is no place.
pub(crate) fn parts(input: &Json, workdir: &Path) -> Result<Vec<Part>, Unclear> {
    let mut parts = Vec::new();
    let one = |text: &str| Part { spellings: vec![text.to_owned()] };
    if let Some(line) = text(input, "command")? {
        parts.extend(simple_commands(line)?.into_iter().map(|command| Part { spellings: vec![command] }));
    }
    for field in ["file_path", "notebook_path", "path"] {
        if let Some(given) = text(input, field)? {
            parts.push(path(given, workdir)?);
        }
    }
    if let Some(url) = text(input, "url")? {
        parts.push(one(url));
    }
    match input.get("changes") {
        None | Some(Json::Null) => {}
        Some(Json::Array(changes)) => {
            for change in changes {
                parts.push(path(text(change, "path")?.ok_or(NO_TEXT)?, workdir)?);
                if let Some(moved_to) = text(change, "movedTo")? {
                    parts.push(path(moved_to, workdir)?);
                }
            }
        }
        Some(Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_)) => return Err(NO_TEXT),
    }
    Ok(parts)
}

fn text<'j>(input: &'j Json, field: &str) -> Result<Option<&'j str>, Unclear> {
    match input.get(field) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_)) => Err(NO_TEXT),
    }
}

fn path(given: &str, workdir: &Path) -> Result<Part, Unclear> {
    let whole = workdir.join(given);
    if whole.components().any(|component| component == Component::ParentDir) {
        return Err(UPWARD);
    }
    // The components leave out `.` and doubled slashes.
    let spell =
        |path: &Path| path.components().collect::<std::path::PathBuf>().to_string_lossy().into_owned();
    let below = whole.strip_prefix(workdir).ok().map(spell).filter(|below| !below.is_empty());
    Ok(Part { spellings: below.into_iter().chain([spell(&whole)]).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spelled(input: &Json) -> Option<Vec<Vec<String>>> {
        let parts = parts(input, Path::new("/srv/app")).ok()?;
        Some(parts.into_iter().map(|part| part.spellings).collect())
    }

    #[test]
    fn paths_are_spelled_from_the_folder_and_from_the_root() {
        for given in ["src/a.rs", "./src//a.rs", "/srv/app/src/a.rs", "/srv//app/./src/a.rs"] {
            let expected = vec![vec!["src/a.rs".to_owned(), "/srv/app/src/a.rs".to_owned()]];
            assert_eq!(spelled(&json!({ "file_path": given })), Some(expected), "{given}");
        }
        assert_eq!(spelled(&json!({ "path": "/etc/passwd" })), Some(vec![vec!["/etc/passwd".to_owned()]]));
        assert_eq!(spelled(&json!({ "path": "src/../../x" })), None);
        assert_eq!(spelled(&json!({ "pattern": "main" })), Some(vec![]));
    }

    #[test]
    fn a_patch_is_about_each_file_and_where_it_goes() {
        let patch = json!({ "changes": [{ "path": "a" }, { "path": "b", "movedTo": "/etc/c" }] });
        let parts = spelled(&patch).unwrap();
        assert_eq!(parts.iter().map(|part| part[0].as_str()).collect::<Vec<_>>(), ["a", "b", "/etc/c"]);
        for odd in [json!({ "changes": "x" }), json!({ "changes": [{}] }), json!({ "command": ["git"] })] {
            assert_eq!(spelled(&odd), None, "{odd}");
        }
    }
}
