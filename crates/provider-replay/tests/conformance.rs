//! The suite of the port, on recordings.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

use lime_conformance::agent::{AgentFixture, EDITED_FILE, Stage, Task, spec};
use lime_core::governance::{Allowlist, ToolLayer, ToolPattern};
use lime_core::runs::{AgentMode, Constraints};
use lime_provider_replay::{Recording, ReplayProvider};

struct Recordings;

const EDITS: &str = r#"
    [[step]]
    wait_ms = 3
    say = "I write the file."
    stream_ms = 12

    [[step]]
    wait_ms = 3
    write = "conformance.txt"
    content = "Written by the agent.\n"
    takes_ms = 5

    [[step]]
    usage = { input_tokens = 10, output_tokens = 2, cost_micros = 20_000 }

    [[step]]
    wait_ms = 3
    say = "Done."
"#;

impl AgentFixture for Recordings {
    async fn stage(&self, task: Task) -> Option<Stage> {
        let steps = match task {
            Task::Waits => "[[step]]\nsay = 'I wait.'\n[[step]]\nhang = true",
            Task::Listens => {
                "[[step]]\nsay = 'I work.'\n[[step]]\nrun = 'make'\ntakes_ms = 300\n[[step]]\nsay = 'Done.'"
            }
            Task::Fails => "[[step]]\nfail = 'overloaded'\nmessage = 'Too much to do.'",
            // It starts no program and needs no key.
            Task::NotReady => return None,
            Task::Edits
            | Task::Resumes
            | Task::UnknownSession
            | Task::Unsupported
            | Task::DeniedTool
            | Task::Asks
            | Task::AsksInVain
            | Task::TurnLimit
            | Task::CostLimit => EDITS,
        };
        let recording = Recording::parse(&format!("version = 1\nname = 'suite'\n{steps}")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut spec = spec(folder.path(), "Write the file.");
        let constraints = match task {
            Task::TurnLimit => Constraints { max_turns: Some(1), ..Default::default() },
            Task::CostLimit => Constraints { max_cost_cents: Some(2), ..Default::default() },
            _ => Constraints::default(),
        };
        spec.request.constraints = Some(constraints);
        if matches!(task, Task::DeniedTool | Task::AsksInVain) {
            spec.tools = Allowlist::parse(ToolLayer::Run, &["Read"]).unwrap();
        }
        if task == Task::Unsupported {
            spec.request.mode = AgentMode::Plan;
        }
        if task == Task::UnknownSession {
            spec.resume = Some("replay/another/1".into());
        }
        if matches!(task, Task::Asks | Task::AsksInVain) {
            spec.ask = vec![ToolPattern::parse("Write(*.txt)").unwrap()];
        }
        let next =
            (task == Task::Resumes).then(|| lime_conformance::agent::spec(folder.path(), "Once more."));
        let stage = Stage::new(ReplayProvider::new(recording), spec, folder);
        Some(Stage { next, ..stage })
    }
}

lime_conformance::agent_suite!(async { Some(Recordings) });

#[test]
fn the_recording_writes_the_file_that_the_suite_reads() {
    assert!(EDITS.contains(EDITED_FILE));
}
