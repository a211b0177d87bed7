//! Behaviour of [`Queue::request`](lime_core::ports::Queue::request): cancel, pause, resume, requeue.

use std::time::Duration;

use lime_core::ports::{Handback, QueueDepth, Request, Signals};
use lime_core::runs::{AgentRun, AttemptEnd, Lease, Outcome, RunStatus, StopReason};
use lime_core::{ErrorKind, Id, Stored};

use crate::scene::{
    LONG, Scene, Subject, begin, claim, end, eventually, failed, forged, from_now, run_out, settlement,
    succeeded, take_when_there, worker,
};

async fn ask(storage: &Subject, scene: &Scene, run: Id<AgentRun>, request: Request) -> Stored<AgentRun> {
    let run = storage.request(&scene.scope, run, request).await.unwrap();
    assert_eq!(run, scene.run(storage, run.id).await, "the run is given as it is then");
    run
}

async fn signals(storage: &Subject, lease: &Lease) -> Signals {
    storage.heartbeat(lease, LONG).await.unwrap()
}

/// `Cancel`: one that nobody works is cancelled at once, whether it waits, waits for its time, is paused or is taken.
pub async fn cancelling_a_waiting_run_is_at_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let taken = scene.queued(&storage).await.id;
    let leases = take_when_there(&storage, 1, LONG).await;
    let waiting = scene.queued(&storage).await.id;
    let late = AgentRun { run_at: Some(from_now(LONG)), ..scene.a_run() };
    let late = storage.submit(&scene.scope, late).await.unwrap().id;
    let paused = scene.queued(&storage).await.id;
    ask(&storage, &scene, paused, Request::Pause).await;
    for run in [waiting, late, paused, taken] {
        let run = ask(&storage, &scene, run, Request::Cancel).await;
        assert_eq!((run.status, run.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
        assert!(run.ended_at.is_some());
        let states = scene.states(&storage, run.id).await;
        assert_eq!((states[0], states.last()), (RunStatus::Queued, Some(&RunStatus::Cancelled)));
    }
    assert!(storage.start(&worker(), &leases, LONG).await.unwrap().is_empty());
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
}

/// `Cancel`: a running one learns of it by its heartbeat, and stays its worker's to end.
pub async fn cancelling_a_running_one_reaches_its_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    assert!(!signals(&storage, &claim.lease).await.cancel);
    let run = ask(&storage, &scene, claim.lease.run, Request::Cancel).await;
    assert_eq!(run.status, RunStatus::Running);
    assert!(run.cancel_requested_at.is_some());
    let expected = Signals { cancel: true, ..Signals::default() };
    assert_eq!(signals(&storage, &claim.lease).await, expected);
    let ended = storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(ended.status, RunStatus::Cancelled);
}

/// `Cancel`: a run that was asked to be cancelled is cancelled when it is given back or lost, not worked again.
pub async fn a_cancelled_run_is_not_handed_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let released = scene.running(&storage).await.lease;
    ask(&storage, &scene, released.run, Request::Cancel).await;
    let run = storage.hand_back(&released, Handback::released()).await.unwrap();
    assert_eq!(run.status, RunStatus::Cancelled);
    let lost = scene.running(&storage).await.lease;
    ask(&storage, &scene, lost.run, Request::Cancel).await;
    run_out(&storage, &lost).await;
    eventually("the lost run is cancelled", async || {
        assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
        scene.run(&storage, lost.run).await.status.is_final().then_some(())
    })
    .await;
    for (run, attempt) in [(released.run, AttemptEnd::Released), (lost.run, AttemptEnd::Lost)] {
        let run = scene.run(&storage, run).await;
        assert_eq!((run.status, run.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
        use RunStatus::{Cancelled, Queued, Running};
        assert_eq!(scene.states(&storage, run.id).await, [Queued, Running, Cancelled]);
        assert_eq!(scene.attempts(&storage, run.id).await[0].outcome, Some(attempt));
    }
}

/// `Pause`, `Resume`: one that nobody works is paused at once, is not taken, and is queued again.
pub async fn pausing_a_waiting_run_is_at_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let paused = ask(&storage, &scene, run, Request::Pause).await;
    assert_eq!(paused.status, RunStatus::Paused);
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    let resumed = ask(&storage, &scene, run, Request::Resume).await;
    assert_eq!((resumed.status, resumed.pause_requested_at), (RunStatus::Queued, None));
    let taken = take_when_there(&storage, 1, LONG).await;
    let paused = ask(&storage, &scene, run, Request::Pause).await;
    assert_eq!(paused.status, RunStatus::Paused);
    assert!(storage.start(&worker(), &taken, LONG).await.unwrap().is_empty());
    ask(&storage, &scene, run, Request::Resume).await;
    let claim = claim(&storage, run, LONG).await;
    assert_eq!(claim.attempt_number, 1);
    use RunStatus::{Paused, Queued, Running};
    assert_eq!(scene.states(&storage, run).await, [Queued, Paused, Queued, Paused, Queued, Running]);
}

