//! The life of a run that goes as it should, or fails by itself.

mod support;

use lime_core::agents::{InstructionLayer, LayerScope, LayerSource};
use lime_core::planning::{Board, Ticket, Workflow};
use lime_core::ports::{BranchState, EventLog, MockRepoProvider, RepoAccess};
use lime_core::repos::{RepoKind, Worktree, WorktreeStatus};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, Failure, FailureKind, MessageRole, Outcome, ProviderId, RunStatus,
    StepStatus, StopReason, ToolCall, ToolCallStatus, ToolStatus, Usage,
};
use lime_core::{ErrorKind, Id, Lookup, Micros, Store};
use lime_engine::KeepWorktree;

use support::agent::{says, session, tool};
use support::{Act, Ground, Play, Scene, keeping, said, told};

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
    let acts = [
        session("s-1"),
        Act::Event(AgentEvent::Delta { text: "I look.".into() }),
        says("I look."),
        tool("c1", ToolStatus::Started, None),
        Act::Event(AgentEvent::Usage(half)),
        Act::Write,
        tool("c1", ToolStatus::Completed, Some("a.rs")),
        Act::Event(AgentEvent::Usage(usage)),
    ];
    let scene = Scene::new([Play { usage, ..Play::of(acts) }]).await;
    let (run, log) = scene.work(scene.submit_one().await).await;

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
    assert!(!said(&log, MessageRole::System).is_empty());
    assert!(log.last().unwrap().event.is_final());

    let diff = scene.factory.diff(&scene.scope, run.id).await.unwrap().unwrap();
    let shown = AgentEvent::Diff { unified_diff: diff.unified_diff.clone(), summary: diff.summary.clone() };
    assert!(log.iter().any(|event| event.event == shown));
    assert_eq!((diff.stats.files_changed, diff.stats.insertions), (1, 2));
    assert_eq!(Some(diff.value.head_ref), scene.ground.branch(run.branch.as_deref().unwrap()));

    let calls = scene.all::<ToolCall>().await;
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (calls[0].status, calls[0].output.as_deref(), calls[0].turn_number),
        (ToolCallStatus::Complete, Some("a.rs"), 1)
    );
    let steps = scene.steps().await;
    let mut keys: Vec<_> = steps.iter().map(|step| (step.step_number, step.step_key.as_str())).collect();
    keys.sort_unstable();
    assert_eq!(keys, [(1, "prepare"), (2, "agent"), (3, "turn:1"), (4, "turn:2"), (5, "deliver")]);
    assert!(steps.iter().all(|step| step.status == StepStatus::Completed));
    let second = steps.iter().find(|step| step.step_key == "turn:2").unwrap();
    assert_eq!(second.usage.unwrap().cost, Some(Micros(7_345)));
    assert_eq!(scene.all::<Worktree>().await[0].status, WorktreeStatus::Removed);
    assert!(scene.ground.kept().is_empty());
}

#[tokio::test]
async fn without_changes_there_is_a_summary_and_no_diff() {
    let scene = Scene::new([Play::of([])]).await;
    let (run, log) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert_eq!(run.output_summary.as_deref(), Some("No changes."));
    assert_eq!(scene.factory.diff(&scene.scope, run.id).await.unwrap(), None);
    assert!(log.iter().any(|event| event.event == AgentEvent::system("No changes.")));
}

#[tokio::test]
async fn a_failure_is_told_to_clients_without_its_stack() {
    let failure = Failure::new(FailureKind::BadCredentials, "The key was refused. Check it.");
    let play = Play { outcome: Outcome::Failed(failure.clone()), ..Play::of([]) };
    let scene = Scene::new([play]).await;
    let (run, log) = scene.work(scene.submit_one().await).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::Error)));
    assert_eq!(run.failure.as_ref(), Some(&failure));
    let told = AgentEvent::Error { message: failure.message, kind: Some(failure.kind), stack: None };
    assert_eq!(log[log.len() - 2].event, told);
    let kept = scene.storage.read(&scene.scope, run.id, 0, 100).await.unwrap();
    assert!(kept.iter().any(
        |event| matches!(&event.event, AgentEvent::Error { stack: Some(stack), .. } if stack.contains("boom"))
    ));
    assert!(scene.ground.pushes().is_empty());
}

