//! Behaviour of [`Queue`](lime_core::ports::Queue): leases, attempts, and workers that are lost.

use std::collections::HashSet;

use futures_util::future::join_all;
use lime_core::ports::{Handback, Record, Request};
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, FailureKind, Lease, Outcome, RunStatus, StopReason};
use lime_core::{ErrorKind, Id, Result};

use crate::scene::{
    BRIEF, LONG, SHORT, Scene, Subject, begin, claim, end, eventually, forged, in_line, outlast, question,
    run_out, settlement, take_when_there, worker,
};

/// Every write of an attempt, under this lease.
async fn every_write(storage: &Subject, lease: &Lease) -> Vec<(&'static str, Result<()>)> {
    let record = Record::from(vec![AgentEvent::system("hi")]);
    vec![
        ("heartbeat", storage.heartbeat(lease, LONG).await.map(drop)),
        ("append", storage.append(lease, record).await.map(drop)),
        ("ask", storage.ask(lease, question("Bash")).await.map(drop)),
        ("answer", storage.answer(lease, Id::new(1)).await.map(drop)),
        ("hand back", storage.hand_back(lease, Handback::released()).await.map(drop)),
        ("settle", storage.settle(lease, settlement(Outcome::Cancelled)).await.map(drop)),
    ]
}

/// `claim`: no run is leased twice at once; a claim is attempt 1, tells where the run is, and is logged.
pub async fn a_run_is_leased_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let claim =
        eventually("the run is claimed", async || storage.claim(&worker(), 10, LONG).await.unwrap().pop())
            .await;
    assert_eq!((claim.lease.run, claim.lease.tenant), (run, scene.scope.tenant()));
    assert_eq!((claim.attempt_number, claim.run.status), (1, RunStatus::Running));
    assert_eq!(claim.run, scene.run(&storage, run).await);
    assert!(storage.claim(&worker(), 100, LONG).await.unwrap().is_empty());
    assert_eq!(scene.states(&storage, run).await, [RunStatus::Queued, RunStatus::Running]);
}

/// `take`: many workers at once never get the same run, and together they get them all.
pub async fn concurrent_claims_share_nothing(storage: Subject) {
    let (one, two) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let mut expected: HashSet<_> = one.many_queued(&storage, 10).await.into_iter().collect();
    expected.extend(two.many_queued(&storage, 10).await);
    in_line(&storage, 20).await;
    let workers = (0..8).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claims = storage.claim(&worker(), 2, LONG).await.unwrap();
                if claims.is_empty() {
                    return mine;
                }
                mine.extend(claims);
            }
        })
    });
    let claims: Vec<_> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(claims.len(), expected.len());
    assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<HashSet<_>>(), expected);
    assert_eq!(claims.iter().map(|claim| claim.lease.attempt).collect::<HashSet<_>>().len(), 20);
}

/// `take`: a run that was taken is nobody else's, and yet no attempt has begun: it is still queued.
pub async fn what_is_taken_has_not_begun(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    take_when_there(&storage, 1, LONG).await;
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(scene.run(&storage, run.id).await, run);
    assert_eq!(scene.states(&storage, run.id).await, [RunStatus::Queued]);
    assert_eq!(scene.attempts(&storage, run.id).await, []);
}

/// `take`: a lease that runs out before its attempt began puts the run back; that is no crash, and no attempt.
pub async fn what_is_taken_and_not_begun_goes_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    let mut tokens = HashSet::new();
    // More often than a run may lose its worker.
    for _ in 0..=AgentRun::MAX_CRASHES {
        let taken = take_when_there(&storage, 1, SHORT).await;
        assert_eq!(taken[0].run, run.id);
        assert!(tokens.insert(taken[0].attempt), "a token was given twice");
        outlast(SHORT).await;
    }
    let taken = take_when_there(&storage, 1, LONG).await;
    let claims = begin(&storage, &taken).await;
    assert!(tokens.insert(taken[0].attempt), "a token was given twice");
    assert_eq!((claims[0].attempt_number, claims[0].run.crash_count), (1, 0));
    assert_eq!(scene.attempts(&storage, run.id).await.len(), 1);
    assert_eq!(scene.states(&storage, run.id).await, [RunStatus::Queued, RunStatus::Running]);
}

