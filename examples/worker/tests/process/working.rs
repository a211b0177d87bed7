use std::time::Duration;

use assembly_lime::runs::{AttemptEnd, RunAttempt, RunStatus};
use assembly_lime::{LookupExt, Query};
use rustix::process::Signal;

use crate::ground::{Ground, Process, git, in_time};
use crate::telling::value;

#[tokio::test]
async fn a_run_is_worked_from_submission_to_commit() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut worker = Process::start(ground.command("w")).await;
    let run = scene.submit("Write the notes").await;
    let ended = scene.end(run).await;
    assert_eq!(ended.status, RunStatus::Succeeded, "{:?}", ended.failure);
    let branch = ended.branch.clone().unwrap();
    assert_eq!(git(&scene.repository, &["show", &format!("{branch}:NOTES.md")]).await, "hello\n");
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));
}

#[tokio::test]
async fn a_worker_may_migrate_an_empty_database() {
    let Some(ground) = Ground::empty().await else { return };
    let mut command = ground.command("w");
    command.env("LIME_MIGRATE", "1");
    let mut worker = Process::start(command).await;
    worker.signal(Signal::INT);
    assert_eq!(worker.end().await, Some(0));
}

#[tokio::test]
async fn a_run_that_lost_its_worker_is_taken_up_by_another() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut command = ground.command("first");
    command.env("LIME_LEASE_SECS", "3");
    let mut first = Process::start(command).await;
    let run = scene.submit("hanging").await;
    scene.worked(run).await;
    first.signal(Signal::KILL);
    assert_eq!(first.end().await, None);

    let mut command = ground.command("second");
    command.env("LIME_LEASE_SECS", "3");
    let mut second = Process::start(command).await;
    in_time(async {
        while scene.run(run).await.attempt_count < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    scene.worked(run).await;
    in_time(async {
        // Counted beside the run, which does not wait for it.
        while value(&second.get("/metrics").await.1, "lime_crashes_rescued_total") != Some(1.0) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let (_, metrics) = second.get("/metrics").await;
    assert_eq!(value(&metrics, "lime_active_runs"), Some(1.0));

    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    let attempts = Query::all().filter(RunAttempt::RUN_ID.eq(run));
    let attempts = scene.factory.storage().all(&scene.scope, attempts).await.unwrap();
    let ends: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(ends, [Some(AttemptEnd::Lost), Some(AttemptEnd::Cancelled)]);
    second.signal(Signal::TERM);
    assert_eq!(second.end().await, Some(0));
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_fleet_works_over_redis() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let url = std::env::var("LIME_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let address = url.trim_start_matches("redis://").rsplit('@').next().unwrap().split('/').next().unwrap();
    if tokio::net::TcpStream::connect(address).await.is_err() {
        lime_conformance::skip("no Redis answers; set LIME_TEST_REDIS_URL to one");
        return;
    }
    let prefix = format!("lime-worker-test-{}", std::process::id());
    let mut workers = Vec::new();
    for name in ["one", "two"] {
        let mut command = ground.command(name);
        command.env("REDIS_URL", &url).env("LIME_REDIS_PREFIX", &prefix);
        workers.push(Process::start(command).await);
    }
    for _ in 0..4 {
        let run = scene.submit("Write the notes").await;
        assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    }
    for worker in &mut workers {
        worker.signal(Signal::TERM);
        assert_eq!(worker.end().await, Some(0));
    }
    assert_eq!(scene.factory.storage().depth().await.unwrap().leased, 0);
}
