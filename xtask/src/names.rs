//! What no reader should meet: a name without a meaning, a path of one machine, a skip that nobody sees.

use std::path::Path;

use crate::finding::Finding;
use crate::{Outcome, cargo};

/// Names of rooms that say nothing about what is inside.
const EMPTY_NAMES: [&str; 10] =
    ["common", "helper", "helpers", "manager", "managers", "misc", "stuff", "util", "utils", "utilities"];

/// Where a person's files are.
const HOMES: [&str; 3] = ["/home/", "/Users/", "/root/"];

/// Files that people write; recordings and generated files hold what they hold.
const WRITTEN: [&str; 7] = ["rs", "toml", "md", "sh", "sql", "yml", "yaml"];

pub(crate) fn check(root: &Path) -> Outcome<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in cargo::files(root)? {
        findings.extend(empty_name(&path));
        if is_written(&path) {
            let text = std::fs::read_to_string(root.join(&path))?;
            findings.extend(lines(&path, &text));
        }
    }
    Ok(findings)
}

fn empty_name(path: &str) -> Option<Finding> {
    let stems = path.split('/').map(|it| it.split('.').next().unwrap_or(it));
    let mut words = stems.flat_map(|stem| stem.split(['_', '-']));
    let name = words.find(|word| EMPTY_NAMES.contains(word))?;
    Some(Finding::new(
        path,
        format!("`{name}` names no noun and no verb"),
        "name what is inside; what has no name of its own goes to who uses it",
    ))
}

fn is_written(path: &str) -> bool {
    let extension = Path::new(path).extension().and_then(|it| it.to_str());
    path.starts_with(".ci/") || extension.is_some_and(|it| WRITTEN.contains(&it))
}

fn lines(path: &str, text: &str) -> Vec<Finding> {
    // This file names what it looks for.
    let own = path == "xtask/src/names.rs";
    let numbered = text.lines().zip(1..).filter(|_| !own);
    numbered
        .filter_map(|(line, number)| {
            let place = format!("{path}:{number}");
            if HOMES.iter().any(|home| is_below(line, home)) {
                Some(Finding::new(
                    place,
                    "names a path that one machine has",
                    "make it relative, or make up a neutral one",
                ))
            } else if line.contains("println!(\"skipped:") {
                Some(Finding::new(
                    place,
                    "a skip that the test harness keeps to itself",
                    "write the line with `std::io::stderr().write_all`, which it does not capture",
                ))
            } else {
                None
            }
        })
        .collect()
}

/// Whether a line has an absolute path below a folder.
fn is_below(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let inside_of_another = before.is_some_and(|it| it.is_alphanumeric() || "._-*~/}".contains(it));
        !inside_of_another && after.is_some_and(char::is_alphanumeric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_meaning_is_found_in_files_and_folders() {
        for path in ["crates/git/src/utils.rs", "crates/git/tests/common/mod.rs", "src/path_helpers.rs"] {
            assert!(empty_name(path).is_some(), "{path}");
        }
        for path in ["crates/git/src/utility_bill.rs", "docs/commonwealth.md", "crates/git/src/mirror.rs"] {
            assert!(empty_name(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        for line in ["let a = \"/home/ann/x\";", "(/Users/ann)", "cd /root/checkout"] {
            assert_eq!(lines("a.rs", line).len(), 1, "{line}");
        }
        for line in ["a/home/ann", "https://x.org/home/ann", "`/home/`", "${HOME}/root/it"] {
            assert_eq!(lines("a.rs", line), [], "{line}");
        }
    }

    #[test]
    fn a_skip_that_nobody_sees_is_found() {
        let found = lines("a.rs", "fn it() {\n    eprintln!(\"skipped: no git\");\n}");
        assert_eq!(found[0].place, "a.rs:2");
    }

    #[test]
    fn recordings_are_not_judged() {
        assert!(is_written("crates/git/src/lib.rs"));
        assert!(is_written(".ci/run"));
        assert!(!is_written("crates/provider-codex/tests/golden/codex_edit.events"));
    }
}
