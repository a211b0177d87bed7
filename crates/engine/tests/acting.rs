//! Every call of a factory asks whether its caller may.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::BTreeSet;

use futures_util::StreamExt;
use lime_core::governance::{ActionScope, Approval, Decision};
use lime_core::identity::{
    Action, Authority, Caller, Grant, Permission, Permissions, Resource, User, UserStatus,
};
use lime_core::planning::{Board, Project, Ticket, Workflow};
use lime_core::ports::{Approvals, Claimant, Question, Queue, Settlement, WorkerName};
use lime_core::repos::RepoKind;
use lime_core::runs::{AgentRun, Outcome};
use lime_core::{ErrorKind, Id, LookupExt, Query, Result, Scope, Store, Stored};
use lime_engine::{Acting, Call, Guarded};

use support::{STUB, Scene};

/// What the calls are made about.
struct Ground {
    scene: Scene,
    factory: Guarded,
    run: Id<AgentRun>,
    approval: Id<Approval>,
}

impl Ground {
    /// A run that has asked a question, which nobody has answered.
    async fn new() -> Self {
        let scene = Scene::new([]).await;
        let run = scene.submit_one().await;
        let claimant = Claimant { worker: WorkerName::parse("test").unwrap(), providers: vec![STUB] };
        let lease = std::time::Duration::from_secs(600);
        let claim = scene.storage.claim(&claimant, 1, lease).await.unwrap().pop().unwrap();
        let question = Question {
            scope: ActionScope::tool(),
            action: "Bash".into(),
            call_id: None,
            intent_summary: "May I?".into(),
            payload: serde_json::json!({}),
            approvers: Vec::new(),
            expires_after_s: 600,
            on_expiry: Decision::Deny,
        };
        let approval = scene.storage.ask(&claim.lease, question).await.unwrap().id;
        let factory = scene.factory.clone().guarded();
        scene.watched.calls();
        Self { scene, factory, run, approval }
    }

    async fn end(&self) {
        let attempt = self.scene.run(self.run).await.attempt_id.unwrap();
        let lease = lime_core::runs::Lease { tenant: self.scene.scope.tenant(), run: self.run, attempt };
        self.scene.storage.settle(&lease, Settlement::new(Outcome::Cancelled)).await.unwrap();
    }

    /// A person with these permissions, in the project or in the whole tenant.
    async fn caller(&self, permissions: Permissions, project_id: Option<Id<Project>>) -> Caller {
        let user = User {
            email: "ada@example.com".into(),
            name: None,
            github_user_id: None,
            status: UserStatus::Active,
        };
        let query = Query::all().filter(User::EMAIL.eq(user.email.clone()));
        let known = self.scene.storage.find(&self.scene.scope, query).await.unwrap();
        let user = match known {
            Some(known) => known,
            None => self.scene.storage.insert(&self.scene.scope, user).await.unwrap(),
        };
        let authority = Authority::of_user(&user, [Grant { permissions, project_id }]);
        Caller::new(Scope::authenticated(self.scene.scope.tenant(), user.id), authority)
    }

    async fn call(&self, call: &Call, acting: Acting<'_>) -> Result<()> {
        let run = self.run;
        match call.operation {
            "factory.submit" => acting.submit(self.scene.a_run()).await.map(drop),
            "factory.follow_up" => acting.follow_up(run, "And now?").await.map(drop),
            "factory.requeue" => acting.requeue(run).await.map(drop),
            "factory.cancel" => acting.cancel(run).await.map(drop),
            "factory.pause" => acting.pause(run).await.map(drop),
            "factory.resume" => acting.resume(run).await.map(drop),
            "factory.say" => acting.say(run, "Hello").await.map(drop),
            "factory.decide" => acting.decide(self.approval, Decision::Approve, None).await.map(drop),
            "factory.connect_repository" => {
                acting.connect_repository(RepoKind::Local, "/o/n").await.map(drop)
            }
            "factory.run" => acting.run(run).await.map(drop),
            "factory.watch" => acting.watch(run, 0).await.map(drop),
            "factory.wait" => acting.wait(run).await.map(drop),
            "factory.diff" => acting.diff(run).await.map(drop),
            "factory.preview" => acting.preview(&self.scene.a_run()).await.map(drop),
            "factory.approvals" => acting.approvals(run).await.map(drop),
            other => panic!("{other} is no call that this test makes; make it here"),
        }
    }
}

