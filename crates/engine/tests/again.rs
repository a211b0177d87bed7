//! What a later attempt finds of the earlier ones, and goes on with.

mod support;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use lime_core::ports::{Clock, Queue, Request};
use lime_core::repos::{Worktree, WorktreeStatus};
use lime_core::runs::{
    AgentEvent, AttemptEnd, Failure, FailureKind, MessageRole, Outcome, RetryPolicy, RunStatus, StepStatus,
    ToolStatus, Usage,
};
use lime_core::{Error, ErrorKind, Micros};
use lime_engine::{KeepWorktree, WorkerConfig};
use tokio::sync::Notify;

use support::agent::{says, session, tool};
use support::{Act, Hands, Play, Scene, keeping, said, stop, told, until};

const GO_ON: &str = "You were interrupted. Go on from where you stopped.";

fn soon() -> WorkerConfig {
    let retry = RetryPolicy { most: 2, base: Duration::from_millis(20), longest: Duration::from_millis(50) };
    WorkerConfig { retry, ..WorkerConfig::default() }
}

fn used(turns: u32, cents: i64) -> Usage {
    Usage { turns, cost: Some(Micros::from_cents(cents)), ..Usage::default() }
}

#[tokio::test]
async fn a_run_that_was_handed_back_goes_on_in_its_checkout_and_session() {
    let first = Play { usage: used(3, 5), ..Play::of([session("s-1"), Act::Write, Act::Hang]) };
    let second = Play { usage: used(2, 4), ..Play::of([session("s-1"), Act::Write]) };
    let scene = Scene::new([first, second]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker_with(keeping(KeepWorktree::Never));
    until("the session is known", async || scene.run(run).await.provider_session_id.is_some()).await;
    worker.stop(Duration::ZERO).await.unwrap();
    assert_eq!(scene.ground.kept().len(), 1, "a run that goes on keeps its checkout");

    let (run, log) = scene.work_with(run, keeping(KeepWorktree::Never)).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!(scene.agent.resumed(), [None, Some("s-1".into())]);
    assert_eq!(scene.agent.prompts()[1], GO_ON);
    assert_eq!(scene.agent.specs()[0].workdir, scene.agent.specs()[1].workdir);
    assert_eq!((scene.ground.adopted(), scene.ground.pushes().len()), (1, 1));
    assert_eq!(run.usage, used(5, 9));
    assert!(told(&log).contains("Going on in the checkout"));
    let steps = scene.steps().await;
    assert!(steps.iter().all(|step| step.status == StepStatus::Completed), "{steps:?}");
    let rows = scene.all::<Worktree>().await;
    assert_eq!((rows.len(), rows[0].status), (1, WorktreeStatus::Removed));
}

#[tokio::test]
async fn an_agent_that_came_to_its_end_is_not_started_again() {
    let scene = Scene::new([Play { usage: used(1, 3), ..Play::of([session("s-1"), Act::Write]) }]).await;
    scene.ground.fail_push(Error::new(ErrorKind::Unavailable, "git.push", "the host is away"));
    let (run, log) = scene.work_with(scene.submit_one().await, soon()).await;
    assert_eq!((run.status, run.failure_count, run.attempt_count), (RunStatus::Succeeded, 1, 2));
    assert_eq!(run.output_summary.as_deref(), Some("I did it."));
    assert_eq!(scene.agent.starts(), 1);
    assert_eq!(scene.ground.pushes().len(), 1);
    assert_eq!(run.usage, used(1, 3));
    let told = told(&log);
    assert!(told.contains("the host is away") && told.contains("It is tried again in"), "{told}");
    assert!(scene.ground.kept().is_empty());
}

#[tokio::test]
async fn after_a_crash_the_work_is_done_anew_elsewhere() {
    let first = Play::of([session("s-1"), Act::Event(AgentEvent::Usage(used(2, 6))), Act::Write, Act::Hang]);
    let scene = Scene::new([first, Play { usage: used(1, 1), ..Play::work() }]).await;
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    until("it has used something", async || scene.steps().await.iter().any(|step| step.usage.is_some()))
        .await;
    doomed.abort();
    until("the agent is gone", async || scene.agent.alive() == 0).await;
    scene.hands.forward(Duration::from_secs(60));

    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.crash_count, run.attempt_count), (RunStatus::Succeeded, 1, 2));
    assert_eq!(scene.agent.resumed(), [None, None]);
    assert_eq!(scene.agent.prompts()[1], "Add a flag\n\nand test it");
    assert_eq!(scene.ground.adopted(), 0);
    assert_ne!(scene.agent.specs()[0].workdir, scene.agent.specs()[1].workdir);
    assert_eq!(run.usage, used(3, 7), "what the lost attempt had written down counts");
    assert_eq!(scene.ends().await, [Some(AttemptEnd::Lost), Some(AttemptEnd::Succeeded)]);
}

