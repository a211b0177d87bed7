//! The agent suite on the real CLI. `LIME_CLAUDE_BIN` names it; without it, the tests are skipped.

#![allow(clippy::unwrap_used, reason = "a test panics where something is not as it should be")]

#[path = "support/processes.rs"]
mod processes;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lime_conformance::agent::{AgentFixture, EDITED_FILE, EDITED_TEXT, Stage, Task, spec};
use lime_core::governance::{Allowlist, EnvValue, ToolLayer, ToolPattern};
use lime_core::runs::Constraints;
use lime_provider_claude::ClaudeProvider;
use lime_scripted_model::{Ending, Fault, Script, ScriptedModel, Turn, Usage};
use processes::marked;
use serde_json::json;
use tempfile::TempDir;

/// The one line of [`EDITED_TEXT`].
const EDITED_LINE: &str = "Written by the agent.";

static STAGES: AtomicU32 = AtomicU32::new(0);

struct RealClaude {
    binary: PathBuf,
    /// Where its agents live and work, each in a folder of its own.
    folder: TempDir,
}

impl RealClaude {
    async fn find() -> Option<Self> {
        let binary = std::env::var_os("LIME_CLAUDE_BIN").map(PathBuf::from);
        if binary.is_none() {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "skipped: LIME_CLAUDE_BIN names no Claude Code").unwrap();
        }
        Some(Self { binary: binary?, folder: TempDir::new().unwrap() })
    }
}

/// What the model says for a task.
fn script(task: Task) -> Script {
    match task {
        Task::Edits => Script::new()
            .turn(
                Turn::new().think("A file is asked for.").say("On it.").write_file(EDITED_FILE, EDITED_TEXT),
            )
            .turn(Turn::new().say("It is written.")),
        Task::Waits => Script::new().turn(Turn::new().say("This takes a while.").run_command("sleep 600")),
        Task::Fails => Script::failing(Fault::unauthorized()),
        Task::Asks => Script::new()
            .turn(Turn::new().say("May I?").run_command(format!("printf '{EDITED_LINE}\\n' > {EDITED_FILE}")))
            .turn(Turn::new().say("That is that.")),
        Task::AsksInVain => {
            let outside = json!({ "file_path": "/not/of/the/repository", "content": "x" });
            Script::new()
                .turn(Turn::new().call_tool("Write", outside))
                .turn(Turn::new().call_tool("WebFetch", json!({ "url": "http://127.0.0.1:9/" })))
        }
        Task::Listens => Script::new()
            .turn(Turn::new().say("This takes a moment.").run_command("sleep 2"))
            .turn(Turn::new().say("It is done.").paced(2, Duration::from_millis(100))),
        Task::DeniedTool => {
            Script::new().turn(Turn::new().call_tool("WebFetch", json!({ "url": "http://127.0.0.1:9/" })))
        }
        Task::TurnLimit | Task::CostLimit => {
            let usage = Usage { input_tokens: 100_000, ..Usage::default() };
            Script::new().turn(Turn::new().run_command("true").usage(usage)).then(Ending::RepeatLast)
        }
        Task::Resumes | Task::UnknownSession | Task::NotReady | Task::Unsupported => {
            Script::text("Here I am.")
        }
    }
}

impl AgentFixture for RealClaude {
    async fn stage(&self, task: Task) -> Option<Stage> {
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder.path().join(number.to_string());
        let model = Arc::new(ScriptedModel::start(script(task)).unwrap());
        let (home, work) = (folder.join("home"), folder.join("work"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let builder = ClaudeProvider::builder()
            .binary(&self.binary)
            .base_url(model.anthropic_base_url())
            .model("claude-sonnet-4-5")
            .max_retries(0)
            .pass("HOME", home.to_string_lossy())
            .pass("PATH", "/usr/local/bin:/usr/bin:/bin");
        let provider = if task == Task::NotReady { builder } else { builder.api_key("dummy-key-of-a-test") };
        let mark = format!("conformance-{}-{number}", std::process::id());
        let mut spec = spec(&work, "Do what the script says.");
        spec.env.push(EnvValue::secret("MARK", mark.clone()).unwrap());
        let constraints = Constraints {
            max_turns: (task == Task::TurnLimit).then_some(2),
            max_cost_cents: (task == Task::CostLimit).then_some(40),
            ..Constraints::default()
        };
        spec.request.constraints = Some(constraints);
        if task == Task::Unsupported {
            spec.tools = Allowlist::parse(ToolLayer::Run, &["Edit,Bash"]).unwrap();
        }
        spec.resume =
            (task == Task::UnknownSession).then(|| "11111111-2222-4333-8444-555555555555".to_owned());
        let ask = match task {
            Task::Asks => &["Bash(printf *)"][..],
            Task::AsksInVain => &["*"],
            _ => &[],
        };
        spec.ask = ask.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect();
        let next = (task == Task::Resumes).then(|| lime_conformance::agent::spec(&work, "Go on."));
        let mut stage = Stage::new(provider.build(), spec, model.clone());
        stage.next = next;
        stage.told =
            Some(Box::new(move || model.requests().iter().map(|request| request.body.to_string()).collect()));
        stage.living = Some(Box::new(move || marked(&mark)));
        Some(stage)
    }
}

lime_conformance::agent_suite!(RealClaude::find());

#[test]
fn the_line_is_the_text() {
    assert_eq!(format!("{EDITED_LINE}\n"), EDITED_TEXT);
}
