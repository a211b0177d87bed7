//! Behaviour of [`EventLog::append`](lime_core::ports::EventLog::append): what a record says beside its events.

use lime_core::agents::ResolvedInstructions;
use lime_core::ports::{Progress, Record, Settlement};
use lime_core::runs::{
    AgentEvent, AgentRun, Failure, FailureKind, Outcome, RunStatus, RunStep, StepKind, StepStatus, ToolCall,
    ToolCallStatus, Usage,
};
use lime_core::{ErrorKind, Id, LookupExt, Query, Stored};
use serde_json::json;

use crate::scene::{Scene, Subject, claim, forged, settlement};

fn step(run: Id<AgentRun>, number: i32, key: &str) -> RunStep {
    RunStep {
        run_id: run,
        step_number: number,
        step_key: key.into(),
        kind: StepKind::Turn,
        status: StepStatus::Running,
        model_id: None,
        usage: None,
        result: None,
        error: None,
        completed_at: None,
    }
}

fn call(scene: &Scene, run: Id<AgentRun>, id: &str) -> ToolCall {
    ToolCall {
        agent_run_id: run,
        project_id: scene.project.id,
        ticket_id: None,
        agent_id: None,
        call_id: id.into(),
        tool: "Bash".into(),
        status: ToolCallStatus::Running,
        input: json!({ "command": "ls" }),
        output: None,
        error: None,
        duration_ms: None,
        turn_number: 1,
    }
}

async fn steps(storage: &Subject, scene: &Scene, run: Id<AgentRun>) -> Vec<Stored<RunStep>> {
    (**storage).all(&scene.scope, Query::all().filter(RunStep::RUN_ID.eq(run))).await.unwrap()
}

async fn calls(storage: &Subject, scene: &Scene, run: Id<AgentRun>) -> Vec<Stored<ToolCall>> {
    (**storage).all(&scene.scope, Query::all().filter(ToolCall::AGENT_RUN_ID.eq(run))).await.unwrap()
}

fn values<E: Clone>(stored: &[Stored<E>]) -> Vec<E> {
    stored.iter().map(|stored| stored.value.clone()).collect()
}

/// `append`: events, steps, tool calls and progress are kept at once.
pub async fn a_record_keeps_steps_and_tool_calls(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let run = lease.run;
    let record = Record {
        events: vec![AgentEvent::system("one"), AgentEvent::system("two")],
        step: Some("turn:1".into()),
        steps: vec![step(run, 1, "prepare"), step(run, 2, "turn:1")],
        tool_calls: vec![call(&scene, run, "a"), call(&scene, run, "b"), call(&scene, run, "c")],
        progress: Progress { model: Some("m".into()), ..Progress::default() },
    };
    assert_eq!(storage.append(&lease, record.clone()).await.unwrap().len(), 2);
    assert_eq!(values(&steps(&storage, &scene, run).await), record.steps);
    assert_eq!(values(&calls(&storage, &scene, run).await), record.tool_calls);
    assert_eq!(scene.run(&storage, run).await.model.as_deref(), Some("m"));
    assert_eq!(scene.events(&storage, run).await[2..], record.events);
    let silent = Record { steps: vec![step(run, 3, "commit")], ..Record::default() };
    assert_eq!(storage.append(&lease, silent).await.unwrap(), []);
    assert_eq!(steps(&storage, &scene, run).await.len(), 3);
    assert_eq!(scene.log(&storage, run).await.len(), 4);
}

/// `append`: a step or tool call of the same key replaces what was known of it, in its own run only.
pub async fn a_key_that_is_known_is_replaced(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (lease, other) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    for lease in [lease, other] {
        let record = Record {
            steps: vec![step(lease.run, 1, "turn:1")],
            tool_calls: vec![call(&scene, lease.run, "a")],
            ..Record::default()
        };
        storage.append(&lease, record).await.unwrap();
    }
    let before = (steps(&storage, &scene, lease.run).await, calls(&storage, &scene, lease.run).await);
    let done = RunStep {
        status: StepStatus::Completed,
        model_id: Some("m".into()),
        usage: Some(Usage { turns: 1, ..Usage::default() }),
        result: Some(json!({ "commit": "abc" })),
        ..step(lease.run, 1, "turn:1")
    };
    let complete = ToolCall {
        status: ToolCallStatus::Complete,
        output: Some("README.md".into()),
        duration_ms: Some(3),
        ..call(&scene, lease.run, "a")
    };
    let again = Record {
        steps: vec![done.clone(), step(lease.run, 2, "turn:2")],
        tool_calls: vec![call(&scene, lease.run, "b"), complete.clone()],
        ..Record::default()
    };
    storage.append(&lease, again.clone()).await.unwrap();
    storage.append(&lease, again).await.unwrap();
    let after = (steps(&storage, &scene, lease.run).await, calls(&storage, &scene, lease.run).await);
    assert_eq!(values(&after.0), [done, step(lease.run, 2, "turn:2")]);
    assert_eq!(values(&after.1), [complete, call(&scene, lease.run, "b")]);
    assert_eq!((after.0[0].id, after.1[0].id), (before.0[0].id, before.1[0].id), "it is the same row");
    assert!(after.0[0].version > before.0[0].version && after.1[0].version > before.1[0].version);
    assert_eq!(values(&steps(&storage, &scene, other.run).await), [step(other.run, 1, "turn:1")]);
    assert_eq!(values(&calls(&storage, &scene, other.run).await), [call(&scene, other.run, "a")]);
}

