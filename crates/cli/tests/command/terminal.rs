use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::ground::{Ground, in_time, submit, tenant};

/// Run by `script`, which gives the command a terminal to ask on.
#[tokio::test]
async fn at_a_terminal_the_operator_is_asked() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let Some(no) = answer(&ground, &run, "n\n").await else {
        lime_conformance::skip("there is no `script` of util-linux here");
        return;
    };
    assert!(no.contains("Go on? [y/N]") && no.contains("Nothing was changed."), "{no}");
    assert_eq!(ground.json(["runs", "show", &run]).await["run"]["status"], "queued");
    let nothing = answer(&ground, &run, "\n").await.unwrap();
    assert!(nothing.contains("Nothing was changed."), "{nothing}");
    let yes = answer(&ground, &run, "y\n").await.unwrap();
    assert!(yes.contains("is cancelled."), "{yes}");
    assert_eq!(ground.json(["runs", "show", &run]).await["run"]["status"], "cancelled");
}

async fn answer(ground: &Ground, run: &str, answer: &str) -> Option<String> {
    let line = format!("{} runs cancel {run}", env!("CARGO_BIN_EXE_lime"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("DATABASE_URL", &ground.url);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut input = child.stdin.take()?;
    input.write_all(answer.as_bytes()).await.unwrap();
    let output = in_time(child.wait_with_output()).await.unwrap();
    drop(input);
    let said = String::from_utf8(output.stdout).unwrap();
    said.contains("The run").then_some(said)
}
