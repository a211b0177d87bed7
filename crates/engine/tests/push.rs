//! What is brought to the repository: once, and by nobody whose lease is lost.

mod support;

use std::time::Duration;

use lime_core::repos::CodeDiff;
use lime_core::runs::{AttemptEnd, Effect, EffectKind, EffectStatus, FailureKind, RunStatus, StepStatus};
use lime_core::{Error, ErrorKind};
use lime_engine::WorkerConfig;

use support::agent::session;
use support::watched::Fault;
use support::{Act, Play, Scene, told, until};

async fn effects(scene: &Scene) -> Vec<(EffectStatus, Option<String>)> {
    let all = scene.all::<Effect>().await;
    all.into_iter().map(|effect| (effect.status, effect.value.error)).collect()
}

#[tokio::test]
async fn a_push_is_written_down_before_it_is_made() {
    let scene = Scene::new([Play::work()]).await;
    let gate = scene.ground.stop_before_push();
    let run = scene.submit_one().await;
    let worker = scene.worker();
    gate.reached.notified().await;
    let effect = scene.all::<Effect>().await.remove(0);
    assert_eq!((effect.kind, effect.status, effect.run_id), (EffectKind::Push, EffectStatus::Pending, run));
    let commit = format!("{:0>40}", 1);
    let branch = format!("lime/run-{run}");
    assert_eq!(effect.idempotency_key, format!("push:{}:{branch}:{commit}", scene.repository.id));
    let expected = serde_json::json!({
        "repository": scene.repository.id, "branch": branch, "was": null, "commit": commit,
    });
    assert_eq!(effect.expected, expected);
    assert_eq!(scene.run(run).await.attempt_id, Some(effect.attempt_id));
    gate.open.notify_one();
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    support::stop(worker).await;
    assert_eq!(effects(&scene).await, [(EffectStatus::Done, None)]);
}

#[tokio::test]
async fn after_a_crash_between_push_and_settlement_the_push_is_found_and_nothing_is_done_again() {
    let scene = Scene::new([Play::of([session("s-1"), Act::Write])]).await;
    let gate = scene.ground.stop_after_push();
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    gate.reached.notified().await;
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    assert_eq!(effects(&scene).await, [(EffectStatus::Pending, None)]);
    scene.hands.forward(Duration::from_secs(60));

    let (run, log) = scene.work(run).await;
    assert_eq!((run.status, run.attempt_count, run.crash_count), (RunStatus::Succeeded, 2, 1));
    assert_eq!((scene.agent.starts(), scene.ground.pushes().len()), (1, 1));
    assert_eq!(run.output_summary.as_deref(), Some("I did it."));
    assert_eq!(effects(&scene).await, [(EffectStatus::Done, None)]);
    assert!(told(&log).contains("An earlier attempt has brought"), "{}", told(&log));
    let diff = scene.factory.diff(&scene.scope, run.id).await.unwrap().unwrap();
    assert_eq!(Some(diff.head_ref.clone()), scene.ground.branch(run.branch.as_deref().unwrap()));
    let steps = scene.steps().await;
    assert!(steps.iter().all(|step| step.status == StepStatus::Completed), "{steps:?}");
}

#[tokio::test]
async fn a_push_that_was_never_made_is_given_up_and_the_work_is_done_anew() {
    let scene = Scene::new([Play::work()]).await;
    let gate = scene.ground.stop_before_push();
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    gate.reached.notified().await;
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    scene.hands.forward(Duration::from_secs(60));
    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!((scene.agent.starts(), scene.ground.pushes().len()), (2, 1));
    let reason = "the attempt ended before it was made";
    assert_eq!(
        effects(&scene).await,
        [(EffectStatus::Abandoned, Some(reason.into())), (EffectStatus::Done, None)]
    );
    let diffs = scene.all::<CodeDiff>().await;
    assert_eq!(diffs.len(), 1, "that of the first attempt was never brought home");
    assert_eq!(Some(diffs[0].head_ref.clone()), scene.ground.branch(run.branch.as_deref().unwrap()));
}

#[tokio::test]
async fn what_was_never_brought_home_is_not_the_runs_diff() {
    let scene = Scene::new([Play::work(), Play::of([])]).await;
    let gate = scene.ground.stop_before_push();
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    gate.reached.notified().await;
    assert!(scene.factory.diff(&scene.scope, run).await.unwrap().is_some(), "it is there to be judged");
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    scene.hands.forward(Duration::from_secs(60));
    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.output_summary.as_deref()), (RunStatus::Succeeded, Some("No changes.")));
    assert_eq!(scene.factory.diff(&scene.scope, run.id).await.unwrap(), None);
}

#[tokio::test]
async fn something_else_in_the_place_of_a_push_is_seen_and_left() {
    let scene = Scene::new([Play::work()]).await;
    let gate = scene.ground.stop_before_push();
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    gate.reached.notified().await;
    doomed.abort();
    assert!(doomed.await.unwrap_err().is_cancelled());
    let branch = format!("lime/run-{run}");
    scene.ground.set_branch(&branch, &"d".repeat(40));
    scene.hands.forward(Duration::from_secs(60));
    let (run, _) = scene.work(run).await;
    assert_eq!(run.status, RunStatus::Succeeded, "{run:?}");
    let reason = format!("the branch {branch} is at {} by now", "d".repeat(40));
    assert_eq!(effects(&scene).await[0], (EffectStatus::Abandoned, Some(reason)));
}

