//! The life of a run, from its submission to its settlement.

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::agents::{InstructionLayer, LayerScope};
use lime_core::planning::{Board, Ticket, Workflow};
use lime_core::ports::{
    Author, BranchState, Changes, CommitId, EventLog, Queue, RepoAccess, Settlement, Workspace,
    WorkspaceSpec, Workspaces,
};
use lime_core::repos::{Worktree, WorktreeStatus};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, Constraints, Failure, FailureKind, Lease, MessageRole, Outcome,
    RunAttempt, RunStatus, RunStep, StepStatus, StopReason, ToolCall, ToolCallStatus, ToolStatus, Usage,
};
use lime_core::{Error, ErrorKind, Lookup, LookupExt, Micros, Query, Store};
use lime_engine::{Factory, KeepWorktree, WorkerConfig};

use tokio::sync::Notify;

use support::{Act, Scene, Setting, bare_workspaces, changes, repos, workspaces};

fn says(text: &str) -> Act {
    Act::Event(AgentEvent::Message { role: MessageRole::Assistant, text: text.into() })
}

fn tool(status: ToolStatus, output: Option<&str>) -> Act {
    Act::Event(AgentEvent::Tool {
        call_id: "c1".into(),
        name: "Bash".into(),
        status,
        input: (status == ToolStatus::Started).then(|| serde_json::json!({ "command": "ls" })),
        output: output.map(Into::into),
        duration_ms: output.map(|_| 12),
    })
}

#[tokio::test]
async fn a_run_ends_with_a_commit_a_diff_a_cost_and_a_log() {
    let usage = Usage {
        turns: 2,
        input_tokens: 100,
        output_tokens: 10,
        cost: Some(Micros(12_345)),
        ..Usage::default()
    };
    let half = Usage { turns: 1, cost: Some(Micros(5_000)), ..Usage::default() };
    let acts = vec![
        Act::Event(AgentEvent::Session { session_id: "s-1".into(), model: Some("model-1".into()) }),
        Act::Event(AgentEvent::Delta { text: "I look.".into() }),
        says("I look."),
        tool(ToolStatus::Started, None),
        Act::Event(AgentEvent::Usage(half)),
        tool(ToolStatus::Completed, Some("a.rs")),
        Act::Event(AgentEvent::Usage(usage)),
    ];
    let scene = Scene::new(Setting { acts, usage, ..Setting::default() }).await;
    let (run, log) = scene.work(scene.submit(scene.a_run()).await).await;

    assert_eq!((run.status, run.stop_reason), (RunStatus::Succeeded, Some(StopReason::EndTurn)));
    assert_eq!(run.output_summary.as_deref(), Some("I did it."));
    assert_eq!(run.provider_session_id.as_deref(), Some("s-1"));
    assert_eq!(run.branch.as_deref(), Some(&*format!("lime/run-{}", run.id)));
    assert_eq!(run.usage, usage);
    assert_eq!(
        (run.tool_calls[0].tool.as_str(), run.tool_calls[0].count, run.tool_calls[0].total_duration_ms),
        ("Bash", 1, 12)
    );

    assert!(log.iter().zip(1..).all(|(event, n)| event.seq == n), "a gap in {log:?}");
    assert!(
        log.iter().any(|event| matches!(&event.event, AgentEvent::Message { role: MessageRole::System, .. }))
    );
    assert!(log.iter().any(|event| matches!(&event.event, AgentEvent::Diff { .. })));
    assert!(log.last().unwrap().event.is_final());

    let diff = scene.factory.diff(&scene.scope, run.id).await.unwrap().unwrap();
    assert_eq!(diff.unified_diff, changes(&["src/a.rs"]).unified_diff);
    assert_eq!((diff.stats.files_changed, diff.stats.insertions), (1, 2));
    assert_eq!(diff.head_ref, "c".repeat(40));

    let calls = scene.storage.all(&scene.scope, Query::<ToolCall>::all()).await.unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].status, calls[0].output.as_deref(), calls[0].turn_number),
        (ToolCallStatus::Complete, Some("a.rs"), 1)
    );
    let steps = scene.storage.all(&scene.scope, Query::<RunStep>::all()).await.unwrap();
    let keys: Vec<_> = steps.iter().map(|step| step.step_key.as_str()).collect();
    assert_eq!(keys, ["prepare", "agent", "turn:1", "turn:2", "deliver"]);
    assert!(steps.iter().all(|step| step.status == StepStatus::Completed));
    assert_eq!(steps[3].usage.unwrap().cost, Some(Micros(7_345)));
    let worktrees = scene.storage.all(&scene.scope, Query::<Worktree>::all()).await.unwrap();
    assert_eq!(worktrees[0].status, WorktreeStatus::Removed);
}

