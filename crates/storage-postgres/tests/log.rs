//! Records of many runs in one batch, and questions under way at once.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use lime_core::governance::{ActionScope, Approval, ApprovalStatus, Decision};
use lime_core::ports::{Approvals, EventLog, Question, Queue, Record};
use lime_core::runs::{
    AgentEvent, AgentRun, Lease, Outcome, RunAttempt, RunStatus, RunStep, StepKind, StepStatus, ToolCall,
    ToolCallStatus,
};
use lime_core::{Editable, ErrorKind, Id, Lookup, LookupExt, Query, Result, Scope, Store, Stored};
use lime_storage_postgres::PgStorage;
use lime_storage_postgres::sea_orm::ConnectionTrait;
use serde_json::json;

use crate::support::{claim, database, log, open, scene, settlement, submit, texts};

const LONG: Duration = Duration::from_secs(600);

async fn leases(storage: &PgStorage, count: usize) -> (Scope, Vec<Lease>) {
    let (scope, project) = scene(storage).await;
    let wide = Store::update(storage, &scope, &Stored { value: widened(&project), ..project.clone() })
        .await
        .unwrap();
    let mut leases = Vec::new();
    for _ in 0..count {
        submit(storage, &scope, &wide).await;
        leases.push(claim(storage, LONG).await.lease);
    }
    (scope, leases)
}

fn widened(project: &Stored<lime_core::planning::Project>) -> lime_core::planning::Project {
    lime_core::planning::Project { max_concurrent_agents: 10, ..project.value.clone() }
}

fn step(lease: &Lease, key: &str, status: StepStatus) -> RunStep {
    RunStep {
        run_id: lease.run,
        step_number: 1,
        step_key: key.into(),
        kind: StepKind::Turn,
        status,
        model_id: None,
        usage: None,
        result: Some(json!({ "n": 1 })),
        error: None,
        completed_at: None,
    }
}

async fn all<E: Editable>(storage: &PgStorage, scope: &Scope) -> Vec<E>
where
    PgStorage: Lookup<E>,
{
    let found = storage.all(scope, Query::<E>::all()).await.unwrap();
    found.into_iter().map(|stored| stored.value).collect()
}

fn forged(lease: &Lease) -> Lease {
    Lease { attempt: Id::<RunAttempt>::new(lease.attempt.raw() + 1_000_000), ..*lease }
}

/// Some of them stale, some of them broken; each is what it would be alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_in_a_batch_fails_alone() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, leases) = leases(&storage, 6).await;
    // No tool call of a project that is not there can be stored, which the database finds in the middle of the batch.
    let broken = |lease: &Lease| ToolCall {
        agent_run_id: lease.run,
        project_id: Id::new(i64::MAX),
        ticket_id: None,
        agent_id: None,
        call_id: "c".into(),
        tool: "Bash".into(),
        status: ToolCallStatus::Running,
        input: json!(null),
        output: None,
        error: None,
        duration_ms: None,
        turn_number: 1,
    };
    let kinds = [None, Some(ErrorKind::StaleLease), Some(ErrorKind::Invalid), Some(ErrorKind::Invalid)];
    for round in 0..10 {
        let calls = (0..48).map(|n| {
            let (storage, lease) = (storage.clone(), leases[n % 6]);
            let (lease, record) = match n % 4 {
                0 => (lease, Record::from(vec![log(format!("{round} {n}"))])),
                1 => (forged(&lease), Record::from(vec![log("stale")])),
                2 => (lease, Record { tool_calls: vec![broken(&lease)], ..vec![log("broken")].into() }),
                _ => (lease, Record { step: Some("nowhere".into()), ..vec![log("nowhere")].into() }),
            };
            tokio::spawn(async move { storage.append(&lease, record).await })
        });
        for (n, result) in join_all(calls).await.into_iter().enumerate() {
            let kind = result.unwrap().map_err(|error| error.kind()).err();
            assert_eq!(kind, kinds[n % 4], "{n}");
        }
    }
    let mut told = 0;
    for lease in &leases {
        let log = storage.read(&scope, lease.run, 0, 1_000).await.unwrap();
        assert!(log.iter().zip(1..).all(|(event, n)| event.seq == n), "there is a gap");
        told += log.len() - 2;
        let bad = |event: &AgentEvent| matches!(event, AgentEvent::Log { text } if !text.contains(' '));
        assert!(!log.iter().any(|event| bad(&event.event)));
    }
    assert_eq!(told, 10 * 12);
    assert!(all::<ToolCall>(&storage, &scope).await.is_empty());
}

