//! Behaviour of [`Queue`](lime_core::ports::Queue).

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use lime_core::ports::{Claimant, Progress};
use lime_core::runs::{
    AgentEvent, AgentRun, AttemptEnd, FailureKind, Outcome, RunAttempt, RunEvent, RunStatus, StopReason,
    Usage,
};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Micros, Query, Scope, Stored};

use crate::scene::{LONG, OTHER_PROVIDER, Scene, Subject, claim, forged, settlement, worker};

/// Short enough to wait for, long enough for a few calls.
const SHORT: Duration = Duration::from_millis(400);

async fn get(storage: &Subject, scope: &Scope, run: Id<AgentRun>) -> Stored<AgentRun> {
    Lookup::get(&**storage, scope, run).await.unwrap()
}

async fn attempts(storage: &Subject, scope: &Scope, run: Id<AgentRun>) -> Vec<RunAttempt> {
    let query = Query::all().filter(RunAttempt::RUN_ID.eq(run));
    (**storage).all(scope, query).await.unwrap().into_iter().map(|attempt| attempt.value).collect()
}

async fn log(storage: &Subject, scope: &Scope, run: Id<AgentRun>) -> Vec<RunEvent> {
    storage.read(scope, run, 0, 1_000).await.unwrap()
}

/// The states that the log tells of, in order.
async fn states(storage: &Subject, scope: &Scope, run: Id<AgentRun>) -> Vec<RunStatus> {
    let state = |event: RunEvent| match event.event {
        AgentEvent::Status { status, .. } => Some(status),
        _ => None,
    };
    log(storage, scope, run).await.into_iter().filter_map(state).collect()
}

/// `submit`: stores the run as queued, with event 1 saying so, whatever state the value came with.
pub async fn a_submitted_run_waits(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let strange = AgentRun { status: RunStatus::Succeeded, attempt_count: 5, last_seq: 9, ..scene.a_run() };
    let run = storage.submit(&scene.scope, strange).await.unwrap();
    assert_eq!((run.status, run.attempt_count, run.last_seq), (RunStatus::Queued, 0, 1));
    assert_eq!(states(&storage, &scene.scope, run.id).await, [RunStatus::Queued]);
    let elsewhere = AgentRun { project_id: Scene::new(&storage).await.project.id, ..scene.a_run() };
    assert_eq!(storage.submit(&scene.scope, elsewhere).await.unwrap_err().kind(), ErrorKind::Invalid);
    let silent = AgentRun { input_prompt: "  ".into(), ..scene.a_run() };
    assert_eq!(storage.submit(&scene.scope, silent).await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// `claim`: no run is leased twice at once; a claim is attempt 1, tells where the run is, and is logged.
pub async fn a_run_is_leased_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    assert_eq!(claim.lease.tenant, scene.scope.tenant());
    assert_eq!((claim.attempt_number, claim.run.status), (1, RunStatus::Running));
    assert_eq!(claim.run.value, get(&storage, &scene.scope, claim.lease.run).await.value);
    assert!(claim.run.started_at.is_some());
    assert!(storage.claim(&worker(), 100, LONG).await.unwrap().is_empty());
    assert!(storage.claim(&worker(), 0, LONG).await.unwrap().is_empty());
    let attempts = attempts(&storage, &scene.scope, claim.lease.run).await;
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].number, attempts[0].worker.as_str(), attempts[0].outcome),
        (1, "conformance", None)
    );
    let expected = [RunStatus::Queued, RunStatus::Running];
    assert_eq!(states(&storage, &scene.scope, claim.lease.run).await, expected);
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `claim`: those waiting longest first, of any tenant, at most as many as asked for.
pub async fn the_longest_waiting_goes_first(storage: Subject) {
    let (one, two) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let expected =
        [one.queued(&storage).await.id, two.queued(&storage).await.id, one.queued(&storage).await.id];
    let mut claims = storage.claim(&worker(), 2, LONG).await.unwrap();
    assert_eq!(claims.len(), 2);
    claims.extend(storage.claim(&worker(), 2, LONG).await.unwrap());
    assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<Vec<_>>(), expected);
    for claim in claims {
        storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
}

/// `claim`: only runs of the claimant's providers; the others stay for somebody who has them.
pub async fn runs_of_other_providers_wait_on(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.queued(&storage).await.id;
    let other = AgentRun { provider: OTHER_PROVIDER, ..scene.a_run() };
    let second = storage.submit(&scene.scope, other).await.unwrap().id;
    let with = |providers| Claimant { providers, ..worker() };
    assert!(storage.claim(&with(vec![]), 10, LONG).await.unwrap().is_empty());
    let claims = storage.claim(&with(vec![OTHER_PROVIDER]), 10, LONG).await.unwrap();
    assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<Vec<_>>(), [second]);
    assert_eq!(get(&storage, &scene.scope, first).await.status, RunStatus::Queued);
    storage.settle(&claims[0].lease, settlement(Outcome::Cancelled)).await.unwrap();
    storage.request_cancel(&scene.scope, first).await.unwrap();
}