fn permission(call: &Call) -> Permission {
    Permission::new(call.action, call.resource).expect("the matrix has each permission that a call needs")
}

/// The calls of a factory that take a scope, by its source.
fn calls_in(source: &str) -> BTreeSet<String> {
    let calls = source.split("\n    pub ").skip(1).filter_map(|item| {
        let item = item.strip_prefix("async ").unwrap_or(item).strip_prefix("fn ")?;
        let (name, rest) = item.split_once(['(', '<'])?;
        let signature = rest.split_once('{').map_or(rest, |(signature, _)| signature);
        signature.contains("scope: &Scope").then(|| format!("factory.{name}"))
    });
    calls.collect()
}

#[test]
fn every_call_of_a_factory_can_be_made_in_the_name_of_a_caller() {
    let sources = [
        include_str!("../src/factory.rs"),
        include_str!("../src/submit.rs"),
        include_str!("../src/control.rs"),
        include_str!("../src/told.rs"),
    ];
    let of_the_factory: BTreeSet<_> = sources.into_iter().flat_map(calls_in).collect();
    let listed: BTreeSet<_> = Call::ALL.iter().map(|call| call.operation.to_owned()).collect();
    assert!(of_the_factory.len() >= 14);
    assert_eq!(of_the_factory, listed, "a call that is not listed is one that nobody is asked about");
    for call in Call::ALL {
        permission(call);
    }
}

#[test]
fn nobody_else_gives_a_factory_calls() {
    // Each file of the crate with such calls is among those that the test above reads.
    let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in std::fs::read_dir(sources).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !["factory.rs", "submit.rs", "control.rs", "told.rs"].contains(&name.as_str()) {
            let source = std::fs::read_to_string(&path).unwrap();
            let calls = source.split("impl Factory {").skip(1).flat_map(calls_in).collect::<Vec<_>>();
            assert_eq!(calls, [""; 0], "{name}");
        }
    }
}

#[tokio::test]
async fn who_lacks_the_permission_of_a_call_changes_nothing() {
    let ground = Ground::new().await;
    let before = ground.scene.run(ground.run).await;
    for call in Call::ALL {
        let needed = permission(call);
        let all_else = Permission::all().filter(|it| *it != needed).collect();
        let caller = ground.caller(all_else, None).await;
        ground.scene.watched.calls();
        let refused = ground.call(call, ground.factory.acting_for(&caller)).await.unwrap_err();
        let expected = match call.action {
            Action::Read => ErrorKind::NotFound,
            _ => ErrorKind::PermissionDenied,
        };
        assert_eq!(refused.kind(), expected, "{call:?}: {refused}");
        let calls = ground.scene.watched.calls();
        assert!(calls.iter().all(|call| call.starts_with("get ")), "{call:?}: {calls:?}");
    }
    assert_eq!(ground.scene.run(ground.run).await, before);
}

#[tokio::test]
async fn who_has_it_in_another_project_sees_nothing() {
    let ground = Ground::new().await;
    let other = Project { max_concurrent_agents: 1, ..Project::new("Other", "O") };
    let other: Stored<Project> = ground.scene.storage.insert(&ground.scene.scope, other).await.unwrap();
    let caller = ground.caller(Permission::all().collect(), Some(other.id)).await;
    let acting = ground.factory.acting_for(&caller);
    for call in Call::ALL {
        let refused = ground.call(call, acting).await.unwrap_err();
        let about_nothing_that_is_there =
            ["factory.submit", "factory.connect_repository"].contains(&call.operation);
        let expected =
            if about_nothing_that_is_there { ErrorKind::PermissionDenied } else { ErrorKind::NotFound };
        assert_eq!(refused.kind(), expected, "{call:?}: {refused}");
    }
    let foreign = acting.cancel(ground.run).await.unwrap_err().to_string();
    let missing = acting.cancel(Id::new(99)).await.unwrap_err().to_string();
    assert_eq!(foreign.replace(&ground.run.to_string(), "99"), missing);
}

