use std::time::{Duration, Instant};

use assembly_lime::runs::{AttemptEnd, RunAttempt, RunStatus};
use assembly_lime::{LookupExt, Query};
use rustix::process::Signal;

use crate::ground::{Ground, Process, Way, git, processes_about};

#[tokio::test]
async fn what_runs_may_end_and_nothing_new_begins() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut worker = Process::start(ground.command("w")).await;
    let run = scene.submit("slow").await;
    scene.worked(run).await;
    worker.signal(Signal::TERM);
    worker.logged("stopping: nothing new is taken").await;
    let late = scene.submit("Write the notes").await;
    let (status, said) = worker.get("/readyz").await;
    assert_eq!((status, said.as_str()), (503, "not ready: it is stopping\n"));
    assert_eq!(worker.get("/healthz").await.0, 200, "it lives until its end");

    let ended = scene.end(run).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    let branch = ended.branch.clone().unwrap();
    assert_eq!(git(&scene.repository, &["show", &format!("{branch}:SLOW.md")]).await, "hello\n");
    assert_eq!(worker.end().await, Some(0));
    assert_eq!(scene.run(late).await.attempt_count, 0, "another worker's to take");
    assert_eq!(processes_about(ground.place.path()), [""; 0]);
}

#[tokio::test]
async fn after_the_grace_runs_are_handed_back() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut command = ground.command("w");
    command.env("LIME_GRACE_SECS", "1");
    let mut worker = Process::start(command).await;
    let run = scene.submit("hanging").await;
    scene.worked(run).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));
    handed_back(&ground, &scene, run).await;
}

#[tokio::test]
async fn a_second_signal_hands_back_at_once() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut command = ground.command("w");
    command.env("LIME_GRACE_SECS", "3600");
    let mut worker = Process::start(command).await;
    let run = scene.submit("hanging").await;
    scene.worked(run).await;
    worker.signal(Signal::TERM);
    worker.logged("stopping: nothing new is taken").await;
    let since = Instant::now();
    worker.signal(Signal::INT);
    assert_eq!(worker.end().await, Some(0));
    assert!(since.elapsed() < Duration::from_secs(60), "not after the grace");
    handed_back(&ground, &scene, run).await;
}

#[tokio::test]
async fn without_its_database_it_ends_all_the_same() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let way = Way::to(&ground).await;
    let mut command = ground.command("w");
    command.env("DATABASE_URL", &way.url).env("LIME_GRACE_SECS", "0");
    let mut worker = Process::start(command).await;
    let run = scene.submit("hanging").await;
    scene.worked(run).await;
    way.cut();
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(1));
    assert_eq!(
        scene.run(run).await.status,
        RunStatus::Running,
        "another worker's, once the lease has run out"
    );
    assert_eq!(processes_about(ground.place.path()), [""; 0]);
}

/// The run waits for another worker, and nothing of it was burnt.
async fn handed_back(
    ground: &Ground,
    scene: &crate::ground::Scene,
    run: assembly_lime::Id<assembly_lime::runs::AgentRun>,
) {
    let stored = scene.run(run).await;
    assert_eq!((stored.status, stored.crash_count, stored.failure_count), (RunStatus::Queued, 0, 0));
    let attempts = Query::all().filter(RunAttempt::RUN_ID.eq(run));
    let attempts = scene.factory.storage().all(&scene.scope, attempts).await.unwrap();
    assert_eq!(attempts[0].outcome, Some(AttemptEnd::Released));
    assert_eq!(scene.factory.storage().depth().await.unwrap().ready, 1);
    assert_eq!(processes_about(ground.place.path()), [""; 0], "no child is left");
}
