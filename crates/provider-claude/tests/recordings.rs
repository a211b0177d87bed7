//! Recorded sessions of the real CLI through the translator.

#![allow(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lime_provider_claude::{ExitFacts, Translator};
use serde_json::{Value, json};
use support::{Recording, listing, name, recordings, word};

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)
}

#[test]
fn every_recording_ends_as_it_did() {
    let expected = fs::read_to_string(here("transcripts/expected.txt")).unwrap();
    let mut found = String::new();
    for path in recordings(&here("transcripts")).unwrap() {
        let (_, report) = Recording::read(&path).unwrap().play();
        writeln!(found, "{} {}", name(&path), word(&report)).unwrap();
    }
    assert_eq!(found, expected);
}

/// With `LIME_UPDATE_GOLDEN=1` the listings are written instead of compared.
#[test]
fn every_recording_gives_its_events() {
    let update = std::env::var_os("LIME_UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for path in recordings(&here("transcripts")).unwrap() {
        let (events, report) = Recording::read(&path).unwrap().play();
        let golden = here("golden").join(name(&path).replace(".jsonl", ".events"));
        let listing = listing(&events, &report);
        if update {
            fs::write(&golden, &listing).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != listing {
            different.push(name(&path));
        }
    }
    assert!(different.is_empty(), "other events than in tests/golden: {different:?}");
}

/// Every field of every kind of line, one at a time, gone or of another shape; and every such line cut short.
#[test]
fn no_shape_of_a_line_is_an_error() {
    let shapes = [Value::Null, json!(-7.5e300), json!("x"), json!([[]]), json!({ "type": 3 })];
    let mut seen = BTreeSet::new();
    for path in recordings(&here("transcripts")).unwrap() {
        let mut translator = Translator::new();
        for line in Recording::read(&path).unwrap().printed() {
            let Ok(whole) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let pointers = pointers(&whole);
            if !seen.insert((whole["type"].to_string(), pointers.clone())) {
                continue;
            }
            let middle = line.floor_char_boundary(line.len() / 2);
            translator.line(&line[..middle], Duration::ZERO);
            for pointer in &pointers {
                for shape in &shapes {
                    let mut bent = whole.clone();
                    *bent.pointer_mut(pointer).unwrap() = shape.clone();
                    translator.line(&bent.to_string(), Duration::ZERO);
                }
            }
        }
        translator.close(Duration::ZERO);
        translator.finish(&ExitFacts::default());
    }
}

/// The places in a value, three levels deep.
fn pointers(value: &Value) -> Vec<String> {
    fn below(value: &Value, at: &str, levels: usize, found: &mut Vec<String>) {
        let fields = value.as_object().into_iter().flatten();
        for (name, field) in fields.filter(|_| levels > 0) {
            let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            below(field, &at, levels - 1, found);
            found.push(at);
        }
    }
    let mut found = Vec::new();
    below(value, "", 3, &mut found);
    found
}

/// `LIME_TRANSCRIPTS=DIR` judges any folder of recordings, one line a file on the real stdout.
#[test]
fn a_folder_of_recordings_is_judged() {
    let mut stdout = std::io::stdout();
    let Some(folder) = std::env::var_os("LIME_TRANSCRIPTS") else {
        return; // the recordings of this crate have tests of their own
    };
    let mut lines = String::new();
    for path in recordings(Path::new(&folder)).unwrap() {
        let name = name(&path);
        let recording =
            Recording::read(&path).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
        let named = name.starts_with("claude") || name.starts_with("cc_") || name.starts_with("ccl_");
        if named || recording.is_claudes() {
            let (_, report) = recording.play();
            writeln!(lines, "{name} {}", word(&report)).unwrap();
        }
    }
    // Begins anew: with one thread, the test's name stands before it.
    writeln!(stdout, "\n{}", lines.trim_end()).unwrap();
}
