//! runs cancel, pause, resume, requeue, say.

use std::process::Stdio;

use lime_core::ports::{Queue, Settlement};
use lime_core::runs::{Failure, FailureKind, Outcome};
use tokio::io::AsyncWriteExt;

use crate::ground::{Ground, LONG, Seen, claim, in_time, submit, tenant};

#[tokio::test]
async fn a_run_is_cancelled_once_the_operator_means_it() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let waiting = submit(&storage, &scope, &project, "waits").await.id.to_string();

    let refused = ground.run(["runs", "cancel", &waiting]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--yes") && refused.stderr.contains("waits"));
    assert_eq!(ground.json(["runs", "show", &waiting]).await["run"]["status"], "queued");

    let done = ground.run(["runs", "cancel", &waiting, "--yes"]).await;
    assert_eq!((done.code, done.stdout.as_str()), (0, "The run 1 is cancelled.\n"));
    let again = ground.run(["runs", "cancel", &waiting]).await;
    assert_eq!(again.code, 0, "what has ended needs no confirmation");

    let worked = submit(&storage, &scope, &project, "is worked").await.id.to_string();
    let claim = claim(&storage, LONG).await;
    let told = ground.run(["runs", "cancel", &worked, "--yes"]).await;
    assert!(
        told.stdout.contains("still running") && told.stdout.contains("has been told"),
        "{}",
        told.stdout
    );
    assert!(storage.heartbeat(&claim.lease, LONG).await.unwrap().cancel);
    storage.settle(&claim.lease, Settlement::new(Outcome::Succeeded { summary: None })).await.unwrap();
    let ended = ground.run(["runs", "cancel", &worked, "--yes"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "The run 2 had ended: it is succeeded.\n"));
}

#[tokio::test]
async fn a_run_is_put_on_hold_and_let_go() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    assert_eq!(ground.json(["runs", "pause", &run]).await["status"], "paused");
    assert_eq!(ground.json(["queue", "depth"]).await["paused"], 1);
    assert_eq!(ground.json(["runs", "resume", &run]).await["status"], "queued");
    let claim = claim(&storage, LONG).await;
    let told = ground.run(["runs", "pause", &run]).await;
    assert!(told.stdout.contains("hands it back"), "{}", told.stdout);
    assert!(storage.heartbeat(&claim.lease, LONG).await.unwrap().pause);
}

#[tokio::test]
async fn a_run_that_failed_is_requeued() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let claim = claim(&storage, LONG).await;
    let refused = ground.run(["runs", "requeue", &run]).await;
    assert_eq!(refused.code, 1, "it has not failed");
    let failure = Failure::new(FailureKind::BadCredentials, "The key was refused.");
    storage.settle(&claim.lease, Settlement::new(Outcome::Failed(failure))).await.unwrap();
    let shown = ground.run(["runs", "show", &run]).await.stdout;
    assert!(shown.contains("bad_credentials: The key was refused."), "{shown}");
    assert_eq!(ground.json(["runs", "requeue", &run]).await["status"], "queued");
    assert_eq!(ground.run(["runs", "pause", &run]).await.code, 0);
}

#[tokio::test]
async fn something_is_said_to_a_run() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let said = ground.json(["runs", "say", &run, "faster"]).await;
    assert_eq!((&said["text"], &said["deliveredAt"]), (&"faster".into(), &serde_json::Value::Null));
    assert_eq!(ground.run(["runs", "say", &run, " "]).await.code, 2);

    let mut command = ground.command(["runs", "say", &run, "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"two\nlines\n").await.unwrap();
    assert!(in_time(child.wait()).await.unwrap().success());
    let inputs = ground.json(["runs", "show", &run]).await["inputs"].clone();
    assert_eq!(inputs[1]["text"], "two\nlines");

    Seen::of(ground.command(["runs", "cancel", &run, "--yes"])).await;
    assert_eq!(ground.run(["runs", "say", &run, "too late"]).await.code, 1);
}
