//! Each entity comes back from its store as it was, with every field filled and with every field empty.

#![allow(missing_docs, reason = "each name says the whole of it")]

use std::fmt::Debug;

use chrono::{DateTime, Utc};
use lime_core::governance::{ActionScope, ApprovalPolicy, ApprovalRule, Decision, ToolPattern, UnknownPrice};
use lime_core::identity::{User, UserStatus};
use lime_core::planning::{
    Approval, Board, Priority, Project, ProjectConfig, Ticket, TicketProgress, Workflow,
};
use lime_core::ports::Storage;
use lime_core::repos::{CodeDiff, DiffStats, RepoKind, Repository, Worktree, WorktreeStatus};
use lime_core::{Editable, ErrorKind, Id, Lookup, LookupExt, Query, Scope, Store};
use serde_json::{Map, json};

use crate::scene::{Scene, Subject};

pub(super) async fn round_trip<E>(storage: &Subject, scope: &Scope, values: impl IntoIterator<Item = E>)
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

pub(super) fn time() -> DateTime<Utc> {
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
            unknown_price: UnknownPrice::Admit,
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
    let person = scene.person(&storage, "a@b.c").await.id;
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

pub async fn an_approval_policy_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let person = scene.person(&storage, "ada@example.com").await.id;
    let full = ApprovalPolicy {
        project_id: Some(scene.project.id),
        scope: ActionScope::tool(),
        tool: Some(ToolPattern::parse("Bash(git push *)").unwrap()),
        rule: ApprovalRule::Deny,
        approvers: vec![person, Id::new(i64::MAX)],
        expires_after_s: ApprovalPolicy::MAX_EXPIRY_S,
        on_expiry: Decision::Approve,
        enabled: false,
    };
    let rules = ApprovalRule::ALL.iter().map(|&rule| ApprovalPolicy { rule, ..full.clone() });
    let empty = ApprovalPolicy::ask(ActionScope::parse("our_own.word2").unwrap());
    round_trip(&storage, &scene.scope, rules.chain([empty.clone()])).await;
    for (field, bad) in [
        ("tool", ApprovalPolicy { tool: full.tool.clone(), ..empty.clone() }),
        ("approvers", ApprovalPolicy { approvers: vec![person; 101], ..empty.clone() }),
        ("expires_after_s", ApprovalPolicy { expires_after_s: 0, ..empty.clone() }),
        ("project_id", ApprovalPolicy { project_id: Some(Id::new(i64::MAX)), ..empty.clone() }),
    ] {
        let error = storage.insert(&scene.scope, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    let query = Query::all().filter(ApprovalPolicy::SCOPE.eq(ActionScope::tool()));
    let query =
        query.filter(ApprovalPolicy::RULE.eq(ApprovalRule::Ask)).filter(ApprovalPolicy::ENABLED.eq(false));
    assert_eq!((*storage).all(&scene.scope, query).await.unwrap().len(), 1);
    let tenants = Query::all().filter(ApprovalPolicy::PROJECT_ID.is_null());
    let tenants = (*storage).all(&scene.scope, tenants).await.unwrap();
    assert_eq!(tenants.iter().map(|policy| &policy.value).collect::<Vec<_>>(), [&empty]);
    Store::delete(&*storage, &scene.scope, &scene.project).await.unwrap();
    let left = (*storage).all(&scene.scope, Query::<ApprovalPolicy>::all()).await.unwrap();
    assert_eq!(left, tenants, "what is for a project goes with it");
}
