//! Behaviour of [`Approvals::ask`](lime_core::ports::Approvals::ask): questions to people, and what becomes of them.

use futures_util::future::join_all;
use lime_core::governance::{ActionScope, Approval, ApprovalStatus, Decision, payload_hash};
use lime_core::ports::{Handback, Question, Request};
use lime_core::runs::{AgentEvent, RunStatus};
use lime_core::{ErrorKind, LookupExt, Query};
use serde_json::json;

use super::approvals::{approve, now, status, told, with};
use crate::scene::{
    LONG, Scene, Subject, begin, claim, failed, forged, question, run_out, settlement, succeeded,
    take_when_there,
};

/// `ask`: it is stored and open, the run waits, and its log tells of the question and then of the state; the same
/// question again, by its scope, action and the payload's hash, is the one that is there.
pub async fn a_question_is_asked_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let payload = json!({ "command": "rm -r target", "n": [1, { "b": 2, "a": 1 }] });
    let asked = with(payload);
    let approval = storage.ask(&lease, asked.clone()).await.unwrap();
    let expected = Approval {
        project_id: scene.project.id,
        run_id: lease.run,
        attempt_id: Some(lease.attempt),
        scope: asked.scope.clone(),
        action: asked.action.clone(),
        intent_summary: asked.intent_summary.clone(),
        payload: asked.payload.clone(),
        payload_hash: payload_hash(&asked.payload),
        status: ApprovalStatus::Pending,
        approvers: vec![],
        expires_at: approval.expires_at,
        on_expiry: Decision::Deny,
        decided_at: None,
        decided_by: None,
        note: None,
    };
    assert_eq!(approval.value, expected);
    let waits = (approval.expires_at - approval.created_at).num_seconds();
    assert!((590..=610).contains(&waits), "it waits for {waits} s");
    assert_eq!(now(&storage, &scene, approval.id).await, approval);
    let run = scene.run(&storage, lease.run).await;
    assert_eq!((run.status, run.last_seq), (RunStatus::WaitingApproval, 4));
    let events = scene.events(&storage, lease.run).await;
    let told = AgentEvent::Approval {
        approval_id: Some(approval.id),
        scope: asked.scope.clone(),
        action: asked.action.clone(),
        call_id: asked.call_id.clone(),
        status: ApprovalStatus::Pending,
        summary: asked.intent_summary.clone(),
        payload: Some(asked.payload.clone()),
    };
    assert_eq!(events[2..], [told, AgentEvent::Status { status: RunStatus::WaitingApproval, detail: None }]);
    let same = Question {
        payload: json!({ "n": [1, { "a": 1, "b": 2 }], "command": "rm -r target" }),
        intent_summary: "In other words".into(),
        call_id: None,
        expires_after_s: 1,
        ..asked
    };
    assert_eq!(storage.ask(&lease, same).await.unwrap(), approval);
    assert_eq!(storage.answer(&lease, approval.id).await.unwrap(), approval);
    assert_eq!(scene.log(&storage, lease.run).await.len(), 4, "nobody is asked anew");
    assert_eq!(scene.run(&storage, lease.run).await, run);
    storage.heartbeat(&lease, LONG).await.unwrap();
    storage.append(&lease, vec![AgentEvent::system("waiting")].into()).await.unwrap();
}

/// `ask`: the same question by many at once is one.
pub async fn concurrent_questions_are_one(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let tries = (0..8).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move { storage.ask(&lease, question("Bash")).await.unwrap().id })
    });
    let ids: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(told(&storage, &scene, &lease).await, ["Bash pending", "waiting_approval"]);
}