#[tokio::test]
async fn without_changes_there_is_a_summary_and_no_diff() {
    let scene = Scene::new(Setting { workspaces: workspaces(changes(&[])), ..Setting::default() }).await;
    let (run, log) = scene.work(scene.submit(scene.a_run()).await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert_eq!(run.output_summary.as_deref(), Some("No changes."));
    assert_eq!(scene.factory.diff(&scene.scope, run.id).await.unwrap(), None);
    assert!(log.iter().any(|event| event.event == AgentEvent::system("No changes.")));
}

#[tokio::test]
async fn a_failure_is_told_to_clients_without_its_stack() {
    let failure = Failure::new(FailureKind::BadCredentials, "The key was refused. Check it.");
    let mut none = bare_workspaces(changes(&[]));
    none.expect_commit().never();
    none.expect_publish().never();
    let setting =
        Setting { outcome: Outcome::Failed(failure.clone()), workspaces: none, ..Setting::default() };
    let scene = Scene::new(setting).await;
    let (run, log) = scene.work(scene.submit(scene.a_run()).await).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::Error)));
    assert_eq!(run.failure.as_ref(), Some(&failure));
    let told = AgentEvent::Error { message: failure.message, kind: Some(failure.kind), stack: None };
    assert_eq!(log[log.len() - 2].event, told);
    let kept = scene.storage.read(&scene.scope, run.id, 0, 100).await.unwrap();
    assert!(kept.iter().any(
        |event| matches!(&event.event, AgentEvent::Error { stack: Some(stack), .. } if stack.contains("boom"))
    ));
}

