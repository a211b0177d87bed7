//! The recording that the quickstart plays fits its demo repository, and leaves it with passing tests.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lime_conformance::agent::spec;
use lime_core::ports::AgentProvider;
use lime_core::runs::{AgentEvent, Outcome, ToolStatus};
use lime_provider_replay::{Recording, ReplayProvider};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The last line of the tests' output, which has no times in it.
fn verdict(python: &str, folder: &Path) -> Option<String> {
    let output = Command::new(python)
        .args(["-B", "-m", "unittest"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH")?)
        .output()
        .ok()?;
    String::from_utf8(output.stderr).ok()?.trim_end().lines().last().map(str::to_owned)
}

#[tokio::test]
async fn the_demo_can_be_played_and_its_output_is_true() {
    let quickstart = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart"));
    if !quickstart.join("demo").is_dir() {
        lime_conformance::skip("examples/quickstart is not here");
        return;
    }
    let recording = Recording::load(quickstart.join("recordings/due-dates.toml")).unwrap();
    assert_eq!(recording.ticket().unwrap().title, "Show which tasks are overdue");
    let folder = tempfile::tempdir().unwrap();
    copy(&quickstart.join("demo"), folder.path());
    let python = "python3";
    let has_python = verdict(python, folder.path()).as_deref() == Some("OK");
    if !has_python {
        lime_conformance::skip("no python3 runs the demo's tests; its edits are checked all the same");
    }

    let provider = ReplayProvider::new(recording).speed(0.0);
    let mut session = provider.start(spec(folder.path(), "Show which tasks are overdue")).await.unwrap();
    let mut tests = 0;
    while let Some(event) = session.next_event().await {
        if let AgentEvent::Tool { name, status: ToolStatus::Completed, output: Some(output), .. } = &event
            && name == "Bash"
        {
            tests += 1;
            if has_python {
                assert_eq!(verdict(python, folder.path()).as_deref(), output.trim_end().lines().last());
            }
        }
    }
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { summary: Some(_) }), "{:?}", report.outcome);
    assert_eq!(tests, 2);
    assert_eq!(report.usage.turns, 6);
}
