//! Each entity comes back from its store as it was, with every field filled and with every field empty.

#![allow(missing_docs, reason = "each name says the whole of it")]

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use lime_core::agents::{LayerRecord, LayerScope, ResolvedInstructions};
use lime_core::identity::{User, UserStatus};
use lime_core::planning::{
    Approval, Board, Priority, Project, ProjectConfig, Ticket, TicketProgress, Workflow,
};
use lime_core::ports::{Progress, Storage};
use lime_core::repos::{CodeDiff, DiffStats, RepoKind, Repository, Worktree, WorktreeStatus};
use lime_core::runs::{
    AgentMode, AgentRun, Constraints, Failure, FailureKind, Outcome, RunArtifact, RunStatus, RunStep,
    StepKind, StepStatus, StopReason, ToolCall, ToolCallStatus, ToolTally, Usage,
};
use lime_core::{Editable, Id, Lookup, Micros, Scope, Store};
use serde_json::{Map, json};

use crate::scene::{OTHER_PROVIDER, Scene, Subject, settlement};

async fn round_trip<E>(storage: &Subject, scope: &Scope, values: impl IntoIterator<Item = E>)
where
    E: Editable + PartialEq + Debug,
    dyn Storage: Store<E>,
{
    for value in values {
        let inserted = storage.insert(scope, value.clone()).await.unwrap();
        assert_eq!(inserted.value, value);
        assert_eq!(inserted.version, 1);
        assert_eq!(Lookup::get(&**storage, scope, inserted.id).await.unwrap(), inserted);
        let updated = storage.update(scope, &inserted).await.unwrap();
        assert_eq!(updated.value, value);
    }
}

fn time() -> DateTime<Utc> {
    // PostgreSQL keeps microseconds.
    DateTime::from_timestamp_micros(1_795_246_412_123_456).unwrap()
}

fn object() -> Map<String, serde_json::Value> {
    json!({ "build": { "status": "green", "n": 3 }, "text": "é \" \\ 中" }).as_object().unwrap().clone()
}

pub async fn a_user_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = User {
        email: "Ada@Example.com".into(),
        name: Some("Ada".into()),
        github_user_id: Some(i64::MAX),
        status: UserStatus::Disabled,
    };
    let empty =
        User { email: "b@example.com".into(), name: None, github_user_id: None, status: UserStatus::Active };
    round_trip(&storage, &scene.scope, [full, empty]).await;
}

pub async fn a_project_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = Project {
        name: "Full".into(),
        key: "FULL2".into(),
        description: Some("What it is".into()),
        config: ProjectConfig {
            init_script: Some("make".into()),
            env_file: Some(".env".into()),
            model: Some("m".into()),
            ..ProjectConfig::default()
        },
        max_concurrent_agents: 10,
        archived_at: Some(time()),
    };
    round_trip(&storage, &scene.scope, [full, Project::new("Empty", "E")]).await;
}

pub async fn a_board_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let board = |name: &str, workflow| Board { project_id: scene.project.id, name: name.into(), workflow };
    let boards = [
        board("delivery", Workflow::delivery()),
        board("approval", Workflow::approval()),
        board("work order", Workflow::work_order()),
    ];
    round_trip(&storage, &scene.scope, boards).await;
}

pub async fn a_ticket_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let empty = scene.ticket(&storage).await.value;
    let person = User { email: "a@b.c".into(), name: None, github_user_id: None, status: UserStatus::Active };
    let person = storage.insert(&scene.scope, person).await.unwrap().id;
    let worktree = storage.insert(&scene.scope, worktree(&scene)).await.unwrap().id;
    let full = Ticket {
        column_key: "qa".into(),
        position: 7,
        description_md: Some("# More\nabout it".into()),
        priority: Priority::Low,
        labels: vec!["a".into(), "b c".into()],
        assignee_user_id: Some(person),
        agent_id: Some(Id::new(3)),
        session_id: Some(Id::new(4)),
        repository_id: Some(scene.repository(&storage).await.id),
        branch: Some("lime/1".into()),
        worktree_id: Some(worktree),
        pr_url: Some("https://example.com/pr/1".into()),
        status_meta: object(),
        metadata: object(),
        progress: TicketProgress {
            diff_summary: Some("2 files".into()),
            files_changed: Some(2),
            lines_added: Some(3),
            lines_removed: Some(4),
            started_at: Some(time()),
            completed_at: Some(time()),
            turn_count: 5,
        },
        approval: Approval {
            approved_at: Some(time()),
            approved_by: Some(person),
            rejection_reason: Some("no".into()),
            rejection_count: 1,
        },
        created_by: Some(person),
        ..empty.clone()
    };
    round_trip(&storage, &scene.scope, [full, empty]).await;
}