#[tokio::test]
async fn the_checkout_of_a_lost_attempt_is_never_taken_over() {
    let hangs = Play::of([session("s-1"), Act::Write, Act::Hang]);
    let scene = Scene::new([hangs.clone(), hangs, Play::work()]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the session is known", async || scene.run(run).await.provider_session_id.is_some()).await;
    worker.stop(Duration::ZERO).await.unwrap();
    // The second takes it over, and is lost with it.
    let doomed = scene.doomed_worker();
    until("it goes on", async || scene.ground.adopted() == 1 && scene.agent.starts() == 2).await;
    doomed.abort();
    until("the agent is gone", async || scene.agent.alive() == 0).await;
    scene.hands.forward(Duration::from_secs(60));
    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 3));
    assert_eq!(scene.ground.adopted(), 1);
    assert_eq!(scene.agent.resumed()[2], None);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_in_the_same_session() {
    let failed = Play {
        outcome: Outcome::Failed(Failure::new(FailureKind::Overloaded, "Too much to do.")),
        ..Play::of([session("s-1"), Act::Write])
    };
    let scene = Scene::new([failed, Play::of([session("s-1"), says("on it")])]).await;
    let (run, log) = scene.work_with(scene.submit_one().await, soon()).await;
    assert_eq!((run.status, run.failure_count), (RunStatus::Succeeded, 1));
    assert_eq!(scene.agent.resumed(), [None, Some("s-1".into())]);
    assert_eq!(scene.agent.prompts()[1], GO_ON);
    assert!(told(&log).contains(
        "Too much to do.\nIt is tried again in 1 s, for time 1 of 2; what there is so far is kept."
    ));
    assert_eq!(scene.ends().await, [Some(AttemptEnd::Failed), Some(AttemptEnd::Succeeded)]);
}

#[tokio::test]
async fn a_failure_is_tried_again_so_often_and_no_more() {
    let scene = Scene::new([Play::failed(FailureKind::Network)]).await;
    let (run, log) = scene.work_with(scene.submit_one().await, soon()).await;
    assert_eq!((run.status, run.failure_count, run.attempt_count), (RunStatus::Failed, 2, 3));
    assert_eq!(run.failure.as_ref().unwrap().kind, FailureKind::Network);
    assert_eq!(told(&log).matches("It is tried again").count(), 2);
    assert_eq!(scene.ground.kept().len(), 1, "the work is kept to be looked at");

    let scene = Scene::new([Play::failed(FailureKind::BadCredentials)]).await;
    let (run, _) = scene.work_with(scene.submit_one().await, soon()).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Failed, 1));
}

#[tokio::test]
async fn it_is_not_tried_again_before_the_provider_says_so() {
    let at = Hands::default().now() + TimeDelta::minutes(20);
    let failure = Failure { retry_at: Some(at), ..Failure::new(FailureKind::RateLimited, "Slow down.") };
    let limited = Play { outcome: Outcome::Failed(failure), ..Play::work() };
    let scene = Scene::new([limited, Play::work()]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker_with(soon());
    until("it has failed once", async || scene.run(run).await.failure_count == 1).await;
    let queued = scene.until_status(run, RunStatus::Queued).await;
    assert_eq!(queued.run_at, Some(at));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.agent.starts(), 1);
    scene.hands.forward(Duration::from_secs(20 * 60));
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
    let log = scene.log(run).await;
    assert!(told(&log).contains("It is tried again in 1200 s"), "{}", told(&log));
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_anew_where_the_work_is() {
    let plays = [
        Play::of([session("s-1"), Act::Write, Act::Hang]),
        Play { outcome: Outcome::Failed(Failure::new(FailureKind::SessionGone, "Gone.")), ..Play::of([]) },
        Play::of([session("s-2"), Act::Write]),
    ];
    let scene = Scene::new(plays).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the session is known", async || scene.run(run).await.provider_session_id.is_some()).await;
    worker.stop(Duration::ZERO).await.unwrap();
    let (run, _) = scene.work(run).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!(scene.agent.resumed(), [None, Some("s-1".into()), None]);
    let prompt = &scene.agent.prompts()[2];
    assert!(prompt.starts_with("Add a flag") && prompt.contains("An earlier attempt"), "{prompt}");
    assert_eq!(run.provider_session_id.as_deref(), Some("s-2"));
}

#[tokio::test]
async fn a_run_that_failed_for_good_is_worked_anew_when_it_is_requeued() {
    let scene = Scene::new([Play::failed(FailureKind::Refused), Play::work()]).await;
    let run = scene.submit_one().await;
    let (failed, _) = scene.work(run).await;
    assert_eq!((failed.status, scene.ground.kept().len()), (RunStatus::Failed, 1));
    scene.factory.requeue(&scene.scope, run).await.unwrap();
    let worker = scene.worker();
    let done = scene.until_status(run, RunStatus::Succeeded).await;
    stop(worker).await;
    assert_eq!((done.attempt_count, done.failure.clone()), (2, None));
    assert_eq!(scene.ground.adopted(), 0);
    assert_eq!(scene.agent.prompts()[1], "Add a flag\n\nand test it");
}

#[tokio::test]
async fn calls_of_a_second_attempt_are_not_those_of_the_first() {
    let acts = [tool("c1", ToolStatus::Started, None), tool("c1", ToolStatus::Completed, Some("x"))];
    let gate = Arc::new(Notify::new());
    let first = Play::of(acts.clone().into_iter().chain([Act::Gate(gate)]));
    let scene = Scene::new([first, Play::of(acts)]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("it works", async || scene.agent.alive() == 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    worker.stop(Duration::ZERO).await.unwrap();
    let (run, log) = scene.work(run).await;
    let calls = scene.all::<lime_core::runs::ToolCall>().await;
    let ids: Vec<_> = calls.iter().map(|call| call.call_id.as_str()).collect();
    assert_eq!(ids, ["c1", "2:c1"]);
    assert_eq!(run.tool_calls[0].count, 2);
    assert!(said(&log, MessageRole::System).iter().any(|text| text.contains("(attempt 2)")));
    let again = scene.storage.request(&scene.scope, run.id, Request::Cancel).await.unwrap();
    assert_eq!(again.status, RunStatus::Succeeded);
}
