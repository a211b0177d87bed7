//! instructions preview, instructions diff.

use lime_core::Store;
use lime_core::agents::{CustomInstruction, DefaultInstruction, InstructionScope, ResolvedInstructions};
use lime_core::planning::{Board, Ticket, Workflow};
use lime_core::ports::{EventLog, InstructionSource, Progress, Record, RunTarget};
use lime_core::runs::{AgentMode, ProviderId};
use serde_json::json;

use crate::ground::{Ground, LONG, claim, fields, submit, tenant};

const REPLAY: ProviderId = ProviderId::from_static("replay");

#[tokio::test]
async fn a_preview_says_what_an_agent_would_be_told() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let default = DefaultInstruction { provider: None, enabled: true, content_md: "Be brief.".into() };
    storage.insert(&scope, default).await.unwrap();
    let board = Board { project_id: project.id, name: "B".into(), workflow: Workflow::delivery() };
    let board = storage.insert(&scope, board).await.unwrap();
    let ticket = storage.insert(&scope, Ticket::new(project.id, board.id, "todo", "A flag")).await.unwrap();
    let plan = CustomInstruction::new(InstructionScope::Ticket(ticket.id), "Evil \u{1b}[31mred");
    let plan = CustomInstruction { mode: Some(AgentMode::Plan), ..plan };
    storage.insert(&scope, plan).await.unwrap();

    let preview = ["instructions", "preview", "--provider", "claude"];
    let seen = ground.run(preview.iter().chain(&["--project", "WEB"])).await;
    assert_eq!(seen.code, 0);
    let lines: Vec<_> = seen.stdout.lines().collect();
    assert_eq!(lines[0], "SCOPE    SOURCE                        PRIORITY  BYTES  SHA256");
    assert!(lines[1].starts_with("default  default_agent_instructions 1  100       9      "), "{}", lines[1]);
    assert_eq!(&lines[2..], ["", "Be brief."]);

    let ticket_id = ticket.id.to_string();
    let seen = ground.run(preview.iter().chain(&["--ticket", &*ticket_id, "--mode", "plan"])).await;
    assert!(seen.stdout.ends_with("Be brief.\n\n# Ticket: A flag\n\nEvil red\n"), "{}", seen.stdout);
    let args = preview.iter().chain(&["--ticket", &*ticket_id]).copied().collect::<Vec<_>>();
    let document = ground.json(args).await;
    let all = ["commit", "instructions", "mode", "model", "provider", "repositoryId", "tenant"];
    assert_eq!(fields(&document), all);
    assert_eq!(fields(&document["instructions"]), ["layers", "sha256", "text"]);
    assert_eq!(document["instructions"]["layers"][1]["source"], format!("tickets {ticket_id}"));

    let seen = ground.run(preview).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("--project or a --ticket"));
    let seen = ground.run(preview.iter().chain(&["--ticket", "99"])).await;
    assert_eq!(seen.code, 3);
}

#[tokio::test]
async fn a_diff_says_what_two_runs_were_told_differently() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let rule = CustomInstruction::new(InstructionScope::Tenant, "Be brief.");
    let mut rule = storage.insert(&scope, rule).await.unwrap();
    let target = RunTarget { project_id: project.id, repository_id: None, ticket_id: None };
    let mut runs = Vec::new();
    for content in ["Be brief.", "Be brief.", "Be long."] {
        rule.value.content_md = content.into();
        rule = storage.update(&scope, &rule).await.unwrap();
        let run = submit(&storage, &scope, &project, "x").await;
        let lease = claim(&storage, LONG).await.lease;
        let layers = storage.layers(&scope, target).await.unwrap();
        let told = ResolvedInstructions::resolve(&layers, &REPLAY, AgentMode::Implement).unwrap();
        let progress = Progress { instructions: Some(told), ..Progress::default() };
        storage.append(&lease, Record { progress, ..Record::default() }).await.unwrap();
        runs.push(run.id.to_string());
    }
    let waiting = submit(&storage, &scope, &project, "x").await.id.to_string();

    let seen = ground.run(["instructions", "diff", &*runs[0], &*runs[1]]).await;
    assert_eq!((seen.code, seen.stdout.as_str()), (0, ""));
    assert!(seen.stderr.contains("told the same"));
    let seen = ground.run(["instructions", "diff", &*runs[0], &*runs[2]]).await;
    let lines: Vec<_> = seen.stdout.lines().collect();
    assert!(
        lines[1].starts_with("changed  tenant  custom_instructions 1  100       9 -> 8  "),
        "{}",
        lines[1]
    );
    let document = ground.json(["instructions", "diff", &*runs[0], &*runs[2]]).await;
    assert_eq!(fields(&document), ["after", "before", "changes", "same"]);
    assert_eq!((&document["same"], &document["before"]["runId"]), (&json!(false), &json!(runs[0])));
    assert_eq!(document["changes"][0]["change"], "changed");
    let seen = ground.run(["instructions", "diff", &*runs[0], &*waiting]).await;
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("has not been told anything yet"));
}
