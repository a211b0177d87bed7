//! The suite of the agent port: with the real Codex on a scripted model, and with a Codex that is a shell script.

#![expect(clippy::unwrap_used, reason = "a stage that cannot be set must fail the test")]

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lime_conformance::agent::{AgentFixture, EDITED_FILE, EDITED_TEXT, Stage, Task};
use lime_core::governance::{EnvValue, ToolPattern};
use lime_core::runs::{AgentMode, Constraints};
use lime_provider_codex::CodexBuilder;
use lime_scripted_model::{Ending, Fault, Script, ScriptedModel, Turn, Usage};
use support::{Place, THREAD, living, mark, real_codex};

/// What a task puts into its spec.
fn constraints(task: Task) -> Option<Constraints> {
    match task {
        Task::TurnLimit => Some(Constraints { max_turns: Some(2), ..Constraints::default() }),
        Task::CostLimit => Some(Constraints { max_cost_cents: Some(1), ..Constraints::default() }),
        Task::Edits
        | Task::Resumes
        | Task::Waits
        | Task::Fails
        | Task::UnknownSession
        | Task::NotReady
        | Task::Unsupported
        | Task::DeniedTool
        | Task::Asks
        | Task::AsksInVain
        | Task::Listens => None,
    }
}

fn stage(
    place: &Place,
    task: Task,
    builder: CodexBuilder,
    mark: String,
    keep: Option<Arc<ScriptedModel>>,
) -> Stage {
    let builder = match task {
        Task::NotReady => builder.binary("no/such/codex"),
        _ => builder,
    };
    let mut spec = place.spec("Do what the script says.");
    spec.request.constraints = constraints(task);
    if matches!(task, Task::DeniedTool | Task::AsksInVain) {
        spec.request.mode = AgentMode::Review;
    }
    let ask = match task {
        Task::Asks => &["shell(printf *)"][..],
        Task::AsksInVain => &["*"],
        _ => &[],
    };
    spec.ask = ask.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect();
    if task == Task::Asks {
        // Of Codex and the hook; its other processes are known by their command.
        spec.env.push(EnvValue::secret("MARK", mark.clone()).unwrap());
    }
    if task == Task::Unsupported {
        spec.tools = place.with_tools(&["Bash(git status *)"]).tools;
    }
    if task == Task::UnknownSession {
        spec.resume = Some(THREAD.to_owned());
    }
    let next = (task == Task::Resumes).then(|| place.spec("Go on."));
    Stage { next, living: Some(Box::new(move || living(&mark))), ..Stage::new(builder.build(), spec, keep) }
}

/// A command that does what [`Task::Asks`] asks for.
fn writes_the_file() -> String {
    format!("printf '{}' > {EDITED_FILE}", EDITED_TEXT.escape_default())
}

/// The real Codex; the places of its stages last as long as it, so that a test can look at them in the end.
struct Real {
    binary: PathBuf,
    places: Mutex<Vec<Arc<Place>>>,
}

impl AgentFixture for Real {
    async fn stage(&self, task: Task) -> Option<Stage> {
        let mark = mark();
        let again = |turn: Turn| Script::new().turn(turn).then(Ending::RepeatLast);
        let script = match task {
            Task::Edits => Script::new()
                .turn(Turn::new().say("On it.").write_file(EDITED_FILE, EDITED_TEXT))
                .turn(Turn::new().say("It is written.")),
            Task::Waits => {
                Script::new().turn(Turn::new().say("Wait.").run_command(format!("sleep 86{mark}")))
            }
            Task::Asks => Script::new()
                .turn(Turn::new().say("May I?").run_command(writes_the_file()))
                .turn(Turn::new().say("That is that.")),
            Task::AsksInVain => Script::edit_file(EDITED_FILE, EDITED_TEXT, "I may not."),
            Task::Listens => Script::new()
                .turn(Turn::new().say("This takes a moment.").run_command("sleep 2"))
                .turn(Turn::new().say("It is done.").paced(2, Duration::from_millis(100))),
            Task::Fails => Script::failing(Fault::unauthorized()),
            Task::DeniedTool => Script::edit_file(EDITED_FILE, EDITED_TEXT, "I may not."),
            Task::TurnLimit => again(Turn::new().run_command("true")),
            Task::CostLimit => again(
                Turn::new().run_command("true").usage(Usage { input_tokens: 100_000, ..Usage::default() }),
            ),
            Task::Resumes | Task::UnknownSession | Task::NotReady | Task::Unsupported => {
                Script::text("Done.")
            }
        };
        let place = place(&self.places);
        place.make_repository();
        let model = Arc::new(ScriptedModel::start(script).unwrap());
        let mut builder = place.builder().binary(&self.binary).base_url(model.openai_base_url());
        if task == Task::AsksInVain {
            builder = builder.model("gpt-5.5"); // which has a tool for patches
        }
        let mut stage = stage(&place, task, builder, mark, Some(model.clone()));
        stage.told =
            Some(Box::new(move || model.requests().iter().map(|request| request.body.to_string()).collect()));
        Some(stage)
    }
}

/// A Codex that is a shell script.
#[derive(Default)]
struct Scripted {
    places: Mutex<Vec<Arc<Place>>>,
}

fn place(places: &Mutex<Vec<Arc<Place>>>) -> Arc<Place> {
    let place = Arc::new(Place::new());
    places.lock().unwrap().push(place.clone());
    place
}

impl AgentFixture for Scripted {
    async fn stage(&self, task: Task) -> Option<Stage> {
        let mark = mark();
        let calls =
            "tool started a; tool completed a; used 1000000; tool started b; tool completed b; used 2000000";
        let turn = match task {
            Task::Edits => format!(
                "message start; tool started a; sleep 0.01; printf '{}' > {EDITED_FILE}; tool completed a; \
                 sleep 0.01; used 10; message done; used 20; ended completed",
                EDITED_TEXT.escape_default()
            ),
            Task::Waits => format!("message ready; sleep 86{mark}"),
            Task::Asks => format!(
                "message 'May I?'; gate a \"{command}\" && {{ tool started a; {command}; tool completed a; }}; \
                 message 'That is that.'; ended completed",
                command = writes_the_file()
            ),
            Task::AsksInVain => {
                let patch = format!("*** Begin Patch\\n*** Add File: {EDITED_FILE}\\n+x\\n*** End Patch\\n");
                format!("gate a '{patch}' apply_patch || message no; ended completed")
            }
            Task::Listens => {
                "message one; tool started a; sleep 2; tool completed a; used 10; message two; sleep 0.1; ended completed".to_owned()
            }
            Task::Fails => "ended failed".to_owned(),
            Task::DeniedTool => "tool started a; denied a; message no; ended completed".to_owned(),
            Task::TurnLimit | Task::CostLimit => calls.to_owned(),
            Task::Resumes | Task::UnknownSession | Task::NotReady | Task::Unsupported => {
                "message done; ended completed".to_owned()
            }
        };
        let place = place(&self.places);
        let builder = place.scripted(&turn, "ended interrupted");
        let mut stage = stage(&place, task, builder, mark, None);
        let told = place.told();
        stage.told = Some(Box::new(move || std::fs::read_to_string(&told).unwrap_or_default()));
        Some(stage)
    }
}

mod real {
    use std::sync::Mutex;

    use super::{Real, real_codex};

    lime_conformance::agent_suite!(async {
        real_codex().map(|binary| Real { binary, places: Mutex::default() })
    });
}

mod scripted {
    use super::Scripted;

    lime_conformance::agent_suite!(async { Some(Scripted::default()) });
}