pub async fn a_repository_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let repository = |provider: RepoKind, external_repo_id| Repository {
        connector_id: None,
        provider,
        external_repo_id,
        owner: "o".into(),
        name: "n".into(),
        full_name: "o/n".into(),
        clone_url: "https://example.com/o/n.git".into(),
        default_branch: "trunk".into(),
        is_enabled: external_repo_id.is_some(),
    };
    let all = [RepoKind::Github, RepoKind::Gitlab, RepoKind::Bitbucket, RepoKind::Local];
    let some = all.into_iter().enumerate().map(|(n, kind)| repository(kind, (n > 1).then_some(99)));
    round_trip(&storage, &scene.scope, some).await;
}

fn worktree(scene: &Scene) -> Worktree {
    Worktree {
        project_id: scene.project.id,
        ticket_id: None,
        agent_run_id: None,
        repository_id: None,
        branch: "lime/1".into(),
        base_branch: "main".into(),
        path: "/srv/w/1".into(),
        status: WorktreeStatus::Creating,
        env_copied: false,
        deps_installed: false,
        init_script_run: false,
        last_error: None,
        merged_at: None,
        removed_at: None,
    }
}

pub async fn a_worktree_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = Worktree {
        ticket_id: Some(scene.ticket(&storage).await.id),
        agent_run_id: Some(scene.queued(&storage).await.id),
        repository_id: Some(scene.repository(&storage).await.id),
        env_copied: true,
        deps_installed: true,
        init_script_run: true,
        last_error: Some("disk full".into()),
        merged_at: Some(time()),
        removed_at: Some(time()),
        ..worktree(&scene)
    };
    let every = WorktreeStatus::ALL.iter().map(|&status| Worktree { status, ..full.clone() });
    round_trip(&storage, &scene.scope, every.chain([worktree(&scene)])).await;
}

pub async fn a_code_diff_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = CodeDiff {
        agent_run_id: Some(scene.queued(&storage).await.id),
        repository_id: scene.repository(&storage).await.id,
        base_ref: "a".repeat(40),
        head_ref: "b".repeat(40),
        unified_diff: "diff --git a/x b/x\n+é\r\n".repeat(20_000),
        summary: Some("x".into()),
        stats: DiffStats { files_changed: 1, insertions: 20_000, deletions: u32::MAX },
    };
    let empty = CodeDiff {
        agent_run_id: None,
        unified_diff: String::new(),
        summary: None,
        stats: DiffStats::default(),
        ..full.clone()
    };
    round_trip(&storage, &scene.scope, [full, empty]).await;
}

pub async fn a_step_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = RunStep {
        run_id: scene.queued(&storage).await.id,
        step_number: 2,
        step_key: "turn:2".into(),
        kind: StepKind::Turn,
        status: StepStatus::Failed,
        model_id: Some("m".into()),
        usage: Some(usage()),
        result: Some(json!({ "commit": "abc" })),
        error: Some("no".into()),
        completed_at: Some(time()),
    };
    let empty = RunStep {
        step_number: 1,
        step_key: "prepare".into(),
        kind: StepKind::Phase,
        status: StepStatus::Running,
        model_id: None,
        usage: None,
        result: None,
        error: None,
        completed_at: None,
        ..full.clone()
    };
    round_trip(&storage, &scene.scope, [full, empty]).await;
}

