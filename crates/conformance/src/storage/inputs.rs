//! Behaviour of [`Queue::say`](lime_core::ports::Queue::say): what people say to the agent of a run.

use std::time::Duration;

use lime_core::ports::{Handback, Request};
use lime_core::runs::{AgentRun, Lease, Outcome, RunInput};
use lime_core::{ErrorKind, Id, LookupExt, Query, Scope};

use crate::scene::{
    LONG, Scene, Subject, claim, eventually, failed, from_now, settlement, succeeded, take_when_there,
};

async fn inputs(storage: &Subject, lease: &Lease) -> i32 {
    storage.heartbeat(lease, LONG).await.unwrap().inputs
}

async fn undelivered(storage: &Subject, scene: &Scene, run: Id<AgentRun>) -> Vec<String> {
    let query = Query::all().filter(RunInput::RUN_ID.eq(run)).filter(RunInput::DELIVERED_AT.is_null());
    let inputs = (**storage).all(&scene.scope, query).await.unwrap();
    inputs.into_iter().map(|input| input.value.text).collect()
}

/// `say`: it is kept with who said it, and the heartbeat tells of it; the worker marks what it has handed over.
pub async fn what_is_said_waits_for_the_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let person = scene.person(&storage, "ada@example.com").await.id;
    let lease = scene.running(&storage).await.lease;
    assert_eq!(inputs(&storage, &lease).await, 0);
    let by_ada = Scope::authenticated(scene.scope.tenant(), person);
    let said = storage.say(&by_ada, lease.run, "Use tabs.".into()).await.unwrap();
    let expected = RunInput {
        run_id: lease.run,
        user_id: Some(person),
        text: "Use tabs.".into(),
        attempt_id: None,
        delivered_at: None,
    };
    assert_eq!(said.value, expected);
    let nobody = storage.say(&scene.scope, lease.run, "And a licence. é 中".into()).await.unwrap();
    assert_eq!(nobody.user_id, None);
    assert_eq!(inputs(&storage, &lease).await, 2);
    assert_eq!(undelivered(&storage, &scene, lease.run).await, ["Use tabs.", "And a licence. é 中"]);
    let mut told = said;
    told.value.attempt_id = Some(lease.attempt);
    told.value.delivered_at = Some(from_now(Duration::ZERO));
    let told = storage.update(&scene.scope.clone().fenced(lease), &told).await.unwrap();
    assert_eq!(undelivered(&storage, &scene, lease.run).await, ["And a licence. é 中"]);
    assert_eq!(inputs(&storage, &lease).await, 2, "delivered ones count too");
    let found = (*storage).find(&scene.scope, Query::all().filter(RunInput::USER_ID.eq(person))).await;
    assert_eq!(found.unwrap(), Some(told));
}

/// `say`, `Signals::inputs`: one that waits is told when it is next worked; all that was said so far counts.
pub async fn what_is_said_is_counted_over_attempts(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let say = async |text: &str| storage.say(&scene.scope, run, text.into()).await.unwrap();
    say("while it waits").await;
    let taken = take_when_there(&storage, 1, LONG).await;
    say("while it is taken").await;
    storage.finish(&taken).await.unwrap();
    say("while it has no place").await;
    storage.sweep().await.unwrap();
    let first = claim(&storage, run, LONG).await.lease;
    assert_eq!(inputs(&storage, &first).await, 3);
    storage.request(&scene.scope, run, Request::Pause).await.unwrap();
    storage.hand_back(&first, Handback::released()).await.unwrap();
    say("while it is paused").await;
    storage.request(&scene.scope, run, Request::Resume).await.unwrap();
    let second = claim(&storage, run, LONG).await.lease;
    assert_eq!(inputs(&storage, &second).await, 4);
    storage.settle(&second, settlement(failed())).await.unwrap();
    storage.request(&scene.scope, run, Request::Requeue).await.unwrap();
    say("after it was requeued").await;
    let third = claim(&storage, run, LONG).await.lease;
    assert_eq!(inputs(&storage, &third).await, 5);
    assert_eq!(undelivered(&storage, &scene, run).await.len(), 5);
}

/// `say`: fails with `Conflict` if the run has ended, with `NotFound`.
pub async fn nothing_is_said_to_a_run_that_has_ended(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for outcome in [succeeded(), failed(), Outcome::Cancelled] {
        let lease = scene.running(&storage).await.lease;
        storage.settle(&lease, settlement(outcome)).await.unwrap();
        let error = storage.say(&scene.scope, lease.run, "Hello".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert_eq!(undelivered(&storage, &scene, lease.run).await.len(), 0);
    }
    let foreign = Scene::new(&storage).await.queued(&storage).await.id;
    for run in [foreign, Id::new(i64::MAX)] {
        let error = storage.say(&scene.scope, run, "Hello".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

/// `say`: fails with `Invalid` for a text that a `RunInput` does not allow.
pub async fn what_is_said_has_rules(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    for bad in [String::new(), " \n".into(), "x".repeat(50_001), "a\0b".into()] {
        let error = storage.say(&scene.scope, lease.run, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("text"), "{error}");
    }
    assert_eq!(inputs(&storage, &lease).await, 0);
    storage.say(&scene.scope, lease.run, "é".repeat(50_000)).await.unwrap();
    assert_eq!(inputs(&storage, &lease).await, 1);
}

/// `signalled`: the worker of a run is woken when something is said to it.
pub async fn what_is_said_wakes_the_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let waiting = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.signalled(&lease).await })
    };
    // What was said before it began to wait may have been missed.
    eventually("what is said wakes the worker", async || {
        storage.say(&scene.scope, lease.run, "Hello".into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting.is_finished().then_some(())
    })
    .await;
    waiting.await.unwrap();
}
