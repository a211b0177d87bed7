use lime_core::governance::{ActionScope, Decision};
use lime_core::ports::{Approvals, Claim, Question};
use lime_storage_postgres::PgStorage;
use serde_json::json;

use crate::ground::{Ground, LONG, claim, fields, submit, tenant};

async fn ask(storage: &PgStorage, claim: &Claim, action: &str) -> String {
    let question = Question {
        scope: ActionScope::tool(),
        action: action.into(),
        call_id: Some("call-1".into()),
        intent_summary: format!("May it use {action}?"),
        payload: json!({ "command": "git push origin \u{1b}[2J main" }),
        approvers: Vec::new(),
        expires_after_s: 3_600,
        on_expiry: Decision::Deny,
    };
    storage.ask(&claim.lease, question).await.unwrap().id.to_string()
}

#[tokio::test]
async fn questions_are_listed_and_answered() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let claim = claim(&storage, LONG).await;
    let (yes, no) = (ask(&storage, &claim, "Bash").await, ask(&storage, &claim, "Write").await);

    let list = ground.json(["approvals", "list"]).await;
    assert_eq!(fields(&list), ["approvals"]);
    let first = &list["approvals"][0];
    assert_eq!(
        fields(first),
        [
            "action",
            "approvers",
            "askedAt",
            "decidedAt",
            "decidedBy",
            "expiresAt",
            "id",
            "note",
            "onExpiry",
            "payload",
            "payloadHash",
            "runId",
            "scope",
            "status",
            "summary",
            "tenant"
        ]
    );
    assert_eq!((&first["status"], &first["runId"]), (&"pending".into(), &run.as_str().into()));
    assert_eq!(ground.json(["runs", "show", &run]).await["questions"].as_array().unwrap().len(), 2);

    let refused = ground.run(["approvals", "approve", &yes]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("git push origin") && !refused.stderr.contains('\u{1b}'));
    let approved = ground.json(["approvals", "approve", &yes, "--yes", "--note", "go on"]).await;
    assert_eq!((&approved["status"], &approved["note"]), (&"approved".into(), &"go on".into()));
    let denied = ground.run(["approvals", "deny", &no, "--yes"]).await;
    assert_eq!(denied.stdout, format!("The question {no} of run {run} is denied.\n"));
    let again = ground.run(["approvals", "approve", &no, "--yes"]).await;
    assert_eq!(again.code, 1, "it is answered already");

    assert_eq!(
        ground.json(["approvals", "list", "--all-tenants"]).await["approvals"].as_array().unwrap().len(),
        0
    );
    let text = ground.run(["approvals", "list", "--run", &run]).await.stdout;
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("ID  TENANT  RUN  STATUS"), "{text}");
    assert!(lines[1].contains("approved") && lines[2].contains("denied"), "{text}");
}