#[tokio::test]
async fn paths_that_are_not_allowed_are_not_delivered() {
    let scene = Scene::new([Play::work()]).await;
    let run = AgentRun { allowed_paths: Some(vec!["docs".into()]), ..scene.a_run() };
    let (run, log) = scene.work_with(scene.submit(run).await, keeping(KeepWorktree::Unfinished)).await;
    let failure = run.failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::Workspace);
    assert!(failure.message.contains("src/1.rs"), "{}", failure.message);
    assert!(told(&log).contains("is kept in"));
    assert!(scene.ground.pushes().is_empty());
    assert_eq!(scene.ground.kept().len(), 1);
}

#[tokio::test]
async fn a_run_that_plans_changes_nothing() {
    let scene = Scene::new([Play::work()]).await;
    let (run, _) = scene.work(scene.submit(AgentRun { mode: AgentMode::Plan, ..scene.a_run() }).await).await;
    assert_eq!((run.status, run.output_summary.as_deref()), (RunStatus::Succeeded, Some("I did it.")));
    assert!(scene.ground.pushes().is_empty());
}

#[tokio::test]
async fn the_agent_is_told_the_ticket_and_the_instructions_in_order() {
    let layer = InstructionLayer::new(LayerScope::Default, "house rules", "Be brief.");
    let ground = Ground::default();
    let scene = Scene::with([Play::work()], ground.clone(), |builder| {
        builder.repos(ground.clone()).workspaces(ground).instructions(vec![layer])
    })
    .await;
    let board = Board { project_id: scene.project.id, name: "B".into(), workflow: Workflow::delivery() };
    let board = scene.storage.insert(&scene.scope, board).await.unwrap();
    let ticket = Ticket {
        description_md: Some("It must be fast.".into()),
        repository_id: Some(scene.repository.id),
        ..Ticket::new(scene.project.id, board.id, "todo", "A flag")
    };
    let ticket = scene.storage.insert(&scene.scope, ticket).await.unwrap();
    let asked = AgentRun { ticket_id: Some(ticket.id), repository_id: None, ..scene.a_run() };
    let (run, _) = scene.work(scene.submit(asked).await).await;

    let spec = scene.agent.specs().remove(0);
    assert_eq!(spec.instructions, "Be brief.\n\n# Ticket: A flag\n\nIt must be fast.");
    assert_eq!(spec.request.prompt, "Add a flag\n\nand test it");
    assert_eq!(spec.request.run_id, run.id);
    let kept = run.value.instructions.unwrap();
    assert_eq!(kept.text, spec.instructions);
    assert_eq!(kept.layers[1].source, LayerSource::Ticket(ticket.id));

    let ticket = Lookup::get(&scene.storage, &scene.scope, ticket.id).await.unwrap();
    assert_eq!(ticket.branch.as_deref(), Some(&*format!("lime/run-{}", run.id)));
    assert_eq!((ticket.progress.files_changed, ticket.progress.lines_added), (Some(1), Some(2)));
    assert!(ticket.progress.completed_at.is_some());
}

#[tokio::test]
async fn runs_that_cannot_work_are_refused_when_they_are_submitted() {
    let mut dirty = MockRepoProvider::new();
    dirty.expect_kind().return_const(RepoKind::Local);
    dirty.expect_access().returning(|_, _| Ok(RepoAccess { url: "/o/n".into(), token: None }));
    dirty
        .expect_branch_state()
        .returning(|_, _, _| Ok(BranchState::CheckedOut { commit: "c".into(), dirty: true }));
    let ground = Ground::default();
    let scene = Scene::with([], ground.clone(), |builder| builder.repos(dirty).workspaces(ground)).await;
    let other = ProviderId::from_static("other");
    let cases = [
        (AgentRun { input_prompt: " \n".into(), ..scene.a_run() }, ErrorKind::Invalid, "the prompt is empty"),
        (AgentRun { repository_id: None, ..scene.a_run() }, ErrorKind::Invalid, "no repository"),
        (AgentRun { provider: other, ..scene.a_run() }, ErrorKind::Invalid, "there is: stub"),
        (AgentRun { branch: Some("main".into()), ..scene.a_run() }, ErrorKind::Conflict, "not committed"),
        (AgentRun { project_id: Id::new(99), ..scene.a_run() }, ErrorKind::NotFound, "no project 99"),
    ];
    for (run, kind, says) in cases {
        let error = scene.factory.submit(&scene.scope, run).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(scene.all::<AgentRun>().await.is_empty());
}