/// Whoever appends under several leases at once, and settles others meanwhile, waits for nobody in a circle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_heartbeats_and_ends_do_not_lock_each_other_out() {
    let Some(fresh) = database().await else { return };
    let one = open(&fresh).await;
    let other = open(&fresh).await;
    let (scope, leases) = leases(&one, 8).await;
    let work = (0..120).map(|n| {
        let storage = if n % 2 == 0 { one.clone() } else { other.clone() };
        // One forwards, the other backwards.
        let lease = if n % 2 == 0 { leases[n % 8] } else { leases[7 - n % 8] };
        tokio::spawn(async move {
            match n % 3 {
                0 => storage.heartbeat(&lease, LONG).await.map(|_| ()),
                1 => {
                    let steps = vec![step(&lease, &format!("s{}", n % 5), StepStatus::Running)];
                    let record = Record { steps, step: Some(format!("s{}", n % 5)), ..vec![log("x")].into() };
                    storage.append(&lease, record).await.map(|_| ())
                }
                _ => storage.append(&lease, vec![log("y"), log("z")].into()).await.map(|_| ()),
            }
        })
    });
    for done in join_all(work).await {
        done.unwrap().unwrap();
    }
    let ends = leases.iter().map(|lease| one.settle(lease, settlement(Outcome::Cancelled)));
    let ends: Result<Vec<_>> = join_all(ends).await.into_iter().collect();
    let events: i64 = ends.unwrap().iter().map(|run| run.last_seq).sum();
    assert_eq!(events, 8 * 3 + 40 + 80);
    assert_eq!(
        texts(one.connection(), "SELECT count(*)::text FROM agent_events").await,
        [events.to_string()]
    );
    assert!(!all::<RunStep>(&one, &scope).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_know_their_step_and_steps_and_calls_their_last_word() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, leases) = leases(&storage, 2).await;
    // Many at once, so that several records of a run are in one batch.
    let records = (0..40).map(|n| {
        let (storage, lease) = (storage.clone(), leases[n % 2]);
        let status = if n < 38 { StepStatus::Running } else { StepStatus::Completed };
        let steps = vec![step(&lease, "turn:1", status), step(&lease, &format!("s{n}"), status)];
        tokio::spawn(async move {
            let record = Record { steps, step: Some("turn:1".into()), ..vec![log(n.to_string())].into() };
            storage.append(&lease, record).await.unwrap();
            let record = Record { step: Some(format!("s{n}")), ..vec![log("later")].into() };
            storage.append(&lease, record).await.unwrap();
        })
    });
    for done in join_all(records).await {
        done.unwrap();
    }
    let wrong = "SELECT event.id::text FROM agent_events AS event JOIN run_steps AS step ON step.id = event.step_id
        WHERE step.run_id <> event.agent_run_id OR (event.payload_json ->> 'text' = 'later') <> (step.step_key <> 'turn:1')";
    assert_eq!(texts(storage.connection(), wrong).await, [""; 0]);
    let named = "SELECT count(*)::text FROM agent_events WHERE step_id IS NOT NULL";
    assert_eq!(texts(storage.connection(), named).await, ["80"]);
    assert_eq!(all::<RunStep>(&storage, &scope).await.len(), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_deleted_takes_its_log_along() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, leases) = leases(&storage, 2).await;
    for lease in &leases {
        storage.append(lease, vec![log("x"); 3].into()).await.unwrap();
    }
    let (kept, _) = scene(&storage).await;
    let delete = format!("DELETE FROM agent_runs WHERE id = {}", leases[0].run);
    storage.connection().execute_unprepared(&delete).await.unwrap();
    let runs = "SELECT DISTINCT agent_run_id::text FROM agent_events";
    assert_eq!(texts(storage.connection(), runs).await, [leases[1].run.to_string()]);
    let projects = storage.all(&scope, Query::<lime_core::planning::Project>::all()).await.unwrap();
    for project in projects {
        storage.delete(&scope, &project).await.unwrap();
    }
    assert_eq!(texts(storage.connection(), runs).await, [""; 0]);
    let late = storage.append(&leases[1], vec![log("late")].into()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::StaleLease);
    assert_eq!(storage.all(&kept, Query::<lime_core::planning::Project>::all()).await.unwrap().len(), 1);
}