#[tokio::test]
async fn what_was_said_is_in_order_however_much_it_is() {
    let acts = (0..1_000).map(|n| says(&format!("message {n}"))).collect();
    let scene = Scene::new(Setting { acts, ..Setting::default() }).await;
    let (_, log) = scene.work(scene.submit(scene.a_run()).await).await;
    let said: Vec<_> = log
        .into_iter()
        .filter_map(|event| match event.event {
            AgentEvent::Message { role: MessageRole::Assistant, text } => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(said, (0..1_000).map(|n| format!("message {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_call_that_turns_out_to_be_denied_is_corrected_and_counted_once() {
    let acts = vec![
        tool(ToolStatus::Started, None),
        tool(ToolStatus::Failed, Some("no")),
        tool(ToolStatus::Denied, Some("not allowed")),
    ];
    let scene = Scene::new(Setting { acts, ..Setting::default() }).await;
    let (run, _) = scene.work(scene.submit(scene.a_run()).await).await;
    assert_eq!(run.tool_calls[0].count, 1);
    let calls = scene.storage.all(&scene.scope, Query::<ToolCall>::all()).await.unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].status, calls[0].error.as_deref()), (ToolCallStatus::Denied, Some("not allowed")));
    assert_eq!(
        (calls[0].duration_ms, calls[0].input.clone()),
        (Some(12), serde_json::json!({ "command": "ls" }))
    );
}

#[tokio::test]
async fn cancelling_stops_the_agent_and_delivers_nothing() {
    let mut none = bare_workspaces(changes(&[]));
    none.expect_publish().never();
    let acts = vec![tool(ToolStatus::Started, None), Act::Hang];
    let scene = Scene::new(Setting { acts, workspaces: none, ..Setting::default() }).await;
    let run = scene.submit(scene.a_run()).await;
    let worker = scene.worker();
    let calls = || async { scene.storage.all(&scene.scope, Query::<ToolCall>::all()).await.unwrap() };
    while calls().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    let ended = scene.factory.wait(&scene.scope, run).await.unwrap();
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
    assert_eq!(calls().await[0].status, ToolCallStatus::Error, "an open call was left open");
    worker.stop(Duration::from_secs(5)).await.unwrap();
}

/// Checkouts that take for ever to be made.
struct Stuck;

#[async_trait]
impl Workspaces for Stuck {
    async fn prepare(&self, _: &WorkspaceSpec) -> lime_core::Result<Workspace> {
        std::future::pending().await
    }

    async fn changes(&self, _: &Workspace) -> lime_core::Result<Changes> {
        panic!("there is no checkout to look at")
    }

    async fn commit(&self, _: &Workspace, _: &str, _: &Author) -> lime_core::Result<Option<CommitId>> {
        panic!("there is nothing to commit")
    }

    async fn publish(&self, _: &Workspace, _: &RepoAccess, _: &CommitId) -> lime_core::Result<()> {
        panic!("there is nothing to publish")
    }

    async fn remove(&self, _: &Workspace) -> lime_core::Result<()> {
        panic!("there is no checkout to remove")
    }
}

#[tokio::test]
async fn a_run_is_cancelled_while_its_checkout_is_made() {
    let scene = Scene::new(Setting::default()).await;
    let stub = support::Stub {
        acts: vec![],
        outcome: Outcome::Cancelled,
        usage: Usage::default(),
        specs: scene.specs.clone(),
    };
    let factory = Factory::builder(scene.storage.clone())
        .provider(stub)
        .repos(repos(BranchState::Missing))
        .workspaces(Stuck)
        .build();
    let scene = Scene { factory, ..scene };
    let run = scene.submit(scene.a_run()).await;
    let worker = scene.worker();
    let steps = || async { scene.storage.all(&scene.scope, Query::<RunStep>::all()).await.unwrap() };
    while steps().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.factory.wait(&scene.scope, run).await.unwrap().status, RunStatus::Cancelled);
    assert_eq!(steps().await[0].status, StepStatus::Failed);
    assert!(scene.specs.lock().unwrap().is_empty(), "an agent was started without a place to work");
    worker.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_cancellation_from_another_process_comes_with_the_heartbeat() {
    let scene = Scene::new(Setting { acts: vec![Act::Hang], ..Setting::default() }).await;
    let run = scene.submit(scene.a_run()).await;
    let heartbeat = Duration::from_millis(30);
    let worker = scene.worker_with(WorkerConfig {
        heartbeat,
        lease: Duration::from_secs(5),
        ..WorkerConfig::default()
    });
    while scene.specs.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    scene.storage.request_cancel(&scene.scope, run).await.unwrap();
    let ended = scene.factory.wait(&scene.scope, run).await.unwrap();
    assert_eq!(ended.status, RunStatus::Cancelled);
    worker.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_run_back_without_burning_it() {
    let scene = Scene::new(Setting { acts: vec![Act::Hang], ..Setting::default() }).await;
    let run = scene.submit(scene.a_run()).await;
    let worker = scene.worker();
    while scene.specs.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.stop(Duration::ZERO).await.unwrap();
    let run = scene.factory.run(&scene.scope, run).await.unwrap();
    assert_eq!((run.status, run.crash_count), (RunStatus::Queued, 0));
    let attempts = scene.storage.all(&scene.scope, Query::<RunAttempt>::all()).await.unwrap();
    assert_eq!(attempts[0].outcome, Some(lime_core::runs::AttemptEnd::Released));
}

#[tokio::test]
async fn a_lost_lease_writes_and_publishes_nothing_more() {
    let mut none = bare_workspaces(changes(&["a"]));
    none.expect_publish().never();
    let gate = Arc::new(Notify::new());
    let acts = vec![Act::Gate(gate.clone()), says("too late")];
    let scene = Scene::new(Setting { acts, workspaces: none, ..Setting::default() }).await;
    let run = scene.submit(scene.a_run()).await;
    let worker = scene.worker();
    while scene.specs.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Somebody ends the run under the worker's hands, as a rescue does after a long stall.
    let attempt = scene.factory.run(&scene.scope, run).await.unwrap().attempt_id.unwrap();
    let lease = Lease { tenant: scene.scope.tenant(), run, attempt };
    let end = Settlement {
        outcome: Outcome::Cancelled,
        summary: None,
        usage: Usage::default(),
        tool_calls: vec![],
        artifacts: vec![],
        events: vec![],
    };
    let ended = scene.storage.settle(&lease, end).await.unwrap();
    gate.notify_one();
    worker.stop(Duration::from_secs(5)).await.unwrap();
    assert_eq!(scene.factory.run(&scene.scope, run).await.unwrap(), ended);
    assert!(!format!("{:?}", scene.log(run).await).contains("too late"));
}

#[tokio::test]
async fn limits_of_time_and_money_stop_the_agent() {
    let spent = Usage { turns: 1, cost: Some(Micros::from_cents(11)), ..Usage::default() };
    let acts = vec![Act::Event(AgentEvent::Usage(spent)), Act::Hang];
    let scene = Scene::new(Setting { acts, usage: spent, ..Setting::default() }).await;
    let cost = Constraints { max_cost_cents: Some(10), ..Constraints::default() };
    let (run, _) = scene.work(scene.submit(AgentRun { constraints: cost, ..scene.a_run() }).await).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::MaxCost)));
    assert_eq!(run.usage, spent);

    let scene = Scene::new(Setting { acts: vec![Act::Hang], ..Setting::default() }).await;
    let time = Constraints { time_budget_sec: Some(1), ..Constraints::default() };
    let (run, _) = scene.work(scene.submit(AgentRun { constraints: time, ..scene.a_run() }).await).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::MaxTime)));
}