/// `start`: a new attempt with the next number, by its worker; starting again does nothing.
pub async fn starting_begins_an_attempt_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let runs: HashSet<_> = scene.many_queued(&storage, 3).await.into_iter().collect();
    let leases = take_when_there(&storage, 3, LONG).await;
    let claims = begin(&storage, &leases).await;
    assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<HashSet<_>>(), runs);
    assert!(storage.start(&worker(), &leases, LONG).await.unwrap().is_empty());
    for claim in claims {
        assert!(leases.contains(&claim.lease));
        let run = scene.run(&storage, claim.lease.run).await;
        assert_eq!(claim.run, run);
        assert_eq!((run.status, run.attempt_count), (RunStatus::Running, 1));
        assert_eq!(run.attempt_id, Some(claim.lease.attempt));
        assert!(run.started_at.is_some_and(|started| started < claim.expires_at));
        let attempts = scene.attempts(&storage, run.id).await;
        let [attempt] = &attempts[..] else { panic!("{attempts:?}") };
        assert_eq!((attempt.number, attempt.worker.as_str()), (1, "conformance"));
        assert_eq!((attempt.outcome, &attempt.error, attempt.ended_at), (None, &None, None));
        assert_eq!(scene.states(&storage, run.id).await, [RunStatus::Queued, RunStatus::Running]);
    }
}

/// `start`: a lease that has run out, whose run was cancelled or paused meanwhile, or that was never given, is left
/// out; the others begin.
pub async fn starting_leaves_out_what_was_lost_cancelled_or_paused(storage: Subject) {
    let scene = Scene::new(&storage).await;
    scene.many_queued(&storage, 5).await;
    let leases = take_when_there(&storage, 5, LONG).await;
    let [good, cancelled, paused, resumed, other] = leases[..] else { panic!("{leases:?}") };
    scene.queued(&storage).await;
    let lost = take_when_there(&storage, 1, SHORT).await[0];
    for (lease, request) in [
        (cancelled, Request::Cancel),
        (paused, Request::Pause),
        (resumed, Request::Pause),
        (resumed, Request::Resume),
    ] {
        storage.request(&scene.scope, lease.run, request).await.unwrap();
    }
    let foreign = Lease { tenant: Scene::new(&storage).await.scope.tenant(), ..other };
    outlast(SHORT).await;
    let all = [lost, cancelled, paused, resumed, foreign, forged(&other), good];
    let claims = storage.start(&worker(), &all, LONG).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.lease).collect::<Vec<_>>(), [good]);
    for lease in [lost, cancelled, paused, resumed, other] {
        assert_eq!(scene.attempts(&storage, lease.run).await, [], "{lease:?}");
    }
    let status = async |lease: Lease| scene.run(&storage, lease.run).await.status;
    assert_eq!(status(cancelled).await, RunStatus::Cancelled);
    assert_eq!(status(paused).await, RunStatus::Paused);
    begin(&storage, &[other]).await;
    let next: HashSet<_> = take_when_there(&storage, 2, LONG).await.iter().map(|lease| lease.run).collect();
    assert_eq!(next, HashSet::from([lost.run, resumed.run]));
}

/// `start`: the lease is as long as it says, from then on.
pub async fn starting_extends_the_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    scene.queued(&storage).await;
    let taken = take_when_there(&storage, 1, BRIEF).await;
    let claims = begin(&storage, &taken).await;
    outlast(BRIEF).await;
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    storage.heartbeat(&claims[0].lease, LONG).await.unwrap();
    let shorter = scene.queued(&storage).await.id;
    let shorter = claim(&storage, shorter, SHORT).await;
    outlast(SHORT).await;
    let error = storage.heartbeat(&shorter.lease, LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleLease);
}

/// `heartbeat`: extends the lease from now on, so that the run outlives the first one, and is a sign of life.
pub async fn a_heartbeat_extends_the_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = claim(&storage, scene.queued(&storage).await.id, BRIEF).await;
    let before = scene.attempts(&storage, claim.lease.run).await[0].heartbeat_at;
    tokio::time::sleep(SHORT / 5).await;
    let signals = storage.heartbeat(&claim.lease, LONG).await.unwrap();
    assert_eq!(signals, Default::default());
    outlast(BRIEF).await;
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    let events = Record::from(vec![AgentEvent::system("still there")]);
    storage.append(&claim.lease, events).await.unwrap();
    assert!(scene.attempts(&storage, claim.lease.run).await[0].heartbeat_at > before);
    assert_eq!(scene.run(&storage, claim.lease.run).await.crash_count, 0);
}