#[tokio::test]
async fn a_stale_worker_pushes_nothing() {
    // Its lease runs out while it does what comes before the push.
    let scene = Scene::new([Play::work()]).await;
    let gate = std::sync::Arc::new(tokio::sync::Notify::new());
    let stale = Scene::new([Play::of([Act::Write, Act::Gate(gate.clone())])]).await;
    let run = stale.submit_one().await;
    let worker = stale.worker_with(WorkerConfig::default());
    until("the agent is there", async || stale.agent.alive() == 1).await;
    let claims = stale.take_after_lease().await;
    assert_eq!(claims[0].attempt_number, 2);
    gate.notify_one();
    support::stop(worker).await;
    assert!(stale.ground.pushes().is_empty());
    assert!(effects(&stale).await.is_empty(), "a stale worker wrote an effect");
    assert_eq!(stale.run(run).await.attempt_id, Some(claims[0].lease.attempt));

    // It is stopped right before the push, and another attempt pushes meanwhile.
    let gate = scene.ground.stop_before_push();
    let run = scene.submit_one().await;
    let stalled = scene.worker();
    gate.reached.notified().await;
    scene.hands.forward(Duration::from_secs(60));
    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 2));
    let pushed = scene.ground.pushes();
    gate.open.notify_one();
    support::stop(stalled).await;
    assert_eq!(scene.ground.pushes(), pushed);
    assert_eq!(scene.run(run.id).await, run);
    assert_eq!(scene.ends().await, [Some(AttemptEnd::Lost), Some(AttemptEnd::Succeeded)]);
}

#[tokio::test]
async fn a_worker_that_was_stopped_in_its_tracks_looks_at_its_clock_before_it_pushes() {
    let scene = Scene::new([Play::work()]).await;
    // As a stop signal does: the whole process stands still after the last proof of the lease.
    scene.watched.fail("insert effect", Fault::Stall(Duration::from_millis(400)));
    let (lease, heartbeat) = (Duration::from_millis(300), Duration::from_millis(100));
    let run = scene.submit_one().await;
    let worker =
        scene.worker_with(WorkerConfig { lease, heartbeat, concurrency: 1, ..WorkerConfig::default() });
    until("the lease is lost", async || scene.ends().await.contains(&Some(AttemptEnd::Lost))).await;
    let ended = scene.end(run).await;
    support::stop(worker).await;
    assert_eq!((ended.status, ended.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!(scene.ground.pushes().len(), 1, "the stale one pushed too");
    assert_eq!(
        effects(&scene).await.iter().map(|(status, _)| *status).collect::<Vec<_>>(),
        [EffectStatus::Abandoned, EffectStatus::Done]
    );
}

#[tokio::test]
async fn a_push_that_failed_though_it_arrived_is_done() {
    let scene = Scene::new([Play::work()]).await;
    let run = scene.submit_one().await;
    let branch = format!("lime/run-{run}");
    let gate = scene.ground.stop_before_push();
    scene.ground.fail_push(Error::new(ErrorKind::Unexpected, "git.push", "the line broke"));
    let worker = scene.worker();
    gate.reached.notified().await;
    scene.ground.set_branch(&branch, &format!("{:0>40}", 1));
    gate.open.notify_one();
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    support::stop(worker).await;
    assert_eq!(effects(&scene).await, [(EffectStatus::Done, None)]);
}

#[tokio::test]
async fn a_branch_that_moved_meanwhile_fails_the_run_and_keeps_the_work() {
    let scene = Scene::new([Play::work()]).await;
    let run = scene.submit_one().await;
    let gate = scene.ground.stop_before_push();
    let worker = scene.worker();
    gate.reached.notified().await;
    scene.ground.set_branch(&format!("lime/run-{run}"), &"d".repeat(40));
    gate.open.notify_one();
    let ended = scene.end(run).await;
    support::stop(worker).await;
    let failure = ended.failure.as_ref().unwrap();
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Workspace, "the branch has moved"));
    assert!(told(&scene.log(run).await).contains("is kept in"));
    assert_eq!(effects(&scene).await[0].0, EffectStatus::Abandoned);
    assert_eq!(scene.ground.kept().len(), 1);

    // Requeued once the way is free, it is worked anew.
    let there = scene.ground.branch(&format!("lime/run-{run}"));
    assert_eq!(there, Some("d".repeat(40)));
    scene.factory.requeue(&scene.scope, run).await.unwrap();
    let worker = scene.worker();
    scene.until_status(run, RunStatus::Succeeded).await;
    support::stop(worker).await;
    assert_eq!(scene.agent.starts(), 2);
}

#[tokio::test]
async fn a_diff_is_stored_once_however_often_the_push_is_tried() {
    let scene = Scene::new([Play::work()]).await;
    scene.ground.fail_push(Error::new(ErrorKind::Timeout, "git.push", "the host is slow"));
    let retry = lime_core::runs::RetryPolicy {
        base: Duration::from_millis(10),
        ..lime_core::runs::RetryPolicy::default()
    };
    let config = WorkerConfig { retry, ..WorkerConfig::default() };
    let (run, _) = scene.work_with(scene.submit_one().await, config).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!(scene.all::<CodeDiff>().await.len(), 1);
    assert_eq!(effects(&scene).await, [(EffectStatus::Done, None)]);
}
