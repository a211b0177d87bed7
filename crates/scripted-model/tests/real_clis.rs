//! The real Claude Code and Codex, driven by scripts: `LIME_CLAUDE_BIN` and `LIME_CODEX_BIN` name them.
//!
//! They run with a cleared environment, a home of their own, a dummy key and a base URL on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what the agent said"
)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lime_scripted_model::{Fault, RequestKind, Script, ScriptedModel, Turn};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The agent's program, or a visible skip.
fn program(variable: &str) -> Option<OsString> {
    let program = std::env::var_os(variable);
    if program.is_none() {
        // Written past the test harness, which keeps the output of a passing test to itself.
        let line = format!("skipped: {variable} is not set\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    program
}

/// One agent in a directory and a home of its own.
struct Agent {
    program: OsString,
    home: TempDir,
    repo: TempDir,
}

impl Agent {
    fn new(program: OsString) -> Self {
        Self { program, home: TempDir::new().unwrap(), repo: TempDir::new().unwrap() }
    }

    fn file(&self, path: &str) -> String {
        std::fs::read_to_string(self.repo.path().join(path)).unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.repo.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn claude(&self, model: &ScriptedModel, extra: &[&str]) -> (Vec<Value>, ExitStatus) {
        let mut command = self.command();
        command
            .env("ANTHROPIC_BASE_URL", model.anthropic_base_url())
            .env("ANTHROPIC_API_KEY", "dummy")
            .env("DISABLE_TELEMETRY", "1")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("CLAUDE_CODE_MAX_RETRIES", "2")
            .args(["-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits"])
            .args(["--model", "claude-sonnet-4-5", "--allowedTools=Bash"])
            .args(extra)
            .arg("edit the file");
        finish(command).await
    }

    async fn codex(&self, model: &ScriptedModel, model_name: &str) -> (Vec<Value>, ExitStatus) {
        let repo = self.repo.path().to_str().unwrap();
        self.codex_exec(model, &["-s", "workspace-write", "-m", model_name, "-C", repo]).await
    }

    async fn codex_exec(&self, model: &ScriptedModel, arguments: &[&str]) -> (Vec<Value>, ExitStatus) {
        let codex_home = self.home.path().join(".codex");
        std::fs::create_dir_all(&codex_home).unwrap();
        std::fs::write(codex_home.join("config.toml"), codex_config(&model.openai_base_url())).unwrap();
        let mut command = self.command();
        command
            .env("CODEX_HOME", &codex_home)
            .env("SCRIPTED_KEY", "dummy")
            .arg("exec")
            .args(["--disable", "plugins", "--disable", "apps", "--disable", "remote_plugin"])
            .args(["--disable", "plugin_sharing"])
            .args(arguments)
            .args(["--json", "--skip-git-repo-check"])
            .arg("edit the file");
        finish(command).await
    }
}

fn codex_config(base_url: &str) -> String {
    format!(
        r#"
model_provider = "scripted"
approval_policy = "never"
check_for_update_on_startup = false
[model_providers.scripted]
name = "scripted"
base_url = "{base_url}"
env_key = "SCRIPTED_KEY"
wire_api = "responses"
supports_websockets = false
request_max_retries = 2
stream_max_retries = 2
[analytics]
enabled = false
"#
    )
}

async fn finish(mut command: Command) -> (Vec<Value>, ExitStatus) {
    let output = tokio::time::timeout(TIME_LIMIT, command.output()).await.expect("the agent took too long");
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (lines, output.status)
}

/// Codex's last message.
fn last_said(lines: &[Value]) -> &Value {
    let mut said = lines.iter().filter(|line| line["item"]["type"] == "agent_message");
    &said.next_back().unwrap()["item"]["text"]
}

/// Writes a new file and an existing one, changes a line, runs a command, says goodbye.
fn story() -> Script {
    Script::new()
        .turn(Turn::new().think("I have a plan.").say("Writing.").write_file("new/a.txt", "one\ntwo\n"))
        .turn(Turn::new().write_file("old.txt", "replaced\n").write_file("raw.txt", "it's raw"))
        .turn(Turn::new().replace_lines("new/a.txt", "two", "deux"))
        .turn(Turn::new().run_command("cp new/a.txt copied.txt"))
        .turn(Turn::new().say("All done.").fault_first(1, Fault::Cut { after_deltas: 0 }))
}

fn write_old(repo: &Path) {
    std::fs::write(repo.join("old.txt"), "as it was\n").unwrap();
}

fn assert_told(agent: &Agent, model: &ScriptedModel) {
    assert_eq!(agent.file("new/a.txt"), "one\ndeux\n");
    assert_eq!(agent.file("old.txt"), "replaced\n");
    assert_eq!(agent.file("raw.txt"), "it's raw");
    assert_eq!(agent.file("copied.txt"), "one\ndeux\n");
    let turns: Vec<_> = model.requests().into_iter().map(|request| request.kind).collect();
    for turn in 0..5 {
        assert!(turns.contains(&RequestKind::Turn(turn)), "turn {turn} was never asked for: {turns:?}");
    }
    assert!(!turns.contains(&RequestKind::Turn(5)), "a turn too many: {turns:?}");
}

#[tokio::test]
async fn claude_plays_a_story() {
    let Some(program) = program("LIME_CLAUDE_BIN") else {
        return;
    };
    let agent = Agent::new(program);
    write_old(agent.repo.path());
    let model = ScriptedModel::start(story()).unwrap();
    let (lines, status) = agent.claude(&model, &[]).await;
    let result = lines.iter().find(|line| line["type"] == "result").unwrap();
    assert!(status.success());
    assert_eq!((&result["is_error"], result["result"].as_str()), (&Value::Bool(false), Some("All done.")));
    assert_told(&agent, &model);
}

#[tokio::test]
async fn claude_edits_a_file_under_a_system_prompt_that_names_no_directory() {
    let Some(program) = program("LIME_CLAUDE_BIN") else {
        return;
    };
    let agent = Agent::new(program);
    let model = ScriptedModel::start(Script::edit_file("a.txt", "hello\n", "Done.")).unwrap();
    let (_, status) = agent.claude(&model, &["--system-prompt", "You are terse."]).await;
    assert!(status.success());
    assert_eq!(agent.file("a.txt"), "hello\n");
}

#[tokio::test]
async fn claude_goes_on_with_the_next_turn_when_resumed() {
    let Some(program) = program("LIME_CLAUDE_BIN") else {
        return;
    };
    let agent = Agent::new(program);
    let script = Script::edit_file("a.txt", "hello\n", "First.").turn(Turn::new().say("Second."));
    let model = ScriptedModel::start(script).unwrap();
    let (lines, _) = agent.claude(&model, &[]).await;
    let session = lines[0]["session_id"].as_str().unwrap();
    let (lines, _) = agent.claude(&model, &[&format!("--resume={session}")]).await;
    assert_eq!(lines.iter().find(|line| line["type"] == "result").unwrap()["result"], "Second.");
}

/// Codex offers its tools in three ways, depending on what it knows of the model.
#[tokio::test]
async fn codex_plays_a_story_with_every_set_of_tools() {
    let Some(program) = program("LIME_CODEX_BIN") else {
        return;
    };
    for name in ["gpt-5.5", "gpt-6-sol", "a-model-it-does-not-know"] {
        let agent = Agent::new(program.clone());
        write_old(agent.repo.path());
        let model = ScriptedModel::start(story()).unwrap();
        let (lines, status) = agent.codex(&model, name).await;
        assert!(status.success(), "{name}");
        assert_eq!(lines.last().unwrap()["type"], "turn.completed");
        assert_eq!(last_said(&lines), "All done.");
        assert!(lines.iter().any(|line| line["item"]["type"] == "file_change"), "{name} emits file changes");
        assert_told(&agent, &model);
    }
}

#[tokio::test]
async fn codex_goes_on_with_the_next_turn_when_resumed() {
    let Some(program) = program("LIME_CODEX_BIN") else {
        return;
    };
    let agent = Agent::new(program);
    let script = Script::edit_file("a.txt", "hello\n", "First.").turn(Turn::new().say("Second."));
    let model = ScriptedModel::start(script).unwrap();
    let (lines, _) = agent.codex(&model, "gpt-5.5").await;
    let thread = lines[0]["thread_id"].as_str().unwrap();
    let (lines, _) = agent.codex_exec(&model, &["resume", "-m", "gpt-5.5", thread]).await;
    assert_eq!(last_said(&lines), "Second.");
}

#[tokio::test]
async fn codex_reports_a_used_up_account() {
    let Some(program) = program("LIME_CODEX_BIN") else {
        return;
    };
    let agent = Agent::new(program);
    let model = ScriptedModel::start(Script::failing(Fault::Quota)).unwrap();
    let (lines, status) = agent.codex(&model, "gpt-5.5").await;
    assert_eq!(status.code(), Some(1));
    assert_eq!(lines.last().unwrap()["type"], "turn.failed");
}