/// `Pause`: a running one learns of it by its heartbeat, and is paused when it is handed back.
pub async fn pausing_a_running_one_reaches_its_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.running(&storage).await.lease;
    assert!(!signals(&storage, &first).await.pause);
    let run = ask(&storage, &scene, first.run, Request::Pause).await;
    assert_eq!(run.status, RunStatus::Running);
    assert!(run.pause_requested_at.is_some());
    assert_eq!(signals(&storage, &first).await, Signals { pause: true, ..Signals::default() });
    let paused = storage.hand_back(&first, Handback::released()).await.unwrap();
    assert_eq!((paused.status, paused.crash_count), (RunStatus::Paused, 0));
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(storage.depth().await.unwrap(), QueueDepth { paused: 1, ..QueueDepth::default() });
    ask(&storage, &scene, first.run, Request::Resume).await;
    let second = claim(&storage, first.run, LONG).await;
    assert_eq!(second.attempt_number, 2);
    assert_eq!(signals(&storage, &second.lease).await, Signals::default());
    use RunStatus::{Paused, Queued, Running};
    assert_eq!(scene.states(&storage, first.run).await, [Queued, Running, Paused, Queued, Running]);
}

/// `Pause`: a run that was asked to be paused is paused when its worker is lost.
pub async fn a_lost_run_is_paused_if_that_was_asked(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = scene.running(&storage).await.lease;
    ask(&storage, &scene, lost.run, Request::Pause).await;
    run_out(&storage, &lost).await;
    let paused = eventually("the lost run is paused", async || {
        assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
        let run = scene.run(&storage, lost.run).await;
        (run.status == RunStatus::Paused).then_some(run)
    })
    .await;
    assert_eq!(paused.crash_count, 1);
    assert_eq!(scene.attempts(&storage, lost.run).await[0].outcome, Some(AttemptEnd::Lost));
    ask(&storage, &scene, lost.run, Request::Resume).await;
    assert_eq!(claim(&storage, lost.run, LONG).await.attempt_number, 2);
}

/// `Resume`: a pause that was asked for and has not happened yet is taken back.
pub async fn a_pause_is_taken_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    ask(&storage, &scene, lease.run, Request::Pause).await;
    let run = ask(&storage, &scene, lease.run, Request::Resume).await;
    assert_eq!((run.status, run.pause_requested_at), (RunStatus::Running, None));
    assert!(!signals(&storage, &lease).await.pause);
    let run = storage.hand_back(&lease, Handback::released()).await.unwrap();
    assert_eq!(run.status, RunStatus::Queued);
}

/// `Cancel`: whoever asked for a pause too, the run is cancelled.
pub async fn a_cancellation_beats_a_pause(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for requests in [[Request::Pause, Request::Cancel], [Request::Cancel, Request::Pause]] {
        let lease = scene.running(&storage).await.lease;
        for request in requests {
            ask(&storage, &scene, lease.run, request).await;
        }
        let expected = Signals { cancel: true, pause: true, inputs: 0 };
        assert_eq!(signals(&storage, &lease).await, expected);
        let run = storage.hand_back(&lease, Handback::released()).await.unwrap();
        assert_eq!(run.status, RunStatus::Cancelled);
    }
}

