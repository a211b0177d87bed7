//! Behaviour of [`Queue`](lime_core::ports::Queue): how runs come into the line, and who is next.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use lime_core::ErrorKind;
use lime_core::ports::{Claimant, QueueDepth, Request};
use lime_core::runs::{AgentEvent, AgentRun, Failure, FailureKind, RunStatus};
use lime_core::{Id, LookupExt, Query};

use crate::scene::{
    LONG, OTHER_PROVIDER, SHORT, Scene, Subject, begin, claim, end, eventually, forged, from_now, in_line,
    outlast, settlement, succeeded, take_when_there, worker,
};

/// `submit`: stores the run as queued, with event 1 saying so, whatever state the value came with.
pub async fn a_submitted_run_waits(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let strange = AgentRun {
        status: RunStatus::Succeeded,
        failure: Some(Failure::new(FailureKind::Internal, "no")),
        attempt_count: 5,
        crash_count: 2,
        failure_count: 3,
        cancel_requested_at: Some(from_now(LONG)),
        pause_requested_at: Some(from_now(LONG)),
        last_seq: 9,
        ..scene.a_run()
    };
    let run = storage.submit(&scene.scope, strange).await.unwrap();
    assert_eq!(run.value, AgentRun { last_seq: 1, ..scene.a_run() });
    assert_eq!(scene.run(&storage, run.id).await, run);
    let expected = [AgentEvent::Status { status: RunStatus::Queued, detail: None }];
    assert_eq!(scene.events(&storage, run.id).await, expected);
    assert_eq!(take_when_there(&storage, 1, LONG).await[0].run, run.id);
}

/// `submit_all`: gives them in the same order, each as `submit` does.
pub async fn many_are_submitted_in_order(storage: Subject) {
    let scene = Scene::new(&storage).await;
    assert_eq!(storage.submit_all(&scene.scope, vec![]).await.unwrap(), []);
    let prompts: Vec<_> = (0..70).map(|n| format!("number {n}")).collect();
    let runs = prompts.iter().map(|prompt| AgentRun { input_prompt: prompt.clone(), ..scene.a_run() });
    let stored = storage.submit_all(&scene.scope, runs.collect()).await.unwrap();
    assert!(stored.iter().map(|run| &run.input_prompt).eq(&prompts));
    assert!(stored.is_sorted_by_key(|run| run.id), "who was submitted first must come first");
    for run in &stored {
        assert_eq!(scene.states(&storage, run.id).await, [RunStatus::Queued]);
    }
    in_line(&storage, 70).await;
}

