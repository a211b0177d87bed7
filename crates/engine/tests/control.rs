//! What people do to runs.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lime_core::ErrorKind;
use lime_core::ports::EventLog;
use lime_core::repos::Worktree;
use lime_core::runs::{
    AgentRun, Constraints, Failure, FailureKind, MessageRole, Outcome, RunInput, RunStatus, StopReason,
    ToolCall, ToolCallStatus, ToolStatus, Usage,
};
use lime_engine::WorkerConfig;
use tokio::sync::Notify;

use support::agent::{says, session, tool};
use support::{Act, Play, Scene, said, stop, told, until};

#[tokio::test]
async fn cancelling_stops_the_agent_and_delivers_nothing() {
    let acts = [Act::Write, tool("c1", ToolStatus::Started, None), Act::Hang];
    let scene = Scene::new([Play::of(acts)]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the call is written", async || !scene.all::<ToolCall>().await.is_empty()).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    let ended = scene.end(run).await;
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
    assert_eq!(scene.all::<ToolCall>().await[0].status, ToolCallStatus::Error, "an open call was left open");
    stop(worker).await;
    assert!(scene.ground.pushes().is_empty());
    assert_eq!(scene.agent.alive(), 0);
}

#[tokio::test]
async fn what_nobody_tells_of_comes_with_the_heartbeat() {
    let scene = Scene::new([Play::of([Act::Hang])]).await;
    let run = scene.submit_one().await;
    let heartbeat = Duration::from_millis(30);
    let worker = scene.worker_with(WorkerConfig { heartbeat, ..WorkerConfig::default() });
    until("the agent is there", async || scene.agent.alive() == 1).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    stop(worker).await;
}

#[tokio::test]
async fn a_run_is_paused_and_goes_on_where_it_was() {
    let plays =
        [Play::of([session("s-1"), Act::Write, Act::Hang]), Play::of([session("s-1"), says("Where was I?")])];
    let scene = Scene::new(plays).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the session is known", async || scene.run(run).await.provider_session_id.is_some()).await;
    scene.factory.pause(&scene.scope, run).await.unwrap();
    let paused = scene.until_status(run, RunStatus::Paused).await;
    assert_eq!((paused.attempt_count, paused.crash_count, paused.failure_count), (1, 0, 0));
    assert_eq!((scene.agent.alive(), scene.ground.kept().len()), (0, 1));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(scene.agent.starts(), 1, "a paused run is worked");

    scene.factory.resume(&scene.scope, run).await.unwrap();
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!((ended.status, ended.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!((scene.ground.adopted(), scene.ground.pushes().len()), (1, 1));
    assert_eq!(scene.agent.resumed()[1].as_deref(), Some("s-1"));
    assert!(scene.agent.prompts()[1].contains("Go on"), "{:?}", scene.agent.prompts());
    assert!(told(&scene.log(run).await).contains("It is put on hold"));
    let error = scene.factory.pause(&scene.scope, run).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_run_that_waits_is_paused_and_cancelled_without_a_worker() {
    let scene = Scene::new([]).await;
    let run = scene.submit_one().await;
    assert_eq!(scene.factory.pause(&scene.scope, run).await.unwrap().status, RunStatus::Paused);
    assert_eq!(scene.factory.resume(&scene.scope, run).await.unwrap().status, RunStatus::Queued);
    assert_eq!(scene.factory.cancel(&scene.scope, run).await.unwrap().status, RunStatus::Cancelled);
    let error = scene.factory.requeue(&scene.scope, run).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_message_reaches_the_agent_at_work() {
    let scene = Scene::new([Play::of([says("I begin."), Act::Listen, Act::Listen, Act::Write])]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    scene.factory.say(&scene.scope, run, "Mind the tests.").await.unwrap();
    scene.factory.say(&scene.scope, run, "And the docs.").await.unwrap();
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    assert_eq!(scene.agent.heard(), ["Mind the tests.", "And the docs."]);
    assert_eq!(said(&scene.log(run).await, MessageRole::User), ["Mind the tests.", "And the docs."]);
    for input in scene.all::<RunInput>().await {
        assert!(input.delivered_at.is_some());
        assert_eq!(input.attempt_id, ended.attempt_id);
    }
    assert_eq!(scene.agent.starts(), 1);
    let late = scene.factory.say(&scene.scope, run, "One more thing.").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_the_agent_could_not_hear_is_the_prompt_of_one_more_session() {
    let gate = Arc::new(Notify::new());
    let deaf = Play {
        deaf: true,
        usage: Usage { turns: 2, ..Usage::default() },
        ..Play::of([session("s-1"), Act::Write, Act::Gate(gate.clone())])
    };
    let second =
        Play { usage: Usage { turns: 3, ..Usage::default() }, ..Play::of([session("s-1"), says("Right.")]) };
    let scene = Scene::new([deaf, second]).await;
    let constraints = Constraints { max_turns: Some(10), ..Constraints::default() };
    let run = scene.submit(AgentRun { constraints, ..scene.a_run() }).await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    scene.factory.say(&scene.scope, run, "Mind the tests.").await.unwrap();
    scene.factory.say(&scene.scope, run, "And the docs.").await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    gate.notify_one();
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!((ended.status, ended.attempt_count), (RunStatus::Succeeded, 1));
    assert_eq!(scene.agent.resumed(), [None, Some("s-1".into())]);
    assert_eq!(scene.agent.prompts()[1], "Mind the tests.\n\nAnd the docs.");
    let left = scene.agent.specs()[1].request.constraints.clone().unwrap();
    assert_eq!(left.max_turns, Some(8), "the limits are those of the run");
    assert_eq!(ended.usage.turns, 5);
    assert_eq!(said(&scene.log(run).await, MessageRole::User).len(), 2);
    assert_eq!(scene.ground.pushes().len(), 1);
}

#[tokio::test]
async fn a_message_that_comes_right_before_the_push_is_not_lost() {
    let plays = [Play::of([session("s-1"), Act::Write]), Play::of([says("Right."), Act::Write])];
    let scene = Scene::new(plays).await;
    let run = scene.submit_one().await;
    // It is said after the last look for messages at the agent's end.
    let (factory, scope) = (scene.factory.clone(), scene.scope.clone());
    let once = Arc::new(std::sync::atomic::AtomicBool::new(true));
    scene.watched.before("insert code diff", move || {
        let (factory, scope, once) = (factory.clone(), scope.clone(), once.clone());
        Box::pin(async move {
            if once.swap(false, std::sync::atomic::Ordering::Relaxed) {
                factory.say(&scope, run, "The docs too.").await.unwrap();
            }
        })
    });
    let (ended, _) = scene.work(run).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    assert_eq!(scene.agent.prompts()[1], "The docs too.");
    assert_eq!(scene.ground.pushes().len(), 1);
    assert!(scene.all::<RunInput>().await[0].delivered_at.is_some());
}

#[tokio::test]
async fn a_message_for_nothing_left_of_the_limits_fails_the_run_and_is_kept() {
    let gate = Arc::new(Notify::new());
    let deaf = Play {
        deaf: true,
        usage: Usage { turns: 2, ..Usage::default() },
        ..Play::of([session("s-1"), Act::Gate(gate.clone())])
    };
    let scene = Scene::new([deaf]).await;
    let constraints = Constraints { max_turns: Some(2), ..Constraints::default() };
    let run = scene.submit(AgentRun { constraints, ..scene.a_run() }).await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    scene.factory.say(&scene.scope, run, "More.").await.unwrap();
    gate.notify_one();
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Failed, Some(StopReason::MaxSteps)));
    assert_eq!(scene.agent.starts(), 1);
    assert_eq!(scene.all::<RunInput>().await[0].delivered_at, None);
}

#[tokio::test]
async fn messages_reach_the_agent_of_a_later_attempt() {
    // One said while the run waited, one while it was on hold.
    let plays = [
        Play::of([session("s-1"), Act::Write, Act::Listen, Act::Hang]),
        Play::of([says("Both."), Act::Write]),
    ];
    let scene = Scene::new(plays).await;
    let run = scene.submit_one().await;
    scene.factory.say(&scene.scope, run, "First.").await.unwrap();
    let worker = scene.worker();
    until("it is heard", async || scene.agent.heard().len() == 1).await;
    scene.factory.pause(&scene.scope, run).await.unwrap();
    scene.until_status(run, RunStatus::Paused).await;
    scene.factory.say(&scene.scope, run, "Second.").await.unwrap();
    scene.factory.resume(&scene.scope, run).await.unwrap();
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    let prompt = &scene.agent.prompts()[1];
    assert!(
        prompt.contains("Go on") && prompt.ends_with("Second.") && !prompt.contains("First."),
        "{prompt}"
    );
    assert_eq!(said(&scene.log(run).await, MessageRole::User), ["First.", "Second."]);
}

#[tokio::test]
async fn an_agent_that_begins_anew_after_a_crash_is_told_all_that_was_said() {
    let plays = [Play::of([Act::Listen, says("Heard."), Act::Hang]), Play::work()];
    let scene = Scene::new(plays).await;
    let run = scene.submit_one().await;
    let doomed = scene.doomed_worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    scene.factory.say(&scene.scope, run, "Mind the tests.").await.unwrap();
    until("it is marked", async || {
        scene.all::<RunInput>().await.iter().any(|input| input.delivered_at.is_some())
    })
    .await;
    doomed.abort();
    until("the agent is gone", async || scene.agent.alive() == 0).await;
    scene.hands.forward(Duration::from_secs(60));
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
    assert_eq!(scene.agent.prompts()[1], "Add a flag\n\nand test it\n\nMind the tests.");
}

#[tokio::test]
async fn a_run_is_followed_up_in_its_session_on_its_branch_where_it_was() {
    let scene = Scene::new([Play::of([session("s-1"), Act::Write])]).await;
    let constraints = Constraints { max_turns: Some(7), ..Constraints::default() };
    let parent = AgentRun { constraints, allowed_paths: Some(vec!["src".into()]), ..scene.a_run() };
    let (parent, _) = scene.work(scene.submit(parent).await).await;
    let next = scene.factory.follow_up(&scene.scope, parent.id, "Now the docs.").await.unwrap();
    assert_eq!((next.status, next.parent_run_id), (RunStatus::Queued, Some(parent.id)));
    assert_eq!(next.branch, parent.branch);
    assert_eq!(next.base_ref, parent.branch);
    assert_eq!((&next.constraints, &next.allowed_paths), (&parent.constraints, &parent.allowed_paths));
    assert_eq!((&next.model, next.mode), (&parent.model, parent.mode));
    let (next, _) = scene.work(next.id).await;
    assert_eq!(next.status, RunStatus::Succeeded, "{next:?}");
    let specs = scene.agent.specs();
    assert_eq!((specs[1].resume.as_deref(), &specs[1].workdir), (Some("s-1"), &specs[0].workdir));
    assert_eq!(specs[1].request.prompt, "Now the docs.");
    assert_eq!(scene.ground.pushes().len(), 2);
    assert!(scene.ground.kept().is_empty());
}

#[tokio::test]
async fn a_follow_up_of_a_run_that_was_stopped_takes_its_work_over() {
    let usage = Usage { turns: 3, ..Usage::default() };
    let limited = Play {
        outcome: Outcome::Limited(lime_core::runs::Limit::Turns),
        usage,
        ..Play::of([session("s-1"), Act::Write])
    };
    let scene = Scene::new([limited, Play::of([says("Done.")])]).await;
    let (parent, _) = scene.work(scene.submit_one().await).await;
    assert_eq!((parent.stop_reason, scene.ground.kept().len()), (Some(StopReason::MaxSteps), 1));
    let next = scene.factory.follow_up(&scene.scope, parent.id, "Go on.").await.unwrap();
    let (next, _) = scene.work(next.id).await;
    assert_eq!(next.status, RunStatus::Succeeded, "{next:?}");
    assert_eq!((scene.ground.adopted(), scene.ground.pushes().len()), (1, 1), "the work is pushed");
    assert_eq!(scene.agent.resumed()[1].as_deref(), Some("s-1"));
    let rows = scene.all::<Worktree>().await;
    assert_eq!((rows.len(), rows[0].agent_run_id), (1, Some(next.id)));
    // Another one finds nothing to take over, and no branch to lose.
    let third = scene.factory.follow_up(&scene.scope, parent.id, "Once more.").await.unwrap();
    assert_eq!(third.base_ref, parent.branch);
    assert_eq!(scene.work(third.id).await.0.status, RunStatus::Succeeded);
    assert_eq!(scene.ground.adopted(), 1);
}

#[tokio::test]
async fn a_follow_up_whose_session_is_gone_fails_and_says_what_to_do() {
    let gone = Play {
        outcome: Outcome::Failed(Failure::new(FailureKind::SessionGone, "No conversation found.")),
        ..Play::of([])
    };
    let scene = Scene::new([Play::of([session("s-1"), Act::Write]), gone]).await;
    let (parent, _) = scene.work(scene.submit_one().await).await;
    let next = scene.factory.follow_up(&scene.scope, parent.id, "Now the docs.").await.unwrap();
    let (next, _) = scene.work(next.id).await;
    let failure = next.failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::SessionGone);
    assert!(failure.message.contains("Start a new run"), "{}", failure.message);
    assert_eq!(scene.agent.starts(), 2, "it began anew, without what was said before");
    let kept = scene.storage.read(&scene.scope, next.id, 0, 100).await.unwrap();
    assert!(format!("{kept:?}").contains("No conversation found."));
}

#[tokio::test]
async fn a_run_that_cannot_be_followed_up_says_why() {
    let scene = Scene::new([Play::work()]).await;
    let run = scene.submit_one().await;
    let error = scene.factory.follow_up(&scene.scope, run, "More.").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("has not ended"), "{error}");
    scene.work(run).await;
    let error = scene.factory.follow_up(&scene.scope, run, "More.").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("submit a new run"), "{error}");
}

#[tokio::test]
async fn a_follow_up_goes_on_from_the_other_run_after_a_crash_too() {
    let plays = [
        Play::of([session("s-1"), Act::Write]),
        Play::of([session("s-2"), Act::Write, Act::Hang]),
        Play::of([Act::Write]),
    ];
    let scene = Scene::new(plays).await;
    let (parent, _) = scene.work(scene.submit_one().await).await;
    let next = scene.factory.follow_up(&scene.scope, parent.id, "Now the docs.").await.unwrap();
    let doomed = scene.doomed_worker();
    until("its session is known", async || {
        scene.run(next.id).await.provider_session_id.as_deref() == Some("s-2")
    })
    .await;
    doomed.abort();
    until("the agent is gone", async || scene.agent.alive() == 0).await;
    scene.hands.forward(Duration::from_secs(60));
    assert_eq!(scene.work(next.id).await.0.status, RunStatus::Succeeded);
    assert_eq!(scene.agent.resumed(), [None, Some("s-1".into()), Some("s-1".into())]);
    assert_eq!(scene.agent.prompts()[2], "Now the docs.");
}