fn question(n: usize) -> Question {
    Question {
        scope: ActionScope::tool(),
        action: "Bash".into(),
        call_id: None,
        intent_summary: "May it?".into(),
        payload: json!({ "n": n }),
        approvers: Vec::new(),
        expires_after_s: 600,
        on_expiry: Decision::Deny,
    }
}

/// From two processes at once, with appends in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_asked_once_and_answered_once_however_many_try() {
    let Some(fresh) = database().await else { return };
    let one = open(&fresh).await;
    let other = open(&fresh).await;
    let (scope, leases) = leases(&one, 1).await;
    let lease = leases[0];
    for round in 0..5 {
        let asked = (0..16).map(|n| {
            let storage = if n % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move {
                storage.append(&lease, vec![log("x")].into()).await.unwrap();
                storage.ask(&lease, question(round)).await.unwrap()
            })
        });
        let asked: Vec<Stored<Approval>> =
            join_all(asked).await.into_iter().map(|asked| asked.unwrap()).collect();
        let id = asked[0].id;
        assert!(asked.iter().all(|approval| approval.id == id));
        let run = Lookup::<AgentRun>::get(&one, &scope, lease.run).await.unwrap();
        assert_eq!(run.status, RunStatus::WaitingApproval);
        let decided = (0..8).map(|n| {
            let (storage, scope) = (if n % 2 == 0 { one.clone() } else { other.clone() }, scope.clone());
            let decision = if n % 3 == 0 { Decision::Approve } else { Decision::Deny };
            tokio::spawn(async move { storage.decide(&scope, id, decision, None).await })
        });
        let decided: Vec<_> = join_all(decided).await.into_iter().map(|decided| decided.unwrap()).collect();
        let (answers, refused): (Vec<_>, Vec<_>) = decided.into_iter().partition(Result::is_ok);
        assert_eq!(answers.len(), 1);
        assert!(refused.iter().all(|refused| refused.as_ref().unwrap_err().kind() == ErrorKind::Conflict));
        let answer = one.answer(&lease, id).await.unwrap();
        assert_eq!(answer, *answers[0].as_ref().unwrap());
        assert!(matches!(answer.status, ApprovalStatus::Approved | ApprovalStatus::Denied));
    }
    let log = one.read(&scope, lease.run, 0, 10_000).await.unwrap();
    assert!(log.iter().zip(1..).all(|(event, n)| event.seq == n), "there is a gap");
    assert!(log.windows(2).all(|pair| pair[0].ts <= pair[1].ts), "times fall");
    let of = |wanted: fn(&AgentEvent) -> bool| log.iter().filter(|event| wanted(&event.event)).count();
    assert_eq!(of(|event| matches!(event, AgentEvent::Approval { .. })), 10);
    assert_eq!(of(|event| matches!(event, AgentEvent::Status { .. })), 2 + 10);
}