/// `claim`: many workers at once never get the same run, and together they get them all.
pub async fn concurrent_claims_share_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let mut expected = HashSet::new();
    for _ in 0..24 {
        expected.insert(scene.queued(&storage).await.id);
    }
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
    assert_eq!(claims.iter().map(|claim| claim.lease.attempt).collect::<HashSet<_>>().len(), 24);
    for claim in claims {
        storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
}

/// `heartbeat`: extends the lease from now on, so that the run outlives the first one.
pub async fn a_heartbeat_extends_the_lease(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    let claim = claim(&storage, run.id, SHORT).await;
    assert!(!storage.heartbeat(&claim.lease, LONG).await.unwrap().cancel);
    tokio::time::sleep(SHORT).await;
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// Every write under a lease that ran out, is forged or has ended is stale and changes nothing.
pub async fn a_lost_lease_is_stale_for_every_write(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let lost = claim(&storage, scene.queued(&storage).await.id, Duration::from_millis(1)).await;
    let ended = scene.running(&storage).await;
    storage.settle(&ended.lease, settlement(Outcome::Cancelled)).await.unwrap();
    let held = scene.running(&storage).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    for lease in [lost.lease, ended.lease, forged(&held)] {
        let before = get(&storage, &scene.scope, lease.run).await;
        let progress = Progress { model: Some("m".into()), ..Progress::default() };
        for result in [
            storage.heartbeat(&lease, LONG).await.map(|_| ()),
            storage.progress(&lease, progress).await,
            storage.append(&lease, vec![AgentEvent::system("hi")]).await.map(|_| ()),
            storage.settle(&lease, settlement(Outcome::Cancelled)).await.map(|_| ()),
            storage.release(&lease).await,
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::StaleLease, "{lease:?}");
        }
        assert_eq!(get(&storage, &scene.scope, lease.run).await, before, "{lease:?}");
    }
    let taken_up = claim(&storage, lost.lease.run, LONG).await;
    for lease in [taken_up.lease, held.lease] {
        storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    }
}

/// `claim`: a run whose lease ran out is queued again, its attempt marked lost, and gets a new attempt.
pub async fn a_lost_run_is_taken_up_again(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let lost = claim(&storage, run, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let again = claim(&storage, run, LONG).await;
    assert_eq!(again.attempt_number, 2);
    assert_ne!(again.lease.attempt, lost.lease.attempt);
    assert_eq!((again.run.crash_count, again.run.attempt_count), (1, 2));
    let ends: Vec<_> = attempts(&storage, &scene.scope, run).await.iter().map(|a| a.outcome).collect();
    assert_eq!(ends, [Some(AttemptEnd::Lost), None]);
    assert_eq!(
        storage.settle(&lost.lease, settlement(Outcome::Cancelled)).await.unwrap_err().kind(),
        ErrorKind::StaleLease
    );
    use RunStatus::{Queued, Running};
    assert_eq!(states(&storage, &scene.scope, run).await, [Queued, Running, Queued, Running]);
    storage.settle(&again.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `claim`: after `MAX_CRASHES` lost attempts the run fails, with an error event and `worker_lost`.
pub async fn a_run_that_loses_its_workers_fails(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    for _ in 0..AgentRun::MAX_CRASHES {
        claim(&storage, run, Duration::from_millis(1)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    let run = get(&storage, &scene.scope, run).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::WorkerLost)));
    assert_eq!(run.failure.as_ref().unwrap().kind, FailureKind::WorkerLost);
    assert!(run.ended_at.is_some());
    let log = log(&storage, &scene.scope, run.id).await;
    let [.., error, last] = &log[..] else { panic!("{log:?}") };
    assert!(
        matches!(error.event, AgentEvent::Error { kind: Some(FailureKind::WorkerLost), .. }),
        "{error:?}"
    );
    assert!(last.event.is_final());
}

/// `settle`: last events, then the final status; the attempt ends; settling twice counts once.
pub async fn settling_ends_the_run_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = claim.lease.run;
    let end = lime_core::ports::Settlement {
        usage: Usage { turns: 2, ..Usage::default() },
        events: vec![AgentEvent::system("Done.")],
        ..settlement(Outcome::Succeeded { summary: Some("All good".into()) })
    };
    let ended = storage.settle(&claim.lease, end.clone()).await.unwrap();
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Succeeded, Some(StopReason::EndTurn)));
    assert_eq!(ended.output_summary.as_deref(), Some("All good"));
    assert_eq!(storage.settle(&claim.lease, end).await.unwrap_err().kind(), ErrorKind::StaleLease);
    let log = log(&storage, &scene.scope, run).await;
    assert_eq!(log.len(), 4);
    assert_eq!(log[2].event, AgentEvent::system("Done."));
    assert_eq!(log[3].event, AgentEvent::Status { status: RunStatus::Succeeded, detail: None });
    let again = get(&storage, &scene.scope, run).await;
    assert_eq!((again.usage.turns, again.last_seq), (2, 4));
    let attempts = attempts(&storage, &scene.scope, run).await;
    assert_eq!(attempts[0].outcome, Some(AttemptEnd::Succeeded));
    assert!(attempts[0].ended_at.is_some());
}

