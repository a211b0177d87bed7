//! Behaviour of [`Approvals`](lime_core::ports::Approvals): what people answer, and how the run learns of it.

use std::time::Duration;

use futures_util::future::join_all;
use lime_core::governance::{Approval, ApprovalStatus, Decision};
use lime_core::identity::User;
use lime_core::ports::Question;
use lime_core::runs::{AgentEvent, Lease, RunStatus};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Query, Scope, Store, Stored};
use serde_json::{Value as Json, json};

use crate::scene::{Scene, Subject, eventually, question};

/// The question about a call of `Bash` with these parameters.
pub(super) fn with(payload: Json) -> Question {
    Question { payload, ..question("Bash") }
}

/// What the log of the run tells of questions and states, after its first two events.
pub(super) async fn told(storage: &Subject, scene: &Scene, lease: &Lease) -> Vec<String> {
    let word = |event: AgentEvent| match event {
        AgentEvent::Approval { action, status, .. } => Some(format!("{action} {status}")),
        AgentEvent::Status { status, .. } => Some(status.to_string()),
        _ => None,
    };
    scene.events(storage, lease.run).await.into_iter().skip(2).filter_map(word).collect()
}

pub(super) async fn status(storage: &Subject, scene: &Scene, lease: &Lease) -> RunStatus {
    scene.run(storage, lease.run).await.status
}

pub(super) async fn now(storage: &Subject, scene: &Scene, approval: Id<Approval>) -> Stored<Approval> {
    Lookup::get(&**storage, &scene.scope, approval).await.unwrap()
}

pub(super) async fn approve(storage: &Subject, scene: &Scene, approval: Id<Approval>) -> Stored<Approval> {
    storage.decide(&scene.scope, approval, Decision::Approve, None).await.unwrap()
}

/// `decide`, `answer`: who answered, when and with which words is kept and told; then the run is running again.
pub async fn a_person_approves(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let person = scene.person(&storage, "ada@example.com").await.id;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    let by_ada = Scope::authenticated(scene.scope.tenant(), person);
    let note = Some("But only once. é".to_owned());
    let decided = storage.decide(&by_ada, open.id, Decision::Approve, note.clone()).await.unwrap();
    let expected = Approval {
        status: ApprovalStatus::Approved,
        decided_at: decided.decided_at,
        decided_by: Some(person),
        note,
        ..open.value.clone()
    };
    assert_eq!(decided.value, expected);
    assert!(decided.decided_at >= Some(open.created_at) && decided.version > open.version);
    assert_eq!(now(&storage, &scene, open.id).await, decided);
    let events = scene.events(&storage, lease.run).await;
    let told = AgentEvent::Approval {
        approval_id: Some(open.id),
        scope: open.scope.clone(),
        action: "Bash".into(),
        call_id: None,
        status: ApprovalStatus::Approved,
        summary: "But only once. é".into(),
        payload: None,
    };
    assert_eq!(events[4..], [told]);
    assert_eq!(
        status(&storage, &scene, &lease).await,
        RunStatus::WaitingApproval,
        "the worker does not know"
    );
    assert_eq!(storage.answer(&lease, open.id).await.unwrap(), decided);
    let running = AgentEvent::Status { status: RunStatus::Running, detail: None };
    assert_eq!(scene.events(&storage, lease.run).await[5..], [running]);
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::Running);
    assert_eq!(storage.answer(&lease, open.id).await.unwrap(), decided);
    assert_eq!(storage.ask(&lease, question("Bash")).await.unwrap(), decided, "it is not asked again");
    assert_eq!(scene.log(&storage, lease.run).await.len(), 6);
}

/// `decide`, `answer`: a denial is an answer like any other; one without words tells what was asked.
pub async fn a_person_denies(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    let decided = storage.decide(&scene.scope, open.id, Decision::Deny, None).await.unwrap();
    assert_eq!((decided.status, decided.decided_by), (ApprovalStatus::Denied, None));
    assert_eq!(storage.answer(&lease, open.id).await.unwrap().status, ApprovalStatus::Denied);
    let expected = ["Bash pending", "waiting_approval", "Bash denied", "running"];
    assert_eq!(told(&storage, &scene, &lease).await, expected);
    let events = scene.events(&storage, lease.run).await;
    assert!(matches!(&events[4], AgentEvent::Approval { summary, .. } if *summary == open.intent_summary));
}