/// `Resume`: a run whose time has not come still waits for it after a pause.
pub async fn a_paused_run_keeps_its_time(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let time = from_now(LONG);
    let late = AgentRun { run_at: Some(time), ..scene.a_run() };
    let run = storage.submit(&scene.scope, late).await.unwrap().id;
    ask(&storage, &scene, run, Request::Pause).await;
    let resumed = ask(&storage, &scene, run, Request::Resume).await;
    assert_eq!((resumed.status, resumed.run_at), (RunStatus::Queued, Some(time)));
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(storage.depth().await.unwrap(), QueueDepth { scheduled: 1, ..QueueDepth::default() });
}

/// `Requeue`: one that failed is queued again, with its crashes and failures forgiven; its history stays.
pub async fn requeueing_forgives(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    for _ in 0..AgentRun::MAX_CRASHES {
        let lease = claim(&storage, run, LONG).await.lease;
        run_out(&storage, &lease).await;
    }
    eventually("the run fails", async || {
        assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
        (scene.run(&storage, run).await.status == RunStatus::Failed).then_some(())
    })
    .await;
    let before = scene.log(&storage, run).await;
    let requeued = ask(&storage, &scene, run, Request::Requeue).await;
    assert_eq!((requeued.status, requeued.crash_count, requeued.failure_count), (RunStatus::Queued, 0, 0));
    assert_eq!((requeued.stop_reason, &requeued.failure, requeued.ended_at), (None, &None, None));
    assert_eq!(requeued.attempt_count, AgentRun::MAX_CRASHES);
    assert!(requeued.started_at.is_some());
    let log = scene.log(&storage, run).await;
    assert_eq!(log[..before.len()], before);
    assert_eq!(log.len(), before.len() + 1);
    // And it may lose as many workers again.
    for crashes in 1..AgentRun::MAX_CRASHES {
        let lease = claim(&storage, run, LONG).await.lease;
        run_out(&storage, &lease).await;
        let again = claim(&storage, run, LONG).await;
        assert_eq!(again.run.crash_count, crashes);
        storage.hand_back(&again.lease, Handback::released()).await.unwrap();
    }
    let last = claim(&storage, run, LONG).await;
    let ended = storage.settle(&last.lease, settlement(succeeded())).await.unwrap();
    assert_eq!((ended.status, ended.failure.as_ref()), (RunStatus::Succeeded, None));
}

/// `Requeue`: fails with `AlreadyExists` while another run has its unique key; else it holds the key again.
pub async fn requeueing_minds_the_unique_key(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let keyed = AgentRun { unique_key: Some("nightly".into()), ..scene.a_run() };
    let first = storage.submit(&scene.scope, keyed.clone()).await.unwrap().id;
    let lease = claim(&storage, first, LONG).await.lease;
    let failed = storage.settle(&lease, settlement(failed())).await.unwrap();
    let second = storage.submit(&scene.scope, keyed.clone()).await.unwrap().id;
    let error = storage.request(&scene.scope, first, Request::Requeue).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(scene.run(&storage, first).await, failed);
    ask(&storage, &scene, second, Request::Cancel).await;
    ask(&storage, &scene, first, Request::Requeue).await;
    assert_eq!(storage.submit(&scene.scope, keyed).await.unwrap().id, first);
    assert_eq!(take_when_there(&storage, 1, LONG).await[0].run, first);
}

/// Asking for what is so already, or cancelling what has ended, changes nothing.
pub async fn asking_for_what_is_so_changes_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let unchanged = async |run: Id<AgentRun>, request: Request| {
        let before = (scene.run(&storage, run).await, scene.log(&storage, run).await);
        let after = (ask(&storage, &scene, run, request).await, scene.log(&storage, run).await);
        assert_eq!(after, before, "{request:?}");
    };
    let queued = scene.queued(&storage).await.id;
    unchanged(queued, Request::Resume).await;
    unchanged(queued, Request::Requeue).await;
    ask(&storage, &scene, queued, Request::Pause).await;
    unchanged(queued, Request::Pause).await;
    let running = scene.running(&storage).await.lease;
    unchanged(running.run, Request::Resume).await;
    for request in [Request::Pause, Request::Cancel] {
        ask(&storage, &scene, running.run, request).await;
        unchanged(running.run, request).await;
    }
    end(&storage, [running]).await;
    unchanged(running.run, Request::Cancel).await;
    for outcome in [succeeded(), failed()] {
        let lease = scene.running(&storage).await.lease;
        storage.settle(&lease, settlement(outcome)).await.unwrap();
        unchanged(lease.run, Request::Cancel).await;
    }
}

