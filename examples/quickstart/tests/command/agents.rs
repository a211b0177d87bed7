//! The real agents, against a scripted model on loopback: `LIME_CLAUDE_BIN` and `LIME_CODEX_BIN` name them.

use std::ffi::OsString;
use std::io::Write;

use lime_scripted_model::{Script, ScriptedModel};

use crate::user::{Seen, User, git};

#[tokio::test]
async fn claude_works_in_the_users_repository() {
    let Some(program) = program("LIME_CLAUDE_BIN") else { return };
    let model = ScriptedModel::start(Script::edit_file("greeting.txt", "hello\n", "I wrote it.")).unwrap();
    let url = model.anthropic_base_url();
    works(
        "claude",
        ("LIME_CLAUDE_BIN", program),
        [("ANTHROPIC_BASE_URL", &*url), ("ANTHROPIC_API_KEY", "dummy-key")],
    )
    .await;
}

#[tokio::test]
async fn codex_works_in_the_users_repository() {
    let Some(program) = program("LIME_CODEX_BIN") else { return };
    let model = ScriptedModel::start(Script::edit_file("greeting.txt", "hello\n", "I wrote it.")).unwrap();
    let url = model.openai_base_url();
    works(
        "codex",
        ("LIME_CODEX_BIN", program),
        [("OPENAI_BASE_URL", &*url), ("OPENAI_API_KEY", "dummy-key")],
    )
    .await;
}

async fn works(provider: &str, (variable, program): (&str, OsString), environment: [(&str, &str); 2]) {
    let user = User::new();
    let repository = user.repository().await;
    let prompt = ["--prompt", "Write a greeting", "--branch", "greeting"];
    let mut command = user.command(["--repo", repository.to_str().unwrap(), "--provider", provider]);
    command.args(prompt).env(variable, program).envs(environment);
    let seen = Seen::of(command).await;
    assert_eq!(seen.status.code(), Some(0));
    assert!(seen.stdout.contains("I wrote it."));
    assert!(!seen.stdout.contains("dummy-key"));
    assert_eq!(git(&repository, &["show", "greeting:greeting.txt"]).await, "hello\n");
    assert_eq!(git(&repository, &["diff", "--name-only", "main", "greeting"]).await, "greeting.txt\n");
    assert_eq!(git(&repository, &["status", "--porcelain"]).await, "", "the working tree is as it was");
}

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
