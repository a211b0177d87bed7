//! Recorded sessions of Claude Code: reading them, playing them to the translator, writing down what comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lime_core::ports::SessionReport;
use lime_core::runs::{AgentEvent, Outcome};
use lime_provider_claude::{ExitFacts, Translator};
use serde_json::{Value, json};

/// How far apart the lines of a recording are taken to be that does not say it.
const STEP: Duration = Duration::from_millis(10);
/// How much of a text a listing shows, in characters.
const SHOWN: usize = 120;
const SIGKILL: i64 = -9;

/// A recorded session: `name.jsonl`, with `name.meta.json` and `name.err` where they are.
///
/// - Lines of stdout, or a log of both directions with `{t, dir, msg}` a line.
/// - `meta.json`: `rc` is the exit code, or the signal below 0; `signal_sent` is there if whoever recorded it
///   stopped the CLI with a signal.
pub(crate) struct Recording {
    lines: Vec<(Duration, Direction, String)>,
    exit: ExitFacts,
    stopped: bool,
}

#[derive(PartialEq)]
enum Direction {
    FromCli,
    ToCli,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> std::io::Result<Self> {
        let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
        let mut at = Duration::ZERO;
        let lines = text
            .lines()
            .map(|line| {
                at += STEP;
                let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
                    return (at, Direction::FromCli, line.to_owned());
                };
                match (fields.remove("dir"), fields.remove("msg")) {
                    (Some(dir), Some(msg)) => {
                        let seconds = fields.get("t").and_then(Value::as_f64).unwrap_or_default();
                        let direction = if dir == ">" { Direction::ToCli } else { Direction::FromCli };
                        // A message that is no JSON is logged as a string.
                        let line = msg.as_str().map_or_else(|| msg.to_string(), str::to_owned);
                        (Duration::try_from_secs_f64(seconds).unwrap_or(at), direction, line)
                    }
                    _ => (at, Direction::FromCli, line.to_owned()),
                }
            })
            .collect();
        let beside = |ending: &str| fs::read_to_string(path.with_extension(ending)).unwrap_or_default();
        let meta: Value = serde_json::from_str(&beside("meta.json")).unwrap_or_default();
        let code = meta["rc"].as_i64();
        let exit = ExitFacts {
            code: code.filter(|code| *code >= 0).and_then(|code| i32::try_from(code).ok()),
            signal: code.filter(|code| *code < 0).and_then(|code| i32::try_from(-code).ok()),
            stderr: beside("err"),
            notes: Vec::new(),
        };
        // SIGINT and SIGTERM ask for an end; a SIGKILL looks like any crash.
        let stopped = meta.get("signal_sent").is_some() && code != Some(SIGKILL);
        Ok(Self { lines, exit, stopped })
    }

    /// Whether it looks like Claude's: by the types of its lines.
    pub(crate) fn is_claudes(&self) -> bool {
        self.lines.iter().any(|(_, _, line)| {
            let value: Value = serde_json::from_str(line).unwrap_or_default();
            let has = |field: &str| value.get(field).is_some();
            match value["type"].as_str() {
                Some("system") => has("session_id") || has("subtype"),
                Some("assistant" | "user") => has("message"),
                Some("stream_event") => has("event"),
                Some("result") => has("is_error") || has("subtype") || has("total_cost_usd"),
                Some("control_request") => has("request"),
                Some("control_response") => has("response"),
                _ => false,
            }
        })
    }

    /// What the CLI printed.
    pub(crate) fn printed(&self) -> impl Iterator<Item = &str> {
        let printed = self.lines.iter().filter(|(_, direction, _)| *direction == Direction::FromCli);
        printed.map(|(_, _, line)| line.as_str())
    }

    /// Plays it: the events, and the report.
    pub(crate) fn play(&self) -> (Vec<AgentEvent>, SessionReport) {
        let mut translator = Translator::new();
        let mut events = Vec::new();
        let mut last = Duration::ZERO;
        for (at, direction, line) in &self.lines {
            last = *at;
            match direction {
                Direction::FromCli => events.extend(translator.line(line, *at)),
                Direction::ToCli => translator.sent(&serde_json::from_str(line).unwrap_or_default()),
            }
        }
        if self.stopped {
            translator.sent(&json!({ "type": "control_request", "request": { "subtype": "interrupt" } }));
        }
        events.extend(translator.close(last));
        (events, translator.finish(&self.exit))
    }
}

/// The recordings in a folder, by name.
pub(crate) fn recordings(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "jsonl"))
        .collect();
    paths.sort();
    Ok(paths)
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// One word for how it ended; `denied` is a success in which some call was not allowed.
pub(crate) fn word(report: &SessionReport) -> &'static str {
    match &report.outcome {
        Outcome::Succeeded { .. } if report.denials.is_empty() => "success",
        Outcome::Succeeded { .. } => "denied",
        Outcome::Failed(_) => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Limited(_) => "limits",
    }
}

/// One line an event, long texts cut, and the report in the end.
pub(crate) fn listing(events: &[AgentEvent], report: &SessionReport) -> String {
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| {
            let mut value = serde_json::to_value(event).expect("every event has a JSON form");
            shorten(&mut value);
            value.to_string()
        })
        .collect();
    let outcome = match &report.outcome {
        Outcome::Succeeded { summary } => format!("succeeded {summary:?}"),
        Outcome::Failed(failure) => format!("failed {}: {}", failure.kind, failure.message),
        Outcome::Cancelled => "cancelled".to_owned(),
        Outcome::Limited(limit) => format!("limited by {limit}"),
    };
    let usage = serde_json::to_string(&report.usage).expect("usage has a JSON form");
    lines.push(format!("= {outcome}"));
    lines.push(format!("= session {}", report.session_id.as_deref().unwrap_or("none")));
    lines.push(format!("= usage {usage}"));
    for denial in &report.denials {
        lines.push(format!("= denied {} {}", denial.tool, denial.call_id));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(SHOWN) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