pub async fn a_tool_call_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let full = ToolCall {
        agent_run_id: scene.queued(&storage).await.id,
        project_id: scene.project.id,
        ticket_id: Some(scene.ticket(&storage).await.id),
        agent_id: Some(Id::new(5)),
        call_id: "call".into(),
        tool: "Bash".into(),
        status: ToolCallStatus::Error,
        input: json!({ "command": "ls" }),
        output: Some("out".into()),
        error: Some("exit 1".into()),
        duration_ms: Some(12),
        turn_number: 3,
    };
    let every = ToolCallStatus::ALL.iter().map(|&status| ToolCall {
        status,
        call_id: status.to_string(),
        ticket_id: None,
        agent_id: None,
        output: None,
        error: None,
        duration_ms: None,
        ..full.clone()
    });
    let every: Vec<_> = every.collect();
    round_trip(&storage, &scene.scope, every.into_iter().chain([full])).await;
}

fn usage() -> Usage {
    Usage {
        turns: 3,
        input_tokens: 1_000_000_000_000,
        cached_input_tokens: 500,
        cache_write_tokens: 7,
        output_tokens: 60,
        cost: Some(Micros(12_690)),
    }
}

pub async fn a_run_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let asked = AgentRun {
        ticket_id: Some(scene.ticket(&storage).await.id),
        repository_id: Some(scene.repository(&storage).await.id),
        agent_id: Some(Id::new(3)),
        session_id: Some(Id::new(4)),
        trigger_message_id: Some(Id::new(5)),
        channel_id: Some(Id::new(6)),
        mode: AgentMode::Bugfix,
        provider: OTHER_PROVIDER,
        model: Some("m".into()),
        base_ref: Some("v1".into()),
        branch: Some("fix".into()),
        allowed_paths: Some(vec!["src".into()]),
        constraints: Constraints {
            time_budget_sec: Some(60),
            max_cost_cents: Some(100),
            allowed_tools: Some(vec!["Read".into()]),
            max_turns: Some(9),
        },
        ..scene.a_run()
    };
    let waiting = storage.submit(&scene.scope, asked.clone()).await.unwrap();
    assert_eq!(waiting.value, AgentRun { last_seq: 1, ..asked.clone() });
    assert_eq!(Lookup::get(&*storage, &scene.scope, waiting.id).await.unwrap(), waiting);

    let claim = crate::scene::claim(&storage, waiting.id, crate::scene::LONG).await;
    let instructions = ResolvedInstructions {
        layers: vec![LayerRecord {
            scope: LayerScope::Project,
            source: "custom_instructions 1".into(),
            priority: 100,
            sha256: "ab".into(),
        }],
        sha256: "cd".into(),
        text: "Be brief.".into(),
    };
    let progress = Progress {
        provider_session_id: Some("s".into()),
        instructions: Some(instructions.clone()),
        branch: Some("lime/1".into()),
        model: Some("m2".into()),
    };
    storage.progress(&claim.lease, progress).await.unwrap();
    let failure =
        Failure { retry_at: Some(time()), ..Failure::new(FailureKind::RateLimited, "Wait a minute.") };
    let tool_calls = vec![ToolTally { tool: "Bash".into(), count: 2, total_duration_ms: 30 }];
    let artifacts = vec![RunArtifact { name: "report".into(), url: Some("https://x".into()), mime: None }];
    let end = lime_core::ports::Settlement {
        summary: Some("It failed.".into()),
        usage: usage(),
        tool_calls: tool_calls.clone(),
        artifacts: artifacts.clone(),
        ..settlement(Outcome::Failed(failure.clone()))
    };
    let ended = storage.settle(&claim.lease, end).await.unwrap();
    assert_eq!(Lookup::get(&*storage, &scene.scope, waiting.id).await.unwrap(), ended);
    assert!(ended.started_at.is_some() && ended.ended_at >= ended.started_at);
    let expected = AgentRun {
        status: RunStatus::Failed,
        stop_reason: Some(StopReason::Error),
        failure: Some(failure),
        output_summary: Some("It failed.".into()),
        artifacts,
        instructions: Some(instructions),
        provider_session_id: Some("s".into()),
        branch: Some("lime/1".into()),
        model: Some("m2".into()),
        usage: usage(),
        tool_calls,
        attempt_id: Some(claim.lease.attempt),
        attempt_count: 1,
        last_seq: ended.last_seq,
        started_at: ended.started_at,
        ended_at: ended.ended_at,
        ..asked
    };
    assert_eq!(ended.value, expected);
}