/// `decide`: of many answers at once just one counts, and the others see a `Conflict`.
pub async fn one_of_many_concurrent_answers_counts(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    let tries = (0..8).map(|n| {
        let (storage, scope) = (storage.clone(), scene.scope.clone());
        let decision = if n % 2 == 0 { Decision::Approve } else { Decision::Deny };
        tokio::spawn(async move { storage.decide(&scope, open.id, decision, Some(n.to_string())).await })
    });
    let results: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(now(&storage, &scene, open.id).await, *winners[0]);
    assert_eq!(scene.log(&storage, lease.run).await.len(), 5);
}

/// `decide`: fails with `Conflict` for a question that is answered or void, and changes nothing.
pub async fn a_question_that_is_closed_takes_no_answer(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let void = storage.ask(&lease, with(json!(1))).await.unwrap().id;
    let answered = storage.ask(&lease, with(json!(2))).await.unwrap().id;
    approve(&storage, &scene, answered).await;
    for closed in [void, answered] {
        let before = now(&storage, &scene, closed).await;
        let error = storage.decide(&scene.scope, closed, Decision::Deny, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(now(&storage, &scene, closed).await, before);
    }
}

/// `answer`, `decide`: a question whose time is up gets its default answer, and takes no other.
pub async fn nobody_answers_in_time(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (denied, allowed) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    let mut asked = Vec::new();
    for (lease, on_expiry) in [(denied, Decision::Deny), (allowed, Decision::Approve)] {
        let brief = Question { expires_after_s: 1, on_expiry, ..question("Bash") };
        asked.push((lease, storage.ask(&lease, brief).await.unwrap()));
    }
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let expected = [(ApprovalStatus::Expired, "Bash expired"), (ApprovalStatus::Defaulted, "Bash defaulted")];
    for ((lease, open), (status, word)) in asked.into_iter().zip(expected) {
        let error = storage.decide(&scene.scope, open.id, Decision::Approve, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let answer = storage.answer(&lease, open.id).await.unwrap();
        assert_eq!((answer.status, answer.decided_by), (status, None));
        assert_eq!(now(&storage, &scene, open.id).await, answer);
        assert_eq!(
            told(&storage, &scene, &lease).await,
            ["Bash pending", "waiting_approval", word, "running"]
        );
        assert_eq!(storage.ask(&lease, question("Bash")).await.unwrap(), answer, "it is not asked for ever");
        let error = storage.decide(&scene.scope, open.id, Decision::Approve, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
}

/// `decide`: fails with `PermissionDenied` for a person who is not one of the approvers; the software may answer.
pub async fn only_approvers_answer(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let by = |person: &Stored<User>| Scope::authenticated(scene.scope.tenant(), person.id);
    let named = scene.person(&storage, "named@example.com").await;
    let also = scene.person(&storage, "also@example.com").await;
    let other = scene.person(&storage, "other@example.com").await;
    let lease = scene.running(&storage).await.lease;
    let ask = async |action: &str, approvers: &[Id<User>]| {
        let question = Question { approvers: approvers.to_vec(), ..question(action) };
        storage.ask(&lease, question).await.unwrap().id
    };
    let approvers = [named.id, also.id];
    let open = ask("Bash", &approvers).await;
    assert_eq!(now(&storage, &scene, open).await.approvers, approvers);
    let error = storage.decide(&by(&other), open, Decision::Approve, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(now(&storage, &scene, open).await.status, ApprovalStatus::Pending);
    let decided = storage.decide(&by(&also), open, Decision::Approve, None).await.unwrap();
    assert_eq!(decided.decided_by, Some(also.id));
    approve(&storage, &scene, ask("Write", &approvers).await).await;
    let anybody = ask("Read", &[]).await;
    let decided = storage.decide(&by(&other), anybody, Decision::Deny, None).await.unwrap();
    assert_eq!(decided.decided_by, Some(other.id));
}

/// `decide`: fails with `Invalid` for a note of more than 2,000 characters; the question stays open.
pub async fn a_note_has_its_limit(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    for bad in ["é".repeat(2_001), "a\0b".into()] {
        let error = storage.decide(&scene.scope, open.id, Decision::Approve, Some(bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("note"), "{error}");
    }
    assert_eq!(now(&storage, &scene, open.id).await, open);
    let longest = Some("é".repeat(2_000));
    let decided = storage.decide(&scene.scope, open.id, Decision::Approve, longest.clone()).await.unwrap();
    assert_eq!(decided.note, longest);
}

/// `decide`, `answer`: a missing question, another tenant's and another run's are `NotFound`.
pub async fn missing_and_foreign_questions_look_the_same(storage: Subject) {
    let (scene, stranger) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let (lease, other) = (scene.running(&storage).await.lease, scene.running(&storage).await.lease);
    let foreign = stranger.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap();
    for id in [open.id, Id::new(i64::MAX)] {
        let decide = storage.decide(&stranger.scope, id, Decision::Approve, None).await.unwrap_err();
        let answer = storage.answer(&foreign, id).await.unwrap_err();
        let other = storage.answer(&other, id).await.unwrap_err();
        let get = Lookup::<Approval>::get(&*storage, &stranger.scope, id).await.unwrap_err();
        for error in [decide, answer, other, get] {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
    let theirs = (*storage).all(&stranger.scope, Query::<Approval>::all()).await.unwrap();
    assert_eq!(theirs, []);
    let query = || Query::all().filter(Approval::STATUS.eq(ApprovalStatus::Pending));
    let ours = (*storage).all(&scene.scope, query().filter(Approval::RUN_ID.eq(lease.run))).await.unwrap();
    assert_eq!(ours, [open]);
}

/// `answer`: the run is running again once none of its questions is open, and not before.
pub async fn the_run_goes_on_when_nothing_is_open(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let first = storage.ask(&lease, question("Bash")).await.unwrap().id;
    let second = storage.ask(&lease, question("Write")).await.unwrap().id;
    approve(&storage, &scene, second).await;
    for id in [second, first] {
        storage.answer(&lease, id).await.unwrap();
        assert_eq!(status(&storage, &scene, &lease).await, RunStatus::WaitingApproval);
    }
    approve(&storage, &scene, first).await;
    storage.answer(&lease, second).await.unwrap();
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::Running);
    let third = storage.ask(&lease, question("Read")).await.unwrap().id;
    assert_eq!(status(&storage, &scene, &lease).await, RunStatus::WaitingApproval);
    approve(&storage, &scene, third).await;
    storage.answer(&lease, third).await.unwrap();
    let expected = [
        "Bash pending",
        "waiting_approval",
        "Write pending",
        "Write approved",
        "Bash approved",
        "running",
        "Read pending",
        "waiting_approval",
        "Read approved",
        "running",
    ];
    assert_eq!(told(&storage, &scene, &lease).await, expected);
}

/// `signalled`: the worker of a run is woken when a question is answered.
pub async fn an_answer_wakes_the_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let waiting = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.signalled(&lease).await })
    };
    let mut number = 0;
    // What was answered before it began to wait may have been missed.
    eventually("an answer wakes the worker", async || {
        number += 1;
        let open = storage.ask(&lease, question(&format!("number {number}"))).await.unwrap();
        approve(&storage, &scene, open.id).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting.is_finished().then_some(())
    })
    .await;
    waiting.await.unwrap();
}

/// A person who has answered is not deleted while the answer is kept.
pub async fn a_person_with_answers_stays(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let person = scene.person(&storage, "ada@example.com").await;
    let lease = scene.running(&storage).await.lease;
    let open = storage.ask(&lease, question("Bash")).await.unwrap().id;
    let by_ada = Scope::authenticated(scene.scope.tenant(), person.id);
    storage.decide(&by_ada, open, Decision::Approve, None).await.unwrap();
    let error = Store::delete(&*storage, &scene.scope, &person).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(now(&storage, &scene, open).await.decided_by, Some(person.id));
    let project = Lookup::get(&*storage, &scene.scope, scene.project.id).await.unwrap();
    Store::delete(&*storage, &scene.scope, &project).await.unwrap();
    assert_eq!((*storage).all(&scene.scope, Query::<Approval>::all()).await.unwrap(), []);
    Store::delete(&*storage, &scene.scope, &person).await.unwrap();
}
