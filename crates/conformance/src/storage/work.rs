//! The nouns of agent work come back as they were, and hold their rules.

#![allow(missing_docs, reason = "each name says the whole of it")]

use std::time::Duration;

use lime_core::agents::{LayerRecord, LayerScope, ResolvedInstructions};
use lime_core::governance::{ActionScope, Approval};
use lime_core::planning::Project;
use lime_core::ports::{Progress, Question, Record, Settlement};
use lime_core::runs::{
    AgentMode, AgentRun, Constraints, Effect, EffectKind, EffectStatus, Failure, FailureKind, Lease, Outcome,
    RunArtifact, RunInput, RunStatus, RunStep, StepKind, StepStatus, StopReason, ToolCall, ToolCallStatus,
    ToolTally, Usage,
};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Micros, Query, Store};
use serde_json::json;

use super::entities::{round_trip, time};
use crate::scene::{
    LONG, OTHER_PROVIDER, Scene, Subject, claim, end, forged, from_now, question, settlement,
};

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

fn pending(lease: &Lease, kind: EffectKind, key: &str) -> Effect {
    Effect {
        run_id: lease.run,
        attempt_id: lease.attempt,
        kind,
        idempotency_key: key.into(),
        expected: json!({ "branch": "lime/1", "was": null }),
        status: EffectStatus::Pending,
        approval_id: None,
        result: None,
        error: None,
        ended_at: None,
    }
}

async fn approval(storage: &Subject, lease: &Lease) -> Id<Approval> {
    let push = Question { scope: ActionScope::repo_push(), ..question("lime/1") };
    storage.ask(lease, push).await.unwrap().id
}

pub async fn an_effect_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let approval_id = Some(approval(&storage, &claim.lease).await);
    let every = EffectKind::ALL.iter().map(|&kind| pending(&claim.lease, kind, kind.as_str()));
    let ended = [EffectStatus::Done, EffectStatus::Abandoned].map(|status| Effect {
        status,
        approval_id,
        result: Some(json!({ "commit": "abc", "n": [1, null] })),
        error: Some("é".into()),
        ended_at: Some(time()),
        ..pending(&claim.lease, EffectKind::Push, status.as_str())
    });
    round_trip(&storage, &claim.scope(), every.chain(ended)).await;
    let query = Query::all()
        .filter(Effect::RUN_ID.eq(claim.lease.run))
        .filter(Effect::STATUS.eq(EffectStatus::Pending))
        .filter(Effect::KIND.eq(EffectKind::Merge));
    let [merge] = &(*storage).all(&scene.scope, query).await.unwrap()[..] else { panic!("not one") };
    assert_eq!(merge.idempotency_key, "merge");
    let approved = Query::all().filter(Effect::APPROVAL_ID.eq(approval_id));
    assert_eq!((*storage).all(&scene.scope, approved).await.unwrap().len(), 2);
}

