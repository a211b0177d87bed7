//! What is written down of a run, and how little it takes.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lime_core::Micros;
use lime_core::ports::EventLog;
use lime_core::runs::{
    AgentEvent, FailureKind, MessageRole, RunStatus, StepStatus, ToolCall, ToolCallStatus, ToolStatus, Usage,
};

use support::agent::{says, session, tool};
use support::watched::Fault;
use support::{Act, Play, Scene, said};

#[tokio::test]
async fn what_was_said_is_in_order_however_much_it_is() {
    let acts = (0..1_000).map(|n| says(&format!("message {n}")));
    let scene = Scene::new([Play::of(acts)]).await;
    let (_, log) = scene.work(scene.submit_one().await).await;
    let expected: Vec<_> = (0..1_000).map(|n| format!("message {n}")).collect();
    assert_eq!(said(&log, MessageRole::Assistant), expected);
}

#[tokio::test]
async fn a_run_of_ten_events_takes_few_calls() {
    let acts = [session("s-1")].into_iter().chain((0..3).flat_map(|n| {
        let id = format!("c{n}");
        [tool(&id, ToolStatus::Started, None), tool(&id, ToolStatus::Completed, Some("x")), says("next")]
    }));
    let scene = Scene::new([Play::of(acts)]).await;
    let run = scene.submit_one().await;
    scene.watched.calls();
    let (run, log) = scene.work(run).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert!(log.len() >= 14, "{log:?}");
    let mut calls = scene.watched.calls();
    calls.retain(|call| call != "get run" && call != "read"); // the watcher's
    let settled = calls.iter().position(|call| call == "settle").unwrap();
    calls.truncate(settled + 1);
    assert_eq!(
        calls,
        [
            "take",
            "start",
            "list repository",
            "insert worktree",
            "list approval policy",
            "budgets_in_force",
            "layers",
            "list repository configuration",
            "insert repository configuration",
            "list project",
            "list list of default tools",
            // What the first phase has to say, before the agent says something; then all the rest.
            "append",
            "heartbeat",
            "update worktree",
            "append",
            "settle",
        ],
    );
    let steps = scene.steps().await;
    assert_eq!(steps.len(), 3);
    assert!(steps.iter().all(|step| step.status == StepStatus::Completed));
    let calls = scene.all::<ToolCall>().await;
    assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [ToolCallStatus::Complete; 3]);
}

#[tokio::test]
async fn runs_that_are_claimed_together_read_together() {
    let scene = Scene::new([Play::of([])]).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(scene.submit_one().await);
    }
    scene.watched.calls();
    let worker = scene
        .worker_with(lime_engine::WorkerConfig { concurrency: 5, ..lime_engine::WorkerConfig::default() });
    for run in runs {
        assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    }
    support::stop(worker).await;
    let calls = scene.watched.calls();
    for once in [
        "list repository",
        "list approval policy",
        "budgets_in_force",
        "layers",
        "insert repository configuration",
        "list project",
        "list list of default tools",
        "start",
    ] {
        assert_eq!(calls.iter().filter(|call| *call == once).count(), 1, "{once} in {calls:?}");
    }
}

#[tokio::test]
async fn a_call_that_turns_out_to_be_denied_is_corrected_and_counted_once() {
    // Once before it was written, and once after.
    for pause in [false, true] {
        let gate = std::sync::Arc::new(tokio::sync::Notify::new());
        let mut acts =
            vec![tool("c1", ToolStatus::Started, None), tool("c1", ToolStatus::Failed, Some("no"))];
        if pause {
            acts.push(Act::Gate(gate.clone()));
        }
        acts.push(tool("c1", ToolStatus::Denied, Some("not allowed")));
        let scene = Scene::new([Play::of(acts)]).await;
        let run = scene.submit_one().await;
        let worker = scene.worker();
        if pause {
            support::until("the call is written", async || {
                scene.all::<ToolCall>().await.iter().any(|call| call.status == ToolCallStatus::Error)
            })
            .await;
            gate.notify_one();
        }
        let run = scene.end(run).await;
        support::stop(worker).await;
        assert_eq!(run.tool_calls[0].count, 1);
        let calls = scene.all::<ToolCall>().await;
        assert_eq!(calls.len(), 1);
        assert_eq!(
            (calls[0].status, calls[0].error.as_deref()),
            (ToolCallStatus::Denied, Some("not allowed"))
        );
        assert_eq!(
            (calls[0].duration_ms, calls[0].input.clone()),
            (Some(12), serde_json::json!({ "command": "ls" }))
        );
    }
}