#[tokio::test]
async fn a_panic_is_the_runs_failure_and_not_the_workers_end() {
    let scene = Scene::new(Setting { acts: vec![Act::Panic], ..Setting::default() }).await;
    let (run, log) = scene.work(scene.submit(scene.a_run()).await).await;
    assert_eq!(run.failure.as_ref().unwrap().kind, FailureKind::Internal);
    assert!(!format!("{log:?}").contains("was told to panic"));
}

#[tokio::test]
async fn paths_that_are_not_allowed_are_not_delivered() {
    let mut found = bare_workspaces(changes(&["src/a.rs", "ci/run"]));
    found.expect_commit().never();
    found.expect_publish().never();
    let scene = Scene::new(Setting { workspaces: found, ..Setting::default() }).await;
    let run = AgentRun { allowed_paths: Some(vec!["src".into()]), ..scene.a_run() };
    let (run, log) = scene.work_with(scene.submit(run).await, KeepWorktree::Unfinished).await;
    let failure = run.failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::Workspace);
    assert!(failure.message.contains("ci/run"), "{}", failure.message);
    assert!(log.iter().any(
        |event| matches!(&event.event, AgentEvent::Message { text, .. } if text.contains("is kept in"))
    ));
}

#[tokio::test]
async fn a_run_that_plans_changes_nothing() {
    let mut found = bare_workspaces(changes(&["notes.md"]));
    found.expect_commit().never();
    found.expect_publish().never();
    let scene = Scene::new(Setting { workspaces: found, ..Setting::default() }).await;
    let (run, _) = scene.work(scene.submit(AgentRun { mode: AgentMode::Plan, ..scene.a_run() }).await).await;
    assert_eq!((run.status, run.output_summary.as_deref()), (RunStatus::Succeeded, Some("I did it.")));
}

#[tokio::test]
async fn a_branch_that_moved_meanwhile_fails_the_run_and_keeps_the_work() {
    let mut moved = bare_workspaces(changes(&["a"]));
    moved.expect_commit().returning(|_, _, _| Ok(Some("c".repeat(40))));
    moved
        .expect_publish()
        .returning(|_, _, _| Err(Error::new(ErrorKind::Conflict, "git.publish", "the branch has moved")));
    let scene = Scene::new(Setting { workspaces: moved, ..Setting::default() }).await;
    let (run, log) = scene.work(scene.submit(scene.a_run()).await).await;
    assert_eq!(run.failure.as_ref().unwrap().message, "the branch has moved");
    assert!(log.iter().any(
        |event| matches!(&event.event, AgentEvent::Message { text, .. } if text.contains("is kept in"))
    ));
}