pub async fn an_input_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let full = RunInput {
        run_id: claim.lease.run,
        user_id: Some(scene.person(&storage, "ada@example.com").await.id),
        text: "é 中 \u{1F980} \r\n".into(),
        attempt_id: Some(claim.lease.attempt),
        delivered_at: Some(time()),
    };
    let empty = RunInput { user_id: None, attempt_id: None, delivered_at: None, ..full.clone() };
    round_trip(&storage, &claim.scope(), [full, empty]).await;
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
        parent_run_id: Some(scene.failed(&storage).await.id),
        priority: -3,
        unique_key: Some("é key".into()),
        provider_session_id: Some("to go on with".into()),
        ..scene.a_run()
    };
    let late = AgentRun { run_at: Some(from_now(LONG)), unique_key: None, ..asked.clone() };
    let late_waiting = storage.submit(&scene.scope, late.clone()).await.unwrap();
    assert_eq!(late_waiting.value, AgentRun { last_seq: 1, ..late });
    assert_eq!(scene.run(&storage, late_waiting.id).await, late_waiting);
    let waiting = storage.submit(&scene.scope, asked.clone()).await.unwrap();
    assert_eq!(waiting.value, AgentRun { last_seq: 1, ..asked.clone() });
    assert_eq!(scene.run(&storage, waiting.id).await, waiting);

    let claim = claim(&storage, waiting.id, LONG).await;
    let instructions = ResolvedInstructions {
        layers: vec![LayerRecord {
            scope: LayerScope::Project,
            source: "custom_instructions 1".into(),
            priority: 100,
            sha256: "ab".into(),
            bytes: Some(9),
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
    storage.append(&claim.lease, Record { progress, ..Record::default() }).await.unwrap();
    let failure =
        Failure { retry_at: Some(time()), ..Failure::new(FailureKind::RateLimited, "Wait a minute.") };
    let tool_calls = vec![ToolTally { tool: "Bash".into(), count: 2, total_duration_ms: 30 }];
    let artifacts = vec![RunArtifact { name: "report".into(), url: Some("https://x".into()), mime: None }];
    let settlement = Settlement {
        summary: Some("It failed.".into()),
        usage: usage(),
        tool_calls: tool_calls.clone(),
        artifacts: artifacts.clone(),
        ..settlement(Outcome::Failed(failure.clone()))
    };
    let ended = storage.settle(&claim.lease, settlement).await.unwrap();
    assert_eq!(scene.run(&storage, waiting.id).await, ended);
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
        last_seq: 3,
        started_at: ended.started_at,
        ended_at: ended.ended_at,
        ..asked
    };
    assert_eq!(ended.value, expected);
}

pub async fn a_run_goes_on_from_one_that_is_there(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let other = scene.another_project(&storage, "OTHER", 1).await;
    let parent = AgentRun { project_id: other.id, ..scene.a_run() };
    let parent = storage.submit(&scene.scope, parent).await.unwrap().id;
    let child = AgentRun { parent_run_id: Some(parent), unique_key: Some("child".into()), ..scene.a_run() };
    let child = storage.submit(&scene.scope, child).await.unwrap();
    let found = (*storage).all(&scene.scope, Query::all().filter(AgentRun::PARENT_RUN_ID.eq(parent))).await;
    assert_eq!(found.unwrap(), std::slice::from_ref(&child));
    let found =
        (*storage).find(&scene.scope, Query::all().filter(AgentRun::UNIQUE_KEY.eq("child".to_owned())));
    assert_eq!(found.await.unwrap(), Some(child.clone()));
    Store::<Project>::delete(&*storage, &scene.scope, &other).await.unwrap();
    let orphan = scene.run(&storage, child.id).await;
    assert_eq!((orphan.parent_run_id, orphan.status), (None, RunStatus::Queued));
    let depth = storage.depth().await.unwrap();
    assert_eq!(depth.ready + depth.leased, 1, "the place of a run that is gone is gone");
    assert_eq!(crate::scene::take_when_there(&storage, 1, LONG).await[0].run, child.id);
}

pub async fn an_effect_is_written_down_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = scene.running(&storage).await;
    let push = || pending(&lost.lease, EffectKind::Push, "push:lime/1");
    let first = storage.insert(&lost.scope(), push()).await.unwrap();
    let again = storage.insert(&lost.scope(), push()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
    let other = scene.running(&storage).await;
    let others = Effect { run_id: other.lease.run, attempt_id: other.lease.attempt, ..push() };
    storage.insert(&other.scope(), others).await.unwrap();
    crate::scene::run_out(&storage, &lost.lease).await;
    let next = claim(&storage, lost.lease.run, LONG).await;
    let mut done = first.clone();
    done.value.attempt_id = next.lease.attempt;
    done.value.status = EffectStatus::Done;
    done.value.ended_at = Some(from_now(Duration::ZERO));
    for scope in [lost.scope(), scene.scope.clone().fenced(forged(&next.lease))] {
        let insert = storage.insert(&scope, Effect { idempotency_key: "late".into(), ..push() }).await;
        let update = storage.update(&scope, &done).await;
        for error in [insert.unwrap_err(), update.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::StaleLease, "{error}");
        }
    }
    let done = storage.update(&next.scope(), &done).await.unwrap();
    let query = Query::all().filter(Effect::RUN_ID.eq(lost.lease.run));
    assert_eq!((*storage).all(&scene.scope, query).await.unwrap(), [done]);
    end(&storage, [next.lease]).await;
    Store::delete(&*storage, &scene.scope, &scene.project).await.unwrap();
    assert_eq!((*storage).all(&scene.scope, Query::<Effect>::all()).await.unwrap(), []);
}

pub async fn the_rules_of_work_hold(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let push = |key: &str| pending(&claim.lease, EffectKind::Push, key);
    let foreign = Scene::new(&storage).await.queued(&storage).await.id;
    for (field, bad) in [
        ("idempotency_key", push(" ")),
        ("idempotency_key", push(&"x".repeat(201))),
        ("idempotency_key", push("a\0b")),
        ("ended_at", Effect { ended_at: Some(time()), ..push("a") }),
        ("ended_at", Effect { status: EffectStatus::Done, ..push("a") }),
        ("run_id", Effect { run_id: foreign, ..push("a") }),
        ("approval_id", Effect { approval_id: Some(Id::new(i64::MAX)), ..push("a") }),
    ] {
        let error = storage.insert(&claim.scope(), bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
    assert_eq!((*storage).all(&scene.scope, Query::<Effect>::all()).await.unwrap(), []);
    let said = RunInput {
        run_id: claim.lease.run,
        user_id: Some(Id::new(i64::MAX)),
        text: "Hello".into(),
        attempt_id: None,
        delivered_at: None,
    };
    for (field, bad) in [
        ("user_id", said.clone()),
        ("run_id", RunInput { run_id: foreign, user_id: None, ..said.clone() }),
        ("text", RunInput { text: " ".into(), user_id: None, ..said }),
    ] {
        let error = storage.insert(&claim.scope(), bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(field), "{field}: {error}");
    }
    assert_eq!(Lookup::<RunInput>::list(&*storage, &scene.scope, &Query::all()).await.unwrap().items, []);
}
