use std::time::Duration;

use lime_core::ports::{Claimant, EventLog, Queue, WorkerName};
use lime_core::runs::{AgentEvent, AgentMode, AgentRun, ProviderId, RunStatus};
use lime_core::{Id, Lookup, Scope};
use lime_storage_postgres::PgStorage;

use crate::ground::{Ground, in_time, submit, tenant};

/// Loses workers with a run, the only one that waits, until it is a dead letter.
async fn lose_all(storage: &PgStorage, scope: &Scope, run: Id<AgentRun>) {
    let claimant = Claimant {
        worker: WorkerName::parse("a test").unwrap(),
        providers: vec![ProviderId::from_static("replay")],
    };
    in_time(async {
        while Lookup::get(storage, scope, run).await.unwrap().status != RunStatus::Failed {
            for claim in storage.claim(&claimant, 1, Duration::from_millis(300)).await.unwrap() {
                // One that has said nothing may only have waited for its turn; if this comes too late, so it is here.
                let said = AgentEvent::Log { text: "at work".into() };
                let _ = storage.append(&claim.lease, vec![said].into()).await;
            }
            tokio::time::sleep(Duration::from_millis(310)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_listed_and_requeued() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let mut dead = Vec::new();
    for prompt in ["kills", "kills too"] {
        let run = submit(&storage, &scope, &project, prompt).await.id;
        lose_all(&storage, &scope, run).await;
        dead.push(run.to_string());
    }
    let alive = submit(&storage, &scope, &project, "alive").await.id.to_string();

    let list = ground.json(["dead-letters", "list", "--all-tenants"]).await;
    let runs = list["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    assert_eq!((&runs[0]["id"], &runs[0]["crashes"]), (&dead[1].as_str().into(), &3.into()));
    assert_eq!(runs[0]["failure"]["kind"], "worker_lost");
    assert!(ground.run(["dead-letters", "list"]).await.stdout.contains("kills too"));

    assert_eq!(ground.run(["dead-letters", "requeue", &alive]).await.code, 1);
    let one = ground.json(["dead-letters", "requeue", &dead[0]]).await;
    assert_eq!(one["requeued"][0], dead[0].as_str());
    assert_eq!(ground.json(["runs", "show", &dead[0]]).await["run"]["crashes"], 0, "it is forgiven");

    let refused = ground.run(["dead-letters", "requeue", "--all"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("1 dead letter") && refused.stderr.contains("--yes"));
    let all = ground.json(["dead-letters", "requeue", "--all", "--yes"]).await;
    assert_eq!(all["requeued"].as_array().unwrap().len(), 1);
    let none = ground.run(["dead-letters", "requeue", "--all"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (0, "Requeued 0 runs.\n"));
}

#[tokio::test]
async fn one_that_cannot_be_requeued_holds_no_other_back() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let keyed = || AgentRun {
        unique_key: Some("nightly".into()),
        ..AgentRun::new(project.id, ProviderId::from_static("replay"), AgentMode::Implement, "once at a time")
    };
    let blocked = storage.submit(&scope, keyed()).await.unwrap().id;
    lose_all(&storage, &scope, blocked).await;
    let free = submit(&storage, &scope, &project, "free").await.id;
    lose_all(&storage, &scope, free).await;
    storage.submit(&scope, keyed()).await.unwrap();

    let seen = ground.run(["dead-letters", "requeue", "--all", "--yes", "--json"]).await;
    assert_eq!(seen.code, 1);
    let answer = seen.json();
    assert_eq!(answer["requeued"].as_array().unwrap(), &[free.to_string()]);
    assert_eq!(answer["refused"][0]["id"], blocked.to_string());
    assert!(seen.stderr.contains("unique_key"), "{}", seen.stderr);
}