/// `submit_all`: all or none, `Invalid` for a broken rule or a reference to what is not there.
pub async fn all_or_none_are_submitted(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let theirs = Scene::new(&storage).await;
    let silent = AgentRun { input_prompt: "  ".into(), ..scene.a_run() };
    let keyless = AgentRun { unique_key: Some(" ".into()), ..scene.a_run() };
    let elsewhere = AgentRun { project_id: theirs.project.id, ..scene.a_run() };
    let nowhere = AgentRun { ticket_id: Some(Id::new(i64::MAX)), ..scene.a_run() };
    let orphan = AgentRun { parent_run_id: Some(theirs.queued(&storage).await.id), ..scene.a_run() };
    for (field, bad) in [
        ("input_prompt", silent),
        ("unique_key", keyless),
        ("project_id", elsewhere),
        ("ticket_id", nowhere),
        ("parent_run_id", orphan),
    ] {
        let error = storage.submit(&scene.scope, bad.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{field}: {error}");
        assert!(error.to_string().contains(field), "{field}: {error}");
        let error = storage.submit_all(&scene.scope, vec![scene.a_run(), bad]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{field}: {error}");
    }
    assert_eq!((*storage).all(&scene.scope, Query::<AgentRun>::all()).await.unwrap(), []);
}

/// `submit`: where a run with the same unique key has not ended, that run is given back as it is.
pub async fn a_unique_key_is_one_live_run(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let keyed = |scene: &Scene, key: &str| AgentRun { unique_key: Some(key.into()), ..scene.a_run() };
    let first = storage.submit(&scene.scope, keyed(&scene, "nightly")).await.unwrap();
    let again = AgentRun { input_prompt: "do something else".into(), ..keyed(&scene, "nightly") };
    assert_eq!(storage.submit(&scene.scope, again.clone()).await.unwrap(), first);
    for (scene, key) in [(&scene, "weekly"), (&other, "nightly")] {
        let another = storage.submit(&scene.scope, keyed(scene, key)).await.unwrap();
        assert_ne!(another.id, first.id, "{key}");
    }
    let claim = claim(&storage, first.id, LONG).await;
    let known = storage.submit(&scene.scope, again.clone()).await.unwrap();
    assert_eq!((known.id, known.status), (first.id, RunStatus::Running));
    assert_eq!(known, scene.run(&storage, first.id).await);
    storage.request(&scene.scope, first.id, Request::Pause).await.unwrap();
    storage.hand_back(&claim.lease, lime_core::ports::Handback::released()).await.unwrap();
    let known = storage.submit(&scene.scope, again).await.unwrap();
    assert_eq!((known.id, known.status), (first.id, RunStatus::Paused));
    let all = (*storage).all(&scene.scope, Query::<AgentRun>::all()).await.unwrap();
    assert_eq!(all.len(), 2, "the same key was stored twice: {all:?}");
}

/// `submit_all`: two of the list with the same unique key are one run.
pub async fn two_of_a_list_with_one_key_are_one_run(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = |key: Option<&str>| AgentRun { unique_key: key.map(Into::into), ..scene.a_run() };
    let known = storage.submit(&scene.scope, run(Some("c"))).await.unwrap();
    let keys = [Some("a"), None, Some("b"), Some("a"), None, Some("c"), Some("a")];
    let stored = storage.submit_all(&scene.scope, keys.map(run).into()).await.unwrap();
    let ids: Vec<_> = stored.iter().map(|run| run.id).collect();
    assert!(stored.iter().map(|run| run.unique_key.as_deref()).eq(keys));
    assert_eq!((ids[3], ids[6], ids[5]), (ids[0], ids[0], known.id));
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 5);
    in_line(&storage, 5).await;
    for id in ids {
        assert_eq!(scene.states(&storage, id).await, [RunStatus::Queued]);
    }
}

/// `submit`: a run that has ended does not hold its unique key any more.
pub async fn a_unique_key_is_free_after_the_end(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let keyed = AgentRun { unique_key: Some("nightly".into()), ..scene.a_run() };
    let mut seen = HashSet::new();
    for outcome in [succeeded(), crate::scene::failed(), lime_core::runs::Outcome::Cancelled] {
        let run = storage.submit(&scene.scope, keyed.clone()).await.unwrap();
        assert!(seen.insert(run.id), "{outcome:?}: the run that has ended came back");
        let claim = claim(&storage, run.id, LONG).await;
        storage.settle(&claim.lease, settlement(outcome)).await.unwrap();
    }
    let run = storage.submit(&scene.scope, keyed).await.unwrap();
    assert!(seen.insert(run.id));
}

/// `submit`: of many at once with the same unique key just one is stored, and all get it.
pub async fn concurrent_submits_of_a_key_are_one_run(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for round in 0..5 {
        let run = AgentRun { unique_key: Some(format!("round {round}")), ..scene.a_run() };
        let tries = (0..16).map(|n| {
            let (storage, scope, run) = (storage.clone(), scene.scope.clone(), run.clone());
            tokio::spawn(async move {
                match n % 2 {
                    0 => storage.submit(&scope, run).await.unwrap().id,
                    _ => storage.submit_all(&scope, vec![run.clone(), run]).await.unwrap()[1].id,
                }
            })
        });
        let ids: HashSet<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(ids.len(), 1, "round {round}");
    }
    assert_eq!((*storage).all(&scene.scope, Query::<AgentRun>::all()).await.unwrap().len(), 5);
}

/// `take`: the run that was submitted first comes first.
pub async fn the_longest_waiting_goes_first(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let expected = scene.many_queued(&storage, 6).await;
    in_line(&storage, 6).await;
    let mut taken = take_when_there(&storage, 2, LONG).await;
    for _ in 0..4 {
        taken.extend(take_when_there(&storage, 1, LONG).await);
    }
    assert_eq!(
        taken[..2].iter().map(|lease| lease.run).collect::<HashSet<_>>(),
        expected[..2].iter().copied().collect()
    );
    assert!(taken[2..].iter().map(|lease| lease.run).eq(expected[2..].iter().copied()));
    assert!(taken.iter().all(|lease| lease.tenant == scene.scope.tenant()));
}

/// `take`: within a tenant the greater priority comes first, then the run that was submitted first.
pub async fn the_greater_priority_goes_first(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let priorities = [0, -5, 7, i16::MIN, 0, 7, i16::MAX];
    let runs = priorities.map(|priority| AgentRun { priority, ..scene.a_run() });
    let stored = storage.submit_all(&scene.scope, runs.into()).await.unwrap();
    assert!(stored.iter().map(|run| run.priority).eq(priorities));
    in_line(&storage, priorities.len()).await;
    let mut expected = stored;
    expected.sort_by_key(|run| (std::cmp::Reverse(run.priority), run.id));
    for run in expected {
        let taken = take_when_there(&storage, 1, LONG).await[0].run;
        assert_eq!(taken, run.id, "not the next of priority {}", run.priority);
    }
}

/// `take`: only runs whose time has come.
pub async fn a_run_waits_for_its_time(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let at = |time| AgentRun { run_at: Some(time), ..scene.a_run() };
    let never = storage.submit(&scene.scope, at(from_now(LONG))).await.unwrap();
    assert_eq!(never.run_at, scene.run(&storage, never.id).await.run_at);
    let past = from_now(Duration::ZERO) - chrono::TimeDelta::days(1);
    let at_once = storage.submit(&scene.scope, at(past)).await.unwrap();
    assert_eq!(take_when_there(&storage, 1, LONG).await[0].run, at_once.id);
    let time = from_now(2 * SHORT);
    let soon = storage.submit(&scene.scope, at(time)).await.unwrap();
    let claim = claim(&storage, soon.id, LONG).await;
    assert!(claim.run.started_at >= Some(time), "it was taken before its time");
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(scene.run(&storage, never.id).await, never);
}

/// `take`: only runs of the claimant's providers; the others stay for somebody who has them.
pub async fn runs_of_other_providers_wait_on(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.queued(&storage).await.id;
    let other = AgentRun { provider: OTHER_PROVIDER, ..scene.a_run() };
    let second = storage.submit(&scene.scope, other).await.unwrap().id;
    in_line(&storage, 2).await;
    let with = |providers| Claimant { providers, ..worker() };
    assert_eq!(storage.take(&with(vec![]), 10, LONG).await.unwrap(), []);
    let ours = with(vec![OTHER_PROVIDER]);
    let claims = eventually("a run of the provider is claimed", async || {
        let claims = storage.claim(&ours, 10, LONG).await.unwrap();
        (!claims.is_empty()).then_some(claims)
    })
    .await;
    assert_eq!(claims.iter().map(|claim| claim.lease.run).collect::<Vec<_>>(), [second]);
    assert_eq!(scene.run(&storage, first).await.status, RunStatus::Queued);
    assert_eq!(take_when_there(&storage, 1, LONG).await[0].run, first);
}

/// `take`, `claim`, `start`: an empty list where there is nothing, and for a `max` of 0.
pub async fn nothing_is_taken_where_nothing_waits(storage: Subject) {
    let scene = Scene::new(&storage).await;
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    assert!(storage.start(&worker(), &[], LONG).await.unwrap().is_empty());
    scene.queued(&storage).await;
    in_line(&storage, 1).await;
    assert_eq!(storage.take(&worker(), 0, LONG).await.unwrap(), []);
    take_when_there(&storage, 1, LONG).await;
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
}

/// `finish`, `sweep`: a queued run whose place is gone is not taken, and gets another one; nothing else does.
pub async fn finishing_takes_the_place_and_sweeping_gives_it_back(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let runs: HashSet<_> = scene.many_queued(&storage, 3).await.into_iter().collect();
    let late = AgentRun { run_at: Some(from_now(LONG)), ..scene.a_run() };
    storage.submit(&scene.scope, late).await.unwrap();
    let leases = take_when_there(&storage, 3, LONG).await;
    assert_eq!(storage.sweep().await.unwrap(), 0, "a run that is leased or waits for its time has its place");
    assert_eq!(storage.finish(&leases[..2]).await.unwrap(), 2);
    assert_eq!(storage.finish(&leases[..2]).await.unwrap(), 0);
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert!(storage.start(&worker(), &leases[..2], LONG).await.unwrap().is_empty());
    for run in &runs {
        assert_eq!(scene.run(&storage, *run).await.status, RunStatus::Queued);
        assert_eq!(scene.states(&storage, *run).await, [RunStatus::Queued]);
    }
    assert_eq!(storage.sweep().await.unwrap(), 2);
    assert_eq!(storage.sweep().await.unwrap(), 0);
    let again = take_when_there(&storage, 2, LONG).await;
    let mut seen: HashSet<_> = again.iter().map(|lease| lease.run).collect();
    seen.insert(leases[2].run);
    assert_eq!(seen, runs);
    begin(&storage, &again).await;
}

/// `finish`: a lease whose attempt has begun, or that does not hold, stays as it is.
pub async fn finishing_leaves_what_has_begun(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let begun = scene.running(&storage).await;
    scene.queued(&storage).await;
    let old = take_when_there(&storage, 1, SHORT).await;
    outlast(SHORT).await;
    let taken = take_when_there(&storage, 1, LONG).await;
    let leases = [begun.lease, old[0], forged(&taken[0])];
    assert_eq!(storage.finish(&leases).await.unwrap(), 0);
    assert_eq!(storage.finish(&[]).await.unwrap(), 0);
    storage.heartbeat(&begun.lease, LONG).await.unwrap();
    begin(&storage, &taken).await;
}

/// `depth`: how many runs are where in the line, of all tenants.
pub async fn the_depth_tells_where_runs_are(storage: Subject) {
    let (one, two) = (Scene::new(&storage).await, Scene::new(&storage).await);
    assert_eq!(storage.depth().await.unwrap(), QueueDepth::default());
    let leased = one.running(&storage).await;
    let paused = two.queued(&storage).await;
    storage.request(&two.scope, paused.id, Request::Pause).await.unwrap();
    let late = AgentRun { run_at: Some(from_now(LONG)), ..two.a_run() };
    storage.submit(&two.scope, late).await.unwrap();
    one.queued(&storage).await;
    let taken = take_when_there(&storage, 1, LONG).await;
    one.queued(&storage).await;
    two.many_queued(&storage, 2).await;
    in_line(&storage, 3).await;
    let depth = storage.depth().await.unwrap();
    let expected =
        QueueDepth { ready: 3, scheduled: 1, leased: 2, paused: 1, oldest_ready_ms: depth.oldest_ready_ms };
    assert_eq!(depth, expected);
    eventually("the longest wait grows", async || {
        (storage.depth().await.unwrap().oldest_ready_ms > depth.oldest_ready_ms + 10).then_some(())
    })
    .await;
    end(&storage, [leased.lease]).await;
    let claims = begin(&storage, &taken).await;
    end(&storage, [claims[0].lease]).await;
    assert_eq!(storage.depth().await.unwrap().leased, 0);
}

/// `queued`: who waits is woken when something is submitted.
pub async fn a_submission_wakes_who_waits(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let waiting = {
        let storage = storage.clone();
        tokio::spawn(async move { storage.queued().await })
    };
    // What was queued before it began to wait may have been missed.
    eventually("a submission wakes who waits", async || {
        scene.queued(&storage).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        waiting.is_finished().then_some(())
    })
    .await;
    waiting.await.unwrap();
}