#[tokio::test]
async fn who_has_it_in_the_project_is_let_through() {
    for call in Call::ALL {
        let ground = Ground::new().await;
        let only = [permission(call)].into_iter().collect();
        let in_project = (call.resource != Resource::Repository).then_some(ground.scene.project.id);
        let caller = ground.caller(only, in_project).await;
        if call.operation == "factory.wait" {
            ground.end().await;
        }
        match ground.call(call, ground.factory.acting_for(&caller)).await {
            Ok(()) => {}
            // The run is of another state than the call wants, or there is no such repository: the call was made.
            Err(refused) => {
                let is_made = matches!(refused.kind(), ErrorKind::Conflict | ErrorKind::Invalid)
                    || refused.operation() == "repos.describe";
                assert!(is_made, "{call:?}: {refused}");
            }
        }
    }
}

#[tokio::test]
async fn it_is_done_in_the_callers_name() {
    let ground = Ground::new().await;
    let caller = ground.caller(Permission::all().collect(), None).await;
    let acting = ground.factory.acting_for(&caller);
    let run = acting.submit(ground.scene.a_run()).await.unwrap();
    assert_eq!((run.created_by, run.created_by_key), (caller.scope().user(), None));
    assert_eq!(acting.say(run.id, "Hello").await.unwrap().user_id, caller.scope().user());
    let decided = acting.decide(ground.approval, Decision::Approve, None).await.unwrap();
    assert_eq!(decided.decided_by, caller.scope().user());
    assert!(acting.watch(run.id, 0).await.unwrap().next().await.unwrap().is_ok());
    let agent = Scope::of_agent(ground.scene.scope.tenant(), ground.run, caller.scope().user(), None);
    let agent = Caller::new(agent, Authority::of_agent(ground.scene.project.id, Authority::of_system()));
    let refused = ground.factory.acting_for(&agent).decide(ground.approval, Decision::Approve, None).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn nobody_works_on_what_they_may_not_see() {
    let ground = Ground::new().await;
    let (storage, scope) = (&ground.scene.storage, &ground.scene.scope);
    let other = storage.insert(scope, Project::new("Other", "O")).await.unwrap();
    let board = Board { project_id: other.id, name: "Board".into(), workflow: Workflow::delivery() };
    let board = storage.insert(scope, board).await.unwrap();
    let ticket = storage.insert(scope, Ticket::new(other.id, board.id, "backlog", "Secret")).await.unwrap();
    let caller = ground.caller(Permission::all().collect(), Some(ground.scene.project.id)).await;
    let acting = ground.factory.acting_for(&caller);
    let theirs = AgentRun { ticket_id: Some(ticket.id), ..ground.scene.a_run() };
    assert_eq!(acting.submit(theirs).await.unwrap_err().kind(), ErrorKind::NotFound);
    let key = || Some("nightly".to_owned());
    let theirs = AgentRun { project_id: other.id, unique_key: key(), ..ground.scene.a_run() };
    storage.submit(scope, theirs).await.unwrap();
    let same = AgentRun { unique_key: key(), ..ground.scene.a_run() };
    let refused = acting.submit(same).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused}");
    for session in [
        AgentRun { provider_session_id: Some("s-1".into()), ..ground.scene.a_run() },
        AgentRun { parent_run_id: Some(ground.run), ..ground.scene.a_run() },
    ] {
        let refused = acting.submit(session).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    }
}