#[tokio::test]
async fn events_are_written_once_where_nobody_knows_whether_they_were() {
    for fault in [Fault::Before, Fault::After] {
        let scene = Scene::new([Play::of([session("s-1"), says("one"), says("two"), Act::Write])]).await;
        let run = scene.submit_one().await;
        for _ in 0..3 {
            scene.watched.fail("append", fault);
        }
        let (run, log) = scene.work(run).await;
        assert_eq!(run.status, RunStatus::Succeeded);
        assert_eq!(said(&log, MessageRole::Assistant), ["one", "two"]);
        assert!(log.iter().zip(1..).all(|(event, n)| event.seq == n));
        let hello: Vec<_> =
            said(&log, MessageRole::System).into_iter().filter(|text| text.contains("starts to")).collect();
        assert_eq!(hello.len(), 1);
    }
}

#[tokio::test]
async fn a_database_that_is_away_for_a_moment_costs_the_run_nothing() {
    let calls = [
        "take",
        "start",
        "list repository",
        "insert worktree",
        "list approval policy",
        "layers",
        "list repository configuration",
        "list project",
        "list list of default tools",
        "append",
        "insert code diff",
        "heartbeat",
        "insert effect",
        "update effect",
        "update worktree",
        "settle",
    ];
    let scene = Scene::new([Play::work()]).await;
    for call in calls {
        let run = scene.submit_one().await;
        scene.watched.fail(call, Fault::Before);
        let (run, _) = scene.work(run).await;
        assert_eq!(
            (run.status, run.attempt_count, run.failure_count),
            (RunStatus::Succeeded, 1, 0),
            "{call}"
        );
    }
    assert_eq!(scene.ground.pushes().len(), calls.len());
    // Some of them are done though nobody is told.
    for call in ["start", "append", "insert code diff", "heartbeat", "insert effect", "update effect"] {
        let run = scene.submit_one().await;
        scene.watched.fail(call, Fault::After);
        let (run, _) = scene.work(run).await;
        assert_eq!((run.status, run.crash_count, run.failure_count), (RunStatus::Succeeded, 0, 0), "{call}");
    }
    assert_eq!(scene.ground.pushes().len(), calls.len() + 6);
}

/// Of one connection, as with the embedded database, what the work has is what the write waits for.
#[tokio::test]
async fn what_is_written_meanwhile_does_not_keep_the_work_from_going_on() {
    let scene = Scene::new([Play::work()]).await;
    let connection = Arc::new(tokio::sync::Mutex::new(()));
    let (of_work, of_write) = (connection.clone(), connection);
    scene.watched.before("list repository", move || {
        let connection = of_work.clone();
        Box::pin(async move {
            let _held = connection.lock().await;
            // Longer than events wait for others.
            tokio::time::sleep(Duration::from_millis(200)).await;
        })
    });
    scene.watched.before("append", move || {
        let connection = of_write.clone();
        Box::pin(async move { drop(connection.lock().await) })
    });
    let (run, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn what_is_used_after_the_last_turn_is_counted_with_it() {
    let used = |turns, cents| Usage { turns, cost: Some(Micros::from_cents(cents)), ..Usage::default() };
    let usage = used(1, 7);
    let acts = [Act::Event(AgentEvent::Usage(used(1, 5)))];
    let scene = Scene::new([Play { usage, ..Play::of(acts) }]).await;
    let (run, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.usage, usage);
    let steps = scene.steps().await;
    let turns: Vec<_> = steps.iter().filter(|step| step.step_key.starts_with("turn:")).collect();
    assert_eq!(turns.len(), 1);
    assert_eq!(turns[0].usage.unwrap().cost, Some(Micros::from_cents(7)));
}

#[tokio::test]
async fn a_panic_is_the_runs_failure_and_not_the_workers_end() {
    let scene = Scene::new([Play::of([Act::Panic]), Play::work()]).await;
    let worker = scene.worker();
    let run = scene.submit_one().await;
    assert_eq!(scene.end(run).await.failure.as_ref().unwrap().kind, FailureKind::Internal);
    let log = scene.log(run).await;
    assert!(!format!("{log:?}").contains("was told to panic"));
    let kept = scene.storage.read(&scene.scope, run, 0, 100).await.unwrap();
    assert!(format!("{kept:?}").contains("was told to panic"));
    let next = scene.submit_one().await;
    assert_eq!(scene.end(next).await.status, RunStatus::Succeeded);
    support::stop(worker).await;
}
