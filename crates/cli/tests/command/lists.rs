//! runs list, runs show.

use lime_core::Store;
use lime_core::ports::{EventLog, Record};
use lime_core::runs::{AgentEvent, Effect, EffectKind, EffectStatus, RunStep, StepKind, StepStatus};
use serde_json::json;

use crate::ground::{Ground, LONG, claim, fields, submit, succeed, tenant};

const RUN: [&str; 32] = [
    "artifacts",
    "attempts",
    "baseRef",
    "branch",
    "cancelRequestedAt",
    "crashes",
    "createdAt",
    "endedAt",
    "failure",
    "failures",
    "id",
    "lastSeq",
    "mode",
    "model",
    "parentRunId",
    "pauseRequestedAt",
    "priority",
    "project",
    "projectId",
    "prompt",
    "provider",
    "repositoryId",
    "runAt",
    "startedAt",
    "status",
    "stopReason",
    "summary",
    "tenant",
    "ticketId",
    "toolCalls",
    "uniqueKey",
    "usage",
];

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    for prompt in ["first\nsecond line", "evil \u{1b}[31mred", "third"] {
        submit(&storage, &scope, &project, prompt).await;
    }
    succeed(&storage, &claim(&storage, LONG).await).await;

    let list = ground.json(["runs", "list"]).await;
    assert_eq!(fields(&list), ["next", "runs"]);
    assert_eq!(fields(&list["runs"][0]), RUN);
    let ids = |list: &serde_json::Value| {
        let runs = list["runs"].as_array().unwrap().iter();
        runs.map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&list), ["3", "2", "1"]);
    assert_eq!(
        (&list["runs"][2]["status"], &list["runs"][2]["stopReason"]),
        (&"succeeded".into(), &"end_turn".into())
    );
    assert_eq!(list["runs"][0]["project"], "WEB");

    let page = ground.json(["runs", "list", "--limit", "2"]).await;
    assert_eq!((ids(&page), &page["next"]), (vec!["3".to_owned(), "2".to_owned()], &"2".into()));
    let rest = ground.json(["runs", "list", "--limit", "2", "--after", "2"]).await;
    assert_eq!((ids(&rest), &rest["next"]), (vec!["1".to_owned()], &serde_json::Value::Null));
    let every = ground.json(["runs", "list", "--limit", "2", "--all-tenants"]).await;
    assert_eq!((ids(&every), &every["next"]), (vec!["3".to_owned(), "2".to_owned()], &"2".into()));

    assert_eq!(
        ids(&ground.json(["runs", "list", "--status", "queued", "--status", "failed"]).await),
        ["3", "2"]
    );
    assert_eq!(ids(&ground.json(["runs", "list", "--project", "WEB"]).await).len(), 3);
    let by_id = ["runs", "list", "--project", &project.id.to_string(), "--status", "succeeded"];
    assert_eq!(ids(&ground.json(by_id).await), ["1"]);

    let text = ground.run(["runs", "list"]).await.stdout;
    let lines: Vec<_> = text.lines().collect();
    let columns: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(
        columns,
        ["ID", "TENANT", "PROJECT", "STATUS", "REASON", "PROVIDER", "MODE", "TRIES", "LOST", "AGE", "PROMPT"]
    );
    assert_eq!(lines.len(), 4, "a line each");
    assert!(lines[2].ends_with("evil red"), "nothing that a terminal obeys: {:?}", lines[2]);
    assert!(lines[3].ends_with("first"));
}

#[tokio::test]
async fn a_run_is_shown_with_all_that_belongs_to_it() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "Add a theme").await;
    let id = run.id.to_string();
    ground.json(["runs", "say", &id, "and make it dark"]).await;
    let claim = claim(&storage, LONG).await;
    let step = RunStep {
        run_id: run.id,
        step_number: 1,
        step_key: "prepare".into(),
        kind: StepKind::Phase,
        status: StepStatus::Running,
        model_id: None,
        usage: None,
        result: None,
        error: None,
        completed_at: None,
    };
    let record = Record { steps: vec![step], ..Record::from(vec![AgentEvent::system("hello")]) };
    storage.append(&claim.lease, record).await.unwrap();
    let effect = Effect {
        run_id: run.id,
        attempt_id: claim.lease.attempt,
        kind: EffectKind::Push,
        idempotency_key: "push:lime/1".into(),
        expected: json!({ "branch": "lime/1" }),
        status: EffectStatus::Pending,
        approval_id: None,
        result: None,
        error: None,
        ended_at: None,
    };
    storage.insert(&claim.scope(), effect).await.unwrap();

    let shown = ground.json(["runs", "show", &id]).await;
    assert_eq!(
        fields(&shown),
        ["attempts", "checkouts", "effects", "inputs", "lease", "purgedEvents", "questions", "run", "steps"]
    );
    assert_eq!(fields(&shown["run"]), RUN);
    assert_eq!(fields(&shown["lease"]), ["attemptId", "expiresAt", "heartbeatAt", "overdue", "worker"]);
    assert_eq!((&shown["lease"]["worker"], &shown["lease"]["overdue"]), (&"a test".into(), &false.into()));
    assert_eq!(
        fields(&shown["attempts"][0]),
        ["endedAt", "error", "heartbeatAt", "id", "number", "outcome", "startedAt", "worker"]
    );
    assert_eq!(
        fields(&shown["steps"][0]),
        ["completedAt", "error", "key", "kind", "model", "number", "startedAt", "status", "usage"]
    );
    assert_eq!(
        fields(&shown["effects"][0]),
        ["endedAt", "error", "expected", "idempotencyKey", "kind", "result", "status", "writtenAt"]
    );
    assert_eq!(fields(&shown["inputs"][0]), ["deliveredAt", "id", "saidAt", "text"]);
    assert_eq!((&shown["run"]["status"], &shown["purgedEvents"]), (&"running".into(), &0.into()));

    let text = ground.run(["runs", "show", &id]).await.stdout;
    for part in [
        "run           1 of acme in WEB\n",
        "status        running\n",
        "lease         a test, last sign of life ",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    for section in ["Attempts", "Steps", "Effects", "Said to it"] {
        assert!(text.lines().any(|line| line == section), "{section}");
    }
    succeed(&storage, &claim).await;
    let shown = ground.json(["runs", "show", &id]).await;
    assert_eq!((&shown["lease"], &shown["run"]["summary"]), (&serde_json::Value::Null, &"All done.".into()));
}