/// `append`: where a record tells of the same key more than once, the last counts.
pub async fn the_last_of_a_key_counts(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let run = lease.run;
    let done = RunStep { status: StepStatus::Completed, ..step(run, 1, "turn:1") };
    let denied = ToolCall { status: ToolCallStatus::Denied, ..call(&scene, run, "a") };
    let record = Record {
        steps: vec![step(run, 1, "turn:1"), done.clone()],
        tool_calls: vec![call(&scene, run, "a"), denied.clone()],
        ..Record::default()
    };
    storage.append(&lease, record).await.unwrap();
    assert_eq!(values(&steps(&storage, &scene, run).await), [done]);
    assert_eq!(values(&calls(&storage, &scene, run).await), [denied]);
}

/// `append`: all or none: where one thing breaks a rule, nothing of the record is kept.
pub async fn a_record_is_kept_whole_or_not_at_all(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let run = lease.run;
    let good = Record {
        events: vec![AgentEvent::system("no")],
        steps: vec![step(run, 1, "turn:1")],
        tool_calls: vec![call(&scene, run, "a")],
        progress: Progress { model: Some("m".into()), ..Progress::default() },
        ..Record::default()
    };
    let mut nameless = good.clone();
    nameless.steps.push(step(run, 2, " "));
    let mut endless = good.clone();
    endless.tool_calls.push(call(&scene, run, &"x".repeat(201)));
    let mut nowhere = good.clone();
    nowhere.tool_calls.push(ToolCall { ticket_id: Some(Id::new(i64::MAX)), ..call(&scene, run, "b") });
    let before = scene.run(&storage, run).await;
    for bad in [nameless, endless, nowhere] {
        let error = storage.append(&lease, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(steps(&storage, &scene, run).await, []);
    assert_eq!(calls(&storage, &scene, run).await, []);
    assert_eq!(scene.run(&storage, run).await, before);
    assert_eq!(scene.log(&storage, run).await.len(), 2);
    assert_eq!(storage.append(&lease, good).await.unwrap()[0].seq, 3, "a position is lost");
}

/// `append`: an agent's words may hold NUL, which not every database can store; a record is kept all the same.
pub async fn what_an_agent_said_may_hold_nul(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let odd = ToolCall {
        input: json!({ "a\0b": ["\0", { "c": "d\0" }] }),
        output: Some("PNG\0\0".into()),
        error: Some("\0".into()),
        ..call(&scene, lease.run, "a")
    };
    let failed = RunStep {
        result: Some(json!({ "said": "\0" })),
        error: Some("at\0".into()),
        ..step(lease.run, 1, "turn:1")
    };
    let progress = Progress { provider_session_id: Some("s\0".into()), ..Progress::default() };
    let record = Record {
        steps: vec![failed],
        tool_calls: vec![odd],
        progress,
        ..Record::from(vec![AgentEvent::system("\0")])
    };
    assert_eq!(storage.append(&lease, record).await.unwrap().len(), 1);
    let output = calls(&storage, &scene, lease.run).await[0].output.clone().unwrap();
    assert_eq!(output.replace('\0', "\u{FFFD}"), "PNG\u{FFFD}\u{FFFD}");
    let end = Settlement {
        summary: Some("\0".into()),
        ..settlement(Outcome::Failed(Failure::new(FailureKind::Protocol, "It said \0.")))
    };
    assert_eq!(storage.settle(&lease, end).await.unwrap().status, RunStatus::Failed);
}

/// `append`: a step or a tool call of another run is refused, whoever holds that.
pub async fn what_belongs_to_another_run_is_refused(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (lease, other) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    let theirs = Record { steps: vec![step(other.run, 1, "turn:1")], ..Record::default() };
    storage.append(&other, theirs.clone()).await.unwrap();
    let events = vec![AgentEvent::system("mine")];
    let stolen = RunStep { status: StepStatus::Failed, ..step(other.run, 1, "turn:1") };
    for bad in [
        Record { steps: vec![stolen], events: events.clone(), ..Record::default() },
        Record { tool_calls: vec![call(&scene, other.run, "a")], events, ..Record::default() },
    ] {
        let error = storage.append(&lease, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(values(&steps(&storage, &scene, other.run).await), theirs.steps);
    assert_eq!(calls(&storage, &scene, other.run).await, []);
    assert_eq!(scene.log(&storage, lease.run).await.len(), 2);
}

/// `Record::step`: one of the run, known before or given in the record; any other is refused.
pub async fn events_belong_to_a_step_that_is_known(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (lease, other) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    let theirs = Record { steps: vec![step(other.run, 1, "theirs")], ..Record::default() };
    storage.append(&other, theirs).await.unwrap();
    let of = |key: &str| Record {
        events: vec![AgentEvent::system("hi")],
        step: Some(key.into()),
        ..Record::default()
    };
    for unknown in ["turn:1", "theirs"] {
        let error = storage.append(&lease, of(unknown)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("step"), "{error}");
    }
    assert_eq!(scene.log(&storage, lease.run).await.len(), 2);
    let given = Record { steps: vec![step(lease.run, 1, "turn:1")], ..of("turn:1") };
    assert_eq!(storage.append(&lease, given).await.unwrap()[0].seq, 3);
    assert_eq!(storage.append(&lease, of("turn:1")).await.unwrap()[0].seq, 4);
}

/// `append`: under a lease that does not hold, nothing of the record is kept.
pub async fn a_stale_record_keeps_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = scene.lost(&storage).await.lease;
    let held = claim(&storage, lost.run, crate::scene::LONG).await.lease;
    let first = Record { steps: vec![step(lost.run, 1, "turn:1")], ..Record::default() };
    storage.append(&held, first.clone()).await.unwrap();
    let late = Record {
        events: vec![AgentEvent::system("late")],
        steps: vec![RunStep { status: StepStatus::Failed, ..step(lost.run, 1, "turn:1") }],
        tool_calls: vec![call(&scene, lost.run, "late")],
        progress: Progress { branch: Some("late".into()), ..Progress::default() },
        ..Record::default()
    };
    let before = scene.run(&storage, lost.run).await;
    for lease in [lost, forged(&held)] {
        let only_progress = Record { progress: late.progress.clone(), ..Record::default() };
        let only_steps = Record { steps: late.steps.clone(), ..Record::default() };
        for record in [late.clone(), only_progress, only_steps] {
            let error = storage.append(&lease, record).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StaleLease, "{error}");
        }
    }
    assert_eq!(scene.run(&storage, lost.run).await, before);
    assert_eq!(values(&steps(&storage, &scene, lost.run).await), first.steps);
    assert_eq!(calls(&storage, &scene, lost.run).await, []);
}

/// `Progress`: `None` leaves a field as it is.
pub async fn progress_changes_only_what_is_given(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let tell = async |progress: Progress| {
        let record = Record { progress, ..Record::default() };
        assert_eq!(storage.append(&lease, record).await.unwrap(), []);
        scene.run(&storage, lease.run).await.value
    };
    let before = scene.run(&storage, lease.run).await.value;
    let progress =
        Progress { provider_session_id: Some("s".into()), model: Some("m".into()), ..Progress::default() };
    tell(progress).await;
    let instructions = ResolvedInstructions { layers: vec![], sha256: "cd".into(), text: "Be brief.".into() };
    let progress = Progress { instructions: Some(instructions.clone()), ..Progress::default() };
    tell(progress).await;
    let run = tell(Progress { branch: Some("b".into()), ..Progress::default() }).await;
    let expected = AgentRun {
        provider_session_id: Some("s".into()),
        model: Some("m".into()),
        instructions: Some(instructions),
        branch: Some("b".into()),
        ..before
    };
    assert_eq!(run, expected);
    let run = tell(Progress { model: Some("m2".into()), ..Progress::default() }).await;
    assert_eq!(run, AgentRun { model: Some("m2".into()), ..expected });
}