/// `ask`: an open question about the same action with another payload becomes void; others stay.
pub async fn another_payload_voids_the_question(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let other_run = scene.running(&storage).await.lease;
    let first = storage.ask(&lease, with(json!({ "command": "ls" }))).await.unwrap();
    let other_action = storage.ask(&lease, question("Write")).await.unwrap();
    let other_scope = Question { scope: ActionScope::repo_push(), ..question("Bash") };
    let other_scope = storage.ask(&lease, other_scope).await.unwrap();
    let others = storage.ask(&other_run, question("Bash")).await.unwrap();
    let answered = approve(&storage, &scene, storage.ask(&lease, question("Read")).await.unwrap().id).await;
    let second = storage.ask(&lease, with(json!({ "command": "rm -r /" }))).await.unwrap();
    let third = storage.ask(&lease, Question { action: "Read".into(), ..with(json!({})) }).await.unwrap();
    assert_eq!(now(&storage, &scene, first.id).await.status, ApprovalStatus::Void);
    for open in [&other_action, &other_scope, &others, &answered, &second, &third] {
        assert_eq!(now(&storage, &scene, open.id).await, *open);
    }
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::WaitingApproval);
    let told = told(&storage, &scene, &lease).await;
    assert_eq!(told.iter().filter(|word| *word == "waiting_approval").count(), 1, "{told:?}");
    let bash: Vec<_> = told.iter().filter(|word| word.starts_with("Bash")).collect();
    assert_eq!(bash, ["Bash pending", "Bash pending", "Bash void", "Bash pending"]);
}

/// `ask`: a question that became void is asked anew, since nobody has answered it.
pub async fn a_void_question_is_asked_anew(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let (one, two) = (json!({ "command": "ls" }), json!({ "command": "rm" }));
    let first = storage.ask(&lease, with(one.clone())).await.unwrap();
    let second = storage.ask(&lease, with(two)).await.unwrap();
    let again = storage.ask(&lease, with(one)).await.unwrap();
    assert_eq!((again.status, &again.payload_hash), (ApprovalStatus::Pending, &first.payload_hash));
    assert_eq!(now(&storage, &scene, second.id).await.status, ApprovalStatus::Void);
    assert_eq!(approve(&storage, &scene, again.id).await.status, ApprovalStatus::Approved);
    storage.answer(&lease, again.id).await.unwrap();
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::Running);
}

/// `ask`: the parameters of a call may hold NUL, which not every database can store; the question is asked all the same.
pub async fn a_question_may_hold_nul(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let asked = with(json!({ "command": "printf 'a\0b'", "\0": ["\0"] }));
    let open = storage.ask(&lease, asked.clone()).await.unwrap();
    assert_eq!(storage.ask(&lease, asked).await.unwrap(), open);
    approve(&storage, &scene, open.id).await;
    assert_eq!(storage.answer(&lease, open.id).await.unwrap().status, ApprovalStatus::Approved);
}

/// `ask`: a question that breaks a rule of an approval is `Invalid`, and voids nothing.
pub async fn a_question_has_rules(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    let other = || with(json!({ "command": "rm" }));
    for (field, bad) in [
        ("action", Question { action: " ".into(), ..other() }),
        ("action", Question { action: "x".repeat(201), ..other() }),
        ("intent_summary", Question { intent_summary: String::new(), ..other() }),
        ("intent_summary", Question { intent_summary: "x".repeat(1_001), ..other() }),
        ("intent_summary", Question { intent_summary: "a\0b".into(), ..other() }),
    ] {
        let error = storage.ask(&lease, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
    assert_eq!((*storage).all(&scene.scope, Query::<Approval>::all()).await.unwrap(), [open]);
    assert_eq!(scene.log(&storage, lease.run).await.len(), 4);
}

/// A question outlives the worker that asked it: the next one finds it open, and asks nobody anew.
pub async fn a_question_survives_a_lost_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = scene.running(&storage).await.lease;
    let open = storage.ask(&lost, question("Bash")).await.unwrap();
    run_out(&storage, &lost).await;
    let lease = claim(&storage, lost.run, LONG).await.lease;
    assert_eq!(now(&storage, &scene, open.id).await, open);
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::Running);
    assert_eq!(storage.ask(&lease, question("Bash")).await.unwrap(), open);
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::WaitingApproval);
    approve(&storage, &scene, open.id).await;
    assert_eq!(storage.answer(&lease, open.id).await.unwrap().status, ApprovalStatus::Approved);
    let expected = [
        "Bash pending",
        "waiting_approval",
        "queued",
        "running",
        "waiting_approval",
        "Bash approved",
        "running",
    ];
    assert_eq!(told(&storage, &scene, &lease).await, expected);
}