#[tokio::test]
async fn the_agent_is_told_the_ticket_and_the_instructions_in_order() {
    let scene = Scene::new(Setting::default()).await;
    let layer = InstructionLayer {
        scope: LayerScope::Default,
        source: "house rules".into(),
        provider: None,
        mode: None,
        priority: 100,
        enabled: true,
        content_md: "Be brief.".into(),
    };
    let specs = scene.specs.clone();
    let stub = support::Stub {
        acts: vec![],
        outcome: Outcome::Succeeded { summary: None },
        usage: Usage::default(),
        specs: specs.clone(),
    };
    let factory = Factory::builder(scene.storage.clone())
        .provider(stub)
        .repos(repos(BranchState::Missing))
        .workspaces(workspaces(changes(&["a"])))
        .instructions(vec![layer])
        .build();
    let board = Board { project_id: scene.project.id, name: "B".into(), workflow: Workflow::delivery() };
    let board = scene.storage.insert(&scene.scope, board).await.unwrap();
    let ticket = Ticket {
        description_md: Some("It must be fast.".into()),
        repository_id: Some(scene.repository.id),
        ..Ticket::new(scene.project.id, board.id, "todo", "A flag")
    };
    let ticket = scene.storage.insert(&scene.scope, ticket).await.unwrap();
    let asked = AgentRun { ticket_id: Some(ticket.id), repository_id: None, ..scene.a_run() };
    let scene = Scene { factory, ..scene };
    let (run, _) = scene.work(scene.submit(asked).await).await;

    let told = specs.lock().unwrap().remove(0);
    assert_eq!(told.instructions, "Be brief.\n\n# Ticket: A flag\n\nIt must be fast.");
    assert_eq!(told.request.prompt, "Add a flag\n\nand test it");
    assert_eq!(told.request.run_id, run.id);
    let kept = run.value.instructions.unwrap();
    assert_eq!(kept.text, told.instructions);
    assert_eq!(kept.layers[1].source, format!("tickets {}", ticket.id));

    let ticket = Lookup::get(&scene.storage, &scene.scope, ticket.id).await.unwrap();
    assert_eq!(ticket.branch.as_deref(), Some(&*format!("lime/run-{}", run.id)));
    assert_eq!((ticket.progress.files_changed, ticket.progress.lines_added), (Some(1), Some(2)));
    assert!(ticket.progress.completed_at.is_some());
}

#[tokio::test]
async fn runs_that_cannot_work_are_refused_when_they_are_submitted() {
    let dirty = BranchState::CheckedOut { commit: "c".into(), dirty: true };
    let scene = Scene::new(Setting { repos: repos(dirty), ..Setting::default() }).await;
    let other = lime_core::runs::ProviderId::from_static("other");
    let cases = [
        (AgentRun { input_prompt: " \n".into(), ..scene.a_run() }, ErrorKind::Invalid, "the prompt is empty"),
        (AgentRun { repository_id: None, ..scene.a_run() }, ErrorKind::Invalid, "no repository"),
        (AgentRun { provider: other, ..scene.a_run() }, ErrorKind::Invalid, "there is: stub"),
        (AgentRun { branch: Some("main".into()), ..scene.a_run() }, ErrorKind::Conflict, "not committed"),
        (
            AgentRun { project_id: lime_core::Id::new(99), ..scene.a_run() },
            ErrorKind::NotFound,
            "no project 99",
        ),
    ];
    for (run, kind, says) in cases {
        let error = scene.factory.submit(&scene.scope, run).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(scene.storage.all(&scene.scope, Query::<AgentRun>::all()).await.unwrap().is_empty());
}

#[tokio::test]
async fn as_many_runs_at_once_as_the_worker_may() {
    let scene = Scene::new(Setting { acts: vec![Act::Hang], ..Setting::default() }).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(scene.submit(scene.a_run()).await);
    }
    let worker = scene.worker_with(WorkerConfig { concurrency: 3, ..WorkerConfig::default() });
    let running = || async {
        let query = Query::all().filter(AgentRun::STATUS.eq(RunStatus::Running));
        scene.storage.all(&scene.scope, query).await.unwrap().len()
    };
    while running().await < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running().await, 3);
    for run in &runs {
        scene.factory.cancel(&scene.scope, *run).await.unwrap();
    }
    for run in runs {
        assert_eq!(scene.factory.wait(&scene.scope, run).await.unwrap().status, RunStatus::Cancelled);
    }
    worker.stop(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_contradicts_itself_is_refused() {
    let scene = Scene::new(Setting::default()).await;
    let lazy = WorkerConfig { heartbeat: Duration::from_secs(20), ..WorkerConfig::default() };
    let idle = WorkerConfig { concurrency: 0, ..WorkerConfig::default() };
    for config in [lazy, idle] {
        assert_eq!(lime_engine::Worker::new(&scene.factory, config).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let bare = Factory::builder(scene.storage).build();
    assert!(lime_engine::Worker::new(&bare, WorkerConfig::default()).is_err());
}
