//! Plays steps in a folder.

#![allow(dead_code, reason = "not every test file needs all of it")]

use std::fs;
use std::path::Path;

use lime_conformance::agent::spec;
use lime_core::ErrorKind;
use lime_core::ports::{AgentProvider, AgentSession, SessionReport, SessionSpec};
use lime_core::runs::{AgentEvent, FailureKind, Outcome, ToolStatus};
use lime_provider_replay::{Recording, ReplayProvider};
use tempfile::TempDir;

pub(crate) fn recording(steps: &str) -> Recording {
    Recording::parse(&format!("version = 1\nname = 'r'\n{steps}")).unwrap()
}

pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

pub(crate) async fn drain(session: &mut dyn AgentSession) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        events.push(event);
    }
    events
}

pub(crate) async fn play_spec(steps: &str, spec: SessionSpec) -> (Vec<AgentEvent>, SessionReport) {
    let mut session = ReplayProvider::new(recording(steps)).speed(0.0).start(spec).await.unwrap();
    let events = drain(&mut *session).await;
    (events, session.report().await)
}

pub(crate) async fn play(steps: &str, folder: &Path) -> (Vec<AgentEvent>, SessionReport) {
    play_spec(steps, spec(folder, "Do it.")).await
}

pub(crate) fn tools(events: &[AgentEvent]) -> Vec<(&str, ToolStatus, &str)> {
    let tool = |event| match event {
        &AgentEvent::Tool { ref name, status, ref output, .. } => {
            Some((name.as_str(), status, output.as_deref().unwrap_or("")))
        }
        _ => None,
    };
    events.iter().filter_map(tool).collect()
}

pub(crate) fn failure(report: &SessionReport) -> (FailureKind, &str) {
    match &report.outcome {
        Outcome::Failed(failure) => (failure.kind, &failure.message),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn refusal(provider: &ReplayProvider, spec: SessionSpec) -> String {
    let error = provider.start(spec).await.err().expect("it was to be refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.message().to_owned()
}