/// `decide`: a question can be answered while nobody works the run; whoever works it next finds the answer.
pub async fn an_answer_waits_for_the_next_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.running(&storage).await.lease;
    let open = storage.ask(&first, question("Bash")).await.unwrap();
    let run = storage.hand_back(&first, Handback::released()).await.unwrap();
    assert_eq!(run.status, RunStatus::Queued);
    let decided = approve(&storage, &scene, open.id).await;
    assert_eq!(scene.run(&storage, run.id).await.status, RunStatus::Queued);
    let lease = claim(&storage, run.id, LONG).await.lease;
    assert_eq!(storage.ask(&lease, question("Bash")).await.unwrap(), decided);
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::Running);
    let expected = ["Bash pending", "waiting_approval", "queued", "Bash approved", "running"];
    assert_eq!(told(&storage, &scene, &lease).await, expected);
}

/// A run that waits for a person can be paused; its question stays open.
pub async fn a_question_survives_a_pause(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.running(&storage).await.lease;
    let open = storage.ask(&first, question("Bash")).await.unwrap();
    let asked = storage.request(&scene.scope, first.run, Request::Pause).await.unwrap();
    assert_eq!(asked.status, RunStatus::WaitingApproval);
    assert!(storage.heartbeat(&first, LONG).await.unwrap().pause);
    let paused = storage.hand_back(&first, Handback::released()).await.unwrap();
    assert_eq!(paused.status, RunStatus::Paused);
    assert_eq!(now(&storage, &scene, open.id).await, open);
    storage.request(&scene.scope, first.run, Request::Resume).await.unwrap();
    let taken = take_when_there(&storage, 1, LONG).await;
    approve(&storage, &scene, open.id).await;
    let lease = begin(&storage, &taken).await[0].lease;
    assert_eq!(storage.answer(&lease, open.id).await.unwrap().status, ApprovalStatus::Approved);
}

/// `settle`, `request`: with the end of a run its open questions become void; those that are answered stay.
pub async fn the_end_voids_what_is_open(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for settled in [Some(failed()), Some(succeeded()), None] {
        let lease = scene.running(&storage).await.lease;
        let answered = storage.ask(&lease, question("Read")).await.unwrap().id;
        approve(&storage, &scene, answered).await;
        let open = [
            storage.ask(&lease, question("Bash")).await.unwrap().id,
            storage.ask(&lease, question("Write")).await.unwrap().id,
        ];
        if let Some(outcome) = &settled {
            storage.settle(&lease, settlement(outcome.clone())).await.unwrap();
        } else {
            storage.hand_back(&lease, Handback::released()).await.unwrap();
            storage.request(&scene.scope, lease.run, Request::Cancel).await.unwrap();
        }
        for id in open {
            assert_eq!(now(&storage, &scene, id).await.status, ApprovalStatus::Void, "settled: {settled:?}");
            let error = storage.decide(&scene.scope, id, Decision::Approve, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        }
        assert_eq!(now(&storage, &scene, answered).await.status, ApprovalStatus::Approved);
        assert!(scene.log(&storage, lease.run).await.last().unwrap().event.is_final());
    }
}

/// `ask`, `answer`: fail with `StaleLease` once the lease is lost or the run has ended; `decide` under such a lease, too.
pub async fn a_stale_worker_asks_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ended = scene.running(&storage).await.lease;
    storage.settle(&ended, settlement(failed())).await.unwrap();
    let lost = scene.running(&storage).await.lease;
    let open = storage.ask(&lost, question("Bash")).await.unwrap();
    run_out(&storage, &lost).await;
    for lease in [ended, lost, forged(&lost)] {
        let before = scene.log(&storage, lease.run).await;
        let fenced = scene.scope.clone().fenced(lease);
        let ask = storage.ask(&lease, question("Write")).await.unwrap_err();
        let answer = storage.answer(&lease, open.id).await.unwrap_err();
        let decide = storage.decide(&fenced, open.id, Decision::Approve, None).await.unwrap_err();
        for error in [ask, answer, decide] {
            assert_eq!(error.kind(), ErrorKind::StaleLease, "{error}");
        }
        assert_eq!(scene.log(&storage, lease.run).await, before);
    }
    assert_eq!((*storage).all(&scene.scope, Query::<Approval>::all()).await.unwrap(), [open]);
}
