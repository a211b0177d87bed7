//! Recordings of the real Codex go through the translator: every one has an expected outcome and a listing of
//! its events.
//!
//! - `LIME_UPDATE_GOLDEN=1` writes the listings anew.
//! - `LIME_TRANSCRIPTS=DIR` judges every recording of Codex in another folder, and prints a line for each.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its recordings must fail")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use lime_core::governance::PriceTable;
use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, Outcome, Usage};
use lime_provider_codex::{Exit, Translator};
use serde_json::Value as Json;

/// Prices of the tests' own, so that a new list of prices changes no listing.
const PRICES: &str = r#"{ "asOf": "2026-11-21", "models": {
    "gpt-5.5": { "input": 2000000, "cachedInput": 200000, "output": 10000000 } } }"#;

/// A recording: what Codex printed, and how its program ended as far as the files beside it tell.
struct Recording {
    lines: Vec<String>,
    exit: Exit,
    /// The one who recorded sent a signal: it was cancelled.
    stopped: bool,
    /// A file beside it says how the program ended.
    witnessed: bool,
}

impl Recording {
    /// Reads `x.jsonl`, `x.err` and `x.meta.json`; of a two-way log only what Codex said.
    fn open(path: &Path) -> Self {
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let lines = text
            .lines()
            .filter_map(|line| match serde_json::from_str::<Json>(line) {
                Ok(entry) if entry["dir"].is_string() && entry.get("msg").is_some() => {
                    (entry["dir"] == "<").then(|| entry["msg"].to_string())
                }
                _ => Some(line.to_owned()),
            })
            .collect();
        let stderr = fs::read(path.with_extension("err")).ok();
        let meta: Option<Json> = fs::read(path.with_extension("meta.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let code =
            meta.as_ref().and_then(|meta| meta["rc"].as_i64()).and_then(|code| i32::try_from(code).ok());
        Self {
            lines,
            witnessed: stderr.is_some() || code.is_some(),
            exit: Exit {
                code: code.filter(|code| *code >= 0),
                signal: code.filter(|code| *code < 0).map(|code| -code),
                stderr: String::from_utf8_lossy(&stderr.unwrap_or_default()).into_owned(),
            },
            // A program that was killed outright says nothing of a wish to stop: it crashed.
            stopped: code != Some(-9) && meta.is_some_and(|meta| !meta["signal_sent"].is_null()),
        }
    }

    /// Whether any line is a message of the app-server or an event of `exec --json`; Claude's have neither a
    /// `method` nor a type with a dot in it.
    fn is_codexs(&self) -> bool {
        self.lines.iter().filter_map(|line| serde_json::from_str::<Json>(line).ok()).any(|line| {
            line["method"].is_string()
                || line["type"].as_str().is_some_and(|word| {
                    ["thread.", "turn.", "item."].iter().any(|start| word.starts_with(start))
                })
        })
    }

    fn play(self) -> (Vec<AgentEvent>, SessionReport) {
        let mut translator = Translator::new(serde_json::from_str::<PriceTable>(PRICES).unwrap());
        let events = self.lines.iter().flat_map(|line| translator.line(line)).collect();
        let mut report = translator.finish(&self.exit);
        if self.stopped {
            report.outcome = Outcome::Cancelled;
        }
        (events, report)
    }
}

fn outcome(report: &SessionReport) -> &'static str {
    match report.outcome {
        Outcome::Succeeded { .. } if !report.denials.is_empty() => "denied",
        Outcome::Succeeded { .. } => "success",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Limited(_) => "limits",
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The recordings of a folder, by name.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn every_recording_has_the_outcome_that_was_read_off_it() {
    let judged: String = recordings(&folder("transcripts"))
        .iter()
        .map(|path| {
            let (_, report) = Recording::open(path).play();
            format!("{} {}\n", name(path), outcome(&report))
        })
        .collect();
    assert_eq!(judged, fs::read_to_string(folder("transcripts/expected.txt")).unwrap());
}

#[test]
fn every_recording_gives_the_same_events_as_ever() {
    let update = std::env::var_os("LIME_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in recordings(&folder("transcripts")) {
        let (events, report) = Recording::open(&path).play();
        let told = listing(&events, &report);
        let golden = folder("golden").join(format!("{}.events", name(&path)));
        if update {
            fs::write(&golden, &told).unwrap();
        }
        if fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(format!("{}:\n{told}", name(&path)));
        }
    }
    assert!(wrong.is_empty(), "not as in tests/golden:\n{}", wrong.join("\n"));
}

#[test]
fn no_recording_says_anything_unknown() {
    for path in recordings(&folder("transcripts")) {
        let (events, _) = Recording::open(&path).play();
        for event in events {
            assert!(!matches!(event, AgentEvent::Unknown(_)), "{}: {event:?}", name(&path));
        }
    }
}

#[test]
fn recordings_of_another_folder_are_judged() {
    let Some(folder) = std::env::var_os("LIME_TRANSCRIPTS") else {
        return;
    };
    let mut judged = String::from("\n");
    let mut unjudged = Vec::new();
    for path in recordings(Path::new(&folder)) {
        let recording = Recording::open(&path);
        let named = ["codex", "app"].iter().any(|start| name(&path).starts_with(start));
        let known = recording.is_codexs();
        if !named && !known {
            continue;
        }
        if recording.lines.is_empty() && !recording.witnessed {
            unjudged.push(name(&path).to_owned());
            continue;
        }
        let (_, report) = recording.play();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(judged, "{file} {}", outcome(&report)).unwrap();
    }
    // Straight to the handle: what `print!` writes, the test harness keeps for itself.
    std::io::stdout().write_all(judged.as_bytes()).unwrap();
    assert!(unjudged.is_empty(), "cannot be judged: {unjudged:?}");
}

/// One line an event, and the report at the end.
fn listing(events: &[AgentEvent], report: &SessionReport) -> String {
    let mut text = String::new();
    for event in events {
        match event {
            AgentEvent::Tool { call_id, name, status, input, output, duration_ms } => {
                write!(text, "tool {status} {name} {call_id}").unwrap();
                if let Some(input) = input {
                    write!(text, " input={input}").unwrap();
                }
                if let Some(output) = output {
                    write!(text, " output={output:?}").unwrap();
                }
                if let Some(took) = duration_ms {
                    write!(text, " {took}ms").unwrap();
                }
            }
            AgentEvent::Session { session_id, model } => {
                write!(text, "session {session_id} {}", model.as_deref().unwrap_or("-")).unwrap();
            }
            AgentEvent::Usage(usage) => text.push_str(&used(usage)),
            AgentEvent::Message { role, text: said } => write!(text, "message {role} {said:?}").unwrap(),
            AgentEvent::Error { message, kind, stack } => {
                let kind = kind.map_or("-", |kind| kind.as_str());
                write!(text, "error {kind} {message:?}").unwrap();
                if let Some(stack) = stack {
                    write!(text, " stack={stack:?}").unwrap();
                }
            }
            AgentEvent::Diff { unified_diff, .. } => write!(text, "diff {unified_diff:?}").unwrap(),
            AgentEvent::Delta { text: piece } => write!(text, "delta {piece:?}").unwrap(),
            AgentEvent::Reasoning { text: thought } => write!(text, "reasoning {thought:?}").unwrap(),
            AgentEvent::Log { text: line } => write!(text, "log {line:?}").unwrap(),
            AgentEvent::Unknown(raw) => write!(text, "unknown {raw}").unwrap(),
            AgentEvent::Status { .. } | AgentEvent::Artifact { .. } | AgentEvent::Approval { .. } => {
                panic!("the translator tells no {}", event.type_name())
            }
        }
        text.push('\n');
    }
    match &report.outcome {
        Outcome::Succeeded { summary } => writeln!(text, "= succeeded {summary:?}").unwrap(),
        Outcome::Failed(failure) => {
            writeln!(text, "= failed {} {:?}", failure.kind, failure.message).unwrap();
        }
        Outcome::Cancelled | Outcome::Limited(_) => writeln!(text, "= {}", report.outcome.as_str()).unwrap(),
    }
    writeln!(text, "= {}", used(&report.usage)).unwrap();
    writeln!(text, "= session {}", report.session_id.as_deref().unwrap_or("-")).unwrap();
    for denial in &report.denials {
        writeln!(text, "= denied {} {:?}", denial.tool, denial.call_id).unwrap();
    }
    text
}

fn used(usage: &Usage) -> String {
    let cost = usage.cost.map_or_else(|| "-".to_owned(), |cost| cost.0.to_string());
    format!(
        "usage turns={} in={} cached={} written={} out={} cost={cost}",
        usage.turns,
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens
    )
}