/// Every write under a lease that ran out, is forged, another tenant's or has ended is stale and changes nothing.
pub async fn a_lost_lease_is_stale_for_every_write(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let held = scene.running(&storage).await.lease;
    let ended = scene.running(&storage).await.lease;
    end(&storage, [ended]).await;
    let handed_back = scene.running(&storage).await.lease;
    storage.hand_back(&handed_back, Handback::released()).await.unwrap();
    let taken_up = claim(&storage, handed_back.run, LONG).await.lease;
    let foreign = Lease { tenant: Scene::new(&storage).await.scope.tenant(), ..held };
    let lost = scene.lost(&storage).await.lease;
    for lease in [lost, ended, handed_back, forged(&held), foreign] {
        let before = (scene.run(&storage, lease.run).await, scene.log(&storage, lease.run).await);
        for (what, result) in every_write(&storage, &lease).await {
            let error = result.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::StaleLease, "{what} under {lease:?}: {error}");
        }
        let after = (scene.run(&storage, lease.run).await, scene.log(&storage, lease.run).await);
        assert_eq!(after, before, "{lease:?}");
    }
    end(&storage, [held, taken_up]).await;
}

/// `take`: a lease that no attempt has begun is no right to write.
pub async fn a_lease_that_has_not_begun_writes_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    let taken = take_when_there(&storage, 1, LONG).await;
    for (what, result) in every_write(&storage, &taken[0]).await {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::StaleLease, "{what}: {error}");
    }
    assert_eq!(scene.run(&storage, run.id).await, run);
    begin(&storage, &taken).await;
    assert_eq!(scene.states(&storage, run.id).await, [RunStatus::Queued, RunStatus::Running]);
}

/// `take`: a run whose lease ran out is queued again, its attempt marked lost, and gets a new attempt.
pub async fn a_lost_run_is_taken_up_again(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = scene.lost(&storage).await;
    let run = lost.lease.run;
    let again = claim(&storage, run, LONG).await;
    assert_eq!(again.attempt_number, 2);
    assert_ne!(again.lease.attempt, lost.lease.attempt);
    assert_eq!((again.run.crash_count, again.run.attempt_count), (1, 2));
    assert_eq!(again.run.started_at, lost.run.started_at, "it began with its first attempt");
    let attempts = scene.attempts(&storage, run).await;
    assert_eq!(attempts.iter().map(|a| a.outcome).collect::<Vec<_>>(), [Some(AttemptEnd::Lost), None]);
    assert!(attempts[0].ended_at.is_some());
    let error = storage.settle(&lost.lease, settlement(Outcome::Cancelled)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StaleLease);
    use RunStatus::{Queued, Running};
    assert_eq!(scene.states(&storage, run).await, [Queued, Running, Queued, Running]);
    storage.heartbeat(&again.lease, LONG).await.unwrap();
}

/// `take`: after `MAX_CRASHES` lost attempts the run fails, with an error event and `worker_lost`; its neighbours
/// are worked all the same.
pub async fn a_run_that_loses_its_workers_fails(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let neighbour = scene.running(&storage).await;
    let run = scene.queued(&storage).await.id;
    for crashes in 0..AgentRun::MAX_CRASHES {
        let claim = claim(&storage, run, LONG).await;
        assert_eq!((claim.run.crash_count, claim.attempt_number), (crashes, crashes + 1));
        run_out(&storage, &claim.lease).await;
    }
    let run = eventually("the run fails", async || {
        assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
        let run = scene.run(&storage, run).await;
        run.status.is_final().then_some(run)
    })
    .await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::WorkerLost)));
    assert_eq!(run.failure.as_ref().unwrap().kind, FailureKind::WorkerLost);
    assert_eq!(run.crash_count, AgentRun::MAX_CRASHES);
    assert!(run.ended_at.is_some());
    let attempts = scene.attempts(&storage, run.id).await;
    assert!(attempts.iter().all(|attempt| attempt.outcome == Some(AttemptEnd::Lost)), "{attempts:?}");
    let events = scene.events(&storage, run.id).await;
    let [.., error, last] = &events[..] else { panic!("{events:?}") };
    assert!(matches!(error, AgentEvent::Error { kind: Some(FailureKind::WorkerLost), .. }), "{error:?}");
    assert!(last.is_final());
    assert_eq!(events.iter().filter(|event| event.is_final()).count(), 1);
    let neighbour = scene.run(&storage, neighbour.lease.run).await;
    assert_eq!((neighbour.status, neighbour.crash_count), (RunStatus::Running, 0));
}

/// `take`: what was handed back counts for nothing among the crashes, however often.
pub async fn a_released_run_has_lost_no_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.lost(&storage).await.lease.run;
    for number in 2..=2 + AgentRun::MAX_CRASHES {
        let claim = claim(&storage, run, LONG).await;
        assert_eq!((claim.attempt_number, claim.run.crash_count), (number, 1));
        storage.hand_back(&claim.lease, Handback::released()).await.unwrap();
    }
}