/// `settle`: what earlier attempts used is kept, and the last one's is added.
pub async fn usage_adds_up_over_attempts(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let used =
        Usage { turns: 1, input_tokens: 10, output_tokens: 5, cost: Some(Micros(7)), ..Usage::default() };
    let end = lime_core::ports::Settlement {
        usage: used,
        ..settlement(Outcome::Limited(lime_core::runs::Limit::Turns))
    };
    let ended = storage.settle(&claim.lease, end).await.unwrap();
    assert_eq!(ended.usage, used);
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Failed, Some(StopReason::MaxSteps)));
}

/// `release`: the run waits again at once, the attempt is released, and nothing counts as a crash.
pub async fn releasing_is_not_a_crash(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.running(&storage).await;
    storage.release(&first.lease).await.unwrap();
    let run = get(&storage, &scene.scope, first.lease.run).await;
    assert_eq!((run.status, run.crash_count, run.lease_expires_at), (RunStatus::Queued, 0, None));
    let second = claim(&storage, run.id, LONG).await;
    assert_eq!(second.attempt_number, 2);
    let attempts = attempts(&storage, &scene.scope, run.id).await;
    assert_eq!(attempts[0].outcome, Some(AttemptEnd::Released));
    storage.settle(&second.lease, settlement(Outcome::Cancelled)).await.unwrap();
}

/// `request_cancel`: one that nobody works is cancelled at once.
pub async fn cancelling_a_waiting_run_is_at_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await;
    let run = storage.request_cancel(&scene.scope, run.id).await.unwrap();
    assert_eq!((run.status, run.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
    assert!(run.ended_at.is_some());
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    let expected = [RunStatus::Queued, RunStatus::Cancelled];
    assert_eq!(states(&storage, &scene.scope, run.id).await, expected);
}

/// `request_cancel`: a running one learns of it by its heartbeat, and stays its worker's to end.
pub async fn cancelling_a_running_one_reaches_its_worker(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = storage.request_cancel(&scene.scope, claim.lease.run).await.unwrap();
    assert_eq!(run.status, RunStatus::Running);
    assert!(storage.heartbeat(&claim.lease, LONG).await.unwrap().cancel);
    let ended = storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(ended.status, RunStatus::Cancelled);
}

/// `request_cancel`: asking again, or of a run that has ended, changes nothing; a foreign run is `NotFound`.
pub async fn cancelling_twice_or_late_changes_nothing(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let first = storage.request_cancel(&scene.scope, claim.lease.run).await.unwrap();
    assert_eq!(storage.request_cancel(&scene.scope, claim.lease.run).await.unwrap(), first);
    let ended = storage.settle(&claim.lease, settlement(Outcome::Succeeded { summary: None })).await.unwrap();
    assert_eq!(storage.request_cancel(&scene.scope, claim.lease.run).await.unwrap(), ended);
    let stranger = Scene::new(&storage).await.scope;
    let foreign = storage.request_cancel(&stranger, claim.lease.run).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
}

/// `release`, `claim`: a run that was asked to be cancelled is cancelled, not handed to another worker.
pub async fn a_cancelled_run_is_not_handed_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let released = scene.running(&storage).await;
    storage.request_cancel(&scene.scope, released.lease.run).await.unwrap();
    storage.release(&released.lease).await.unwrap();
    let lost = claim(&storage, scene.queued(&storage).await.id, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    storage.request_cancel(&scene.scope, lost.lease.run).await.unwrap();
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    for run in [released.lease.run, lost.lease.run] {
        let run = get(&storage, &scene.scope, run).await;
        assert_eq!((run.status, run.stop_reason), (RunStatus::Cancelled, Some(StopReason::Cancelled)));
        assert!(log(&storage, &scene.scope, run.id).await.last().unwrap().event.is_final());
    }
}

/// `progress`: `None` leaves a field as it is.
pub async fn progress_changes_only_what_is_given(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let progress =
        Progress { provider_session_id: Some("s".into()), model: Some("m".into()), ..Progress::default() };
    storage.progress(&claim.lease, progress).await.unwrap();
    storage
        .progress(&claim.lease, Progress { branch: Some("b".into()), ..Progress::default() })
        .await
        .unwrap();
    let run = get(&storage, &scene.scope, claim.lease.run).await;
    let known = (run.provider_session_id.as_deref(), run.model.as_deref(), run.branch.as_deref());
    assert_eq!(known, (Some("s"), Some("m"), Some("b")));
    storage.settle(&claim.lease, settlement(Outcome::Cancelled)).await.unwrap();
}