/// Anything else that the state does not allow is a `Conflict`; what is missing, or another tenant's, `NotFound`.
pub async fn what_the_state_does_not_allow_is_a_conflict(storage: Subject) {
    use Request::{Cancel, Pause, Requeue, Resume};
    let scene = Scene::new(&storage).await;
    let refused = async |run: Id<AgentRun>, requests: &[Request]| {
        let before = (scene.run(&storage, run).await, scene.log(&storage, run).await);
        for request in requests {
            let error = storage.request(&scene.scope, run, *request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{request:?} of one {}: {error}", before.0.status);
        }
        assert_eq!((scene.run(&storage, run).await, scene.log(&storage, run).await), before);
    };
    let running = scene.running(&storage).await.lease;
    refused(running.run, &[Requeue]).await;
    let paused = scene.queued(&storage).await.id;
    ask(&storage, &scene, paused, Pause).await;
    refused(paused, &[Requeue]).await;
    refused(scene.failed(&storage).await.id, &[Pause, Resume]).await;
    for outcome in [succeeded(), Outcome::Cancelled] {
        let lease = scene.running(&storage).await.lease;
        storage.settle(&lease, settlement(outcome)).await.unwrap();
        refused(lease.run, &[Pause, Resume, Requeue]).await;
    }
    let foreign = Scene::new(&storage).await.queued(&storage).await.id;
    for run in [foreign, Id::new(i64::MAX)] {
        for request in [Cancel, Pause, Resume, Requeue] {
            let error = storage.request(&scene.scope, run, request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{request:?}: {error}");
        }
    }
}

/// `signalled`: the worker of a run is woken when something is asked of it.
pub async fn a_request_wakes_the_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lease = scene.running(&storage).await.lease;
    let waiting = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.signalled(&lease).await })
    };
    let mut requests = [Request::Pause, Request::Resume].into_iter().cycle();
    // What was asked before it began to wait may have been missed.
    eventually("a request wakes the worker", async || {
        ask(&storage, &scene, lease.run, requests.next().unwrap()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting.is_finished().then_some(())
    })
    .await;
    waiting.await.unwrap();
}

/// `Scope::fenced`: what is submitted, asked or said under a lease that does not hold is stale, and changes nothing.
pub async fn a_fenced_request_needs_its_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let held = scene.running(&storage).await;
    let run = scene.queued(&storage).await.id;
    let before = scene.run(&storage, run).await;
    let other_tenant = Scene::new(&storage).await.scope.fenced(held.lease);
    for scope in [scene.scope.clone().fenced(forged(&held.lease)), other_tenant] {
        for (what, result) in [
            ("submit", storage.submit(&scope, scene.a_run()).await.map(drop)),
            ("submit_all", storage.submit_all(&scope, vec![scene.a_run()]).await.map(drop)),
            ("request", storage.request(&scope, run, Request::Cancel).await.map(drop)),
            ("say", storage.say(&scope, run, "Hello".into()).await.map(drop)),
        ] {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::StaleLease, "{what}: {error}");
        }
    }
    assert_eq!(scene.run(&storage, run).await, before);
    let scope = held.scope();
    storage.request(&scope, run, Request::Cancel).await.unwrap();
    let more = storage.submit(&scope, scene.a_run()).await.unwrap().id;
    storage.say(&scope, more, "Hello".into()).await.unwrap();
    let taken = take_when_there(&storage, 1, LONG).await;
    assert_eq!(begin(&storage, &taken).await[0].lease.run, more);
}
