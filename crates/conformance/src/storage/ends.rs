//! Behaviour of [`Queue::settle`](lime_core::ports::Queue::settle) and `hand_back`: how work ends, or goes on later.

use std::time::Duration;

use chrono::TimeDelta;
use futures_util::future::join_all;
use lime_core::ports::{Handback, HandbackReason, QueueDepth, Record, Request, Settlement};
use lime_core::runs::{
    AgentEvent, AttemptEnd, Failure, FailureKind, Limit, Outcome, RunArtifact, RunStatus, StopReason,
    ToolTally, Usage,
};
use lime_core::{ErrorKind, Micros};

use crate::scene::{
    LONG, SHORT, Scene, Subject, claim, eventually, failed, from_now, question, settlement, succeeded, worker,
};

fn used(turns: u32, cost: i64) -> Usage {
    let input_tokens = u64::from(turns) * 10;
    Usage { turns, input_tokens, output_tokens: 5, cost: Some(Micros(cost)), ..Usage::default() }
}

fn retry(failure: Failure, pause: Duration) -> Handback {
    Handback { why: HandbackReason::Retry { failure, pause }, ..Handback::released() }
}

fn artifact(name: &str) -> RunArtifact {
    RunArtifact { name: name.into(), url: None, mime: None }
}

/// `settle`: last events, then the final status; the attempt ends; settling twice counts once.
pub async fn settling_ends_the_run_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let run = claim.lease.run;
    let said = AgentEvent::system("Working.");
    storage.append(&claim.lease, Record::from(vec![said.clone()])).await.unwrap();
    let end = Settlement {
        usage: used(2, 7),
        events: vec![AgentEvent::system("Nearly done."), AgentEvent::system("Done.")],
        artifacts: vec![artifact("report")],
        ..settlement(Outcome::Succeeded { summary: Some("All good".into()) })
    };
    let ended = storage.settle(&claim.lease, end.clone()).await.unwrap();
    assert_eq!((ended.status, ended.stop_reason), (RunStatus::Succeeded, Some(StopReason::EndTurn)));
    assert_eq!(ended.output_summary.as_deref(), Some("All good"));
    assert!(ended.ended_at.is_some() && ended.ended_at >= ended.started_at);
    assert_eq!(storage.settle(&claim.lease, end).await.unwrap_err().kind(), ErrorKind::StaleLease);
    let expected = [
        AgentEvent::Status { status: RunStatus::Queued, detail: None },
        AgentEvent::Status { status: RunStatus::Running, detail: None },
        said,
        AgentEvent::system("Nearly done."),
        AgentEvent::system("Done."),
        AgentEvent::Status { status: RunStatus::Succeeded, detail: None },
    ];
    assert_eq!(scene.events(&storage, run).await, expected);
    let again = scene.run(&storage, run).await;
    assert_eq!(again, ended);
    assert_eq!((again.usage, again.last_seq), (used(2, 7), 6));
    let attempts = scene.attempts(&storage, run).await;
    assert_eq!(attempts[0].outcome, Some(AttemptEnd::Succeeded));
    assert!(attempts[0].ended_at.is_some());
}

/// `settle`: of many at once just one counts, and the others are stale.
pub async fn concurrent_settlements_count_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let claim = scene.running(&storage).await;
    let tries = (0..8).map(|n| {
        let (storage, lease) = (storage.clone(), claim.lease);
        let outcome = if n % 2 == 0 { succeeded() } else { failed() };
        let end = Settlement { usage: used(1, 1), ..settlement(outcome) };
        tokio::spawn(async move { storage.settle(&lease, end).await })
    });
    let results: Vec<_> = join_all(tries).await.into_iter().map(Result::unwrap).collect();
    let winners: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(winners.len(), 1);
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::StaleLease, "{error}");
    }
    let run = scene.run(&storage, claim.lease.run).await;
    assert_eq!(run, *winners[0]);
    assert_eq!(run.usage, used(1, 1));
    let expected = [RunStatus::Queued, RunStatus::Running, run.status];
    assert_eq!(scene.states(&storage, run.id).await, expected);
}

/// `settle`: state, stop reason, failure and the attempt's end follow from the outcome.
pub async fn every_outcome_has_its_state(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let failure = |kind| Failure { retry_at: Some(from_now(LONG)), ..Failure::new(kind, "It broke.") };
    let limits = Limit::ALL.iter().map(|limit| Outcome::Limited(*limit));
    let failures = FailureKind::ALL.iter().map(|kind| Outcome::Failed(failure(*kind)));
    let others = [Outcome::Cancelled, Outcome::Succeeded { summary: Some("Yes.".into()) }];
    for outcome in limits.chain(failures).chain(others) {
        let claim = scene.running(&storage).await;
        let end = Settlement { summary: None, ..settlement(outcome.clone()) };
        let run = storage.settle(&claim.lease, end).await.unwrap();
        assert_eq!(run.status, outcome.status(), "{outcome:?}");
        assert_eq!(run.stop_reason, Some(StopReason::from(&outcome)));
        match &outcome {
            Outcome::Failed(failure) => assert_eq!(run.failure.as_ref(), Some(failure)),
            Outcome::Succeeded { summary } => {
                assert_eq!((&run.failure, &run.output_summary), (&None, summary));
            }
            Outcome::Cancelled | Outcome::Limited(_) => assert_eq!(run.failure, None),
        }
        assert_eq!(scene.run(&storage, run.id).await, run);
        let attempts = scene.attempts(&storage, run.id).await;
        assert_eq!(attempts[0].outcome, Some(outcome.attempt_end()), "{outcome:?}");
    }
}

/// `settle`, `hand_back`: what earlier attempts used is kept, and the last one's is added.
pub async fn usage_adds_up_over_attempts(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let tally = |tool: &str, count| ToolTally { tool: tool.into(), count, total_duration_ms: 10 };
    let first = claim(&storage, run, LONG).await;
    let handback = Handback { usage: used(1, 7), tool_calls: vec![tally("Bash", 2)], ..Handback::released() };
    let handed = storage.hand_back(&first.lease, handback).await.unwrap();
    assert_eq!((handed.usage, &handed.tool_calls), (used(1, 7), &vec![tally("Bash", 2)]));
    let second = claim(&storage, run, LONG).await;
    let failure = Failure::new(FailureKind::Network, "gone");
    let handback = Handback { usage: used(2, 8), ..retry(failure, Duration::ZERO) };
    storage.hand_back(&second.lease, handback).await.unwrap();
    let third = claim(&storage, run, LONG).await;
    let end = Settlement {
        usage: used(3, 9),
        tool_calls: vec![tally("Read", 1), tally("Bash", 3)],
        artifacts: vec![artifact("report")],
        ..settlement(Outcome::Limited(Limit::Turns))
    };
    let ended = storage.settle(&third.lease, end).await.unwrap();
    assert_eq!(ended.usage, used(1, 7).plus(used(2, 8)).plus(used(3, 9)));
    let both = ToolTally { tool: "Bash".into(), count: 5, total_duration_ms: 20 };
    assert_eq!(ended.tool_calls, [both, tally("Read", 1)]);
    assert_eq!(ended.artifacts, [artifact("report")]);
    assert_eq!(scene.run(&storage, run).await, ended);
}

/// `hand_back`: the run waits again at once, the attempt is released, and nothing counts as a crash or a failure.
pub async fn releasing_is_not_a_crash(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let first = scene.running(&storage).await;
    let handback = Handback { events: vec![AgentEvent::system("Stopping.")], ..Handback::released() };
    let run = storage.hand_back(&first.lease, handback).await.unwrap();
    assert_eq!((run.status, run.crash_count, run.failure_count), (RunStatus::Queued, 0, 0));
    assert_eq!(run, scene.run(&storage, run.id).await);
    let events = scene.events(&storage, run.id).await;
    let [.., said, last] = &events[..] else { panic!("{events:?}") };
    assert_eq!(said, &AgentEvent::system("Stopping."));
    assert!(matches!(last, AgentEvent::Status { status: RunStatus::Queued, .. }), "{last:?}");
    let second = claim(&storage, run.id, LONG).await;
    assert_eq!(second.attempt_number, 2);
    let attempts = scene.attempts(&storage, run.id).await;
    let ends: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(ends, [Some(AttemptEnd::Released), None]);
    assert!(attempts[0].ended_at.is_some());
}

/// `hand_back`: a run that failed in a way that may pass is tried again after the pause, and not before.
pub async fn a_retry_waits_for_its_pause(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let run = scene.queued(&storage).await.id;
    let first = claim(&storage, run, LONG).await;
    let failure = || Failure::new(FailureKind::Overloaded, "Too much to do.");
    let handback = Handback { events: vec![AgentEvent::system("Later.")], ..retry(failure(), 2 * SHORT) };
    let earliest = from_now(SHORT);
    let waiting = storage.hand_back(&first.lease, handback).await.unwrap();
    assert_eq!((waiting.status, waiting.failure_count), (RunStatus::Queued, 1));
    assert_eq!((waiting.crash_count, &waiting.failure), (0, &None));
    assert!(waiting.run_at > Some(earliest), "it is to be tried again at once");
    let attempts = scene.attempts(&storage, run).await;
    assert_eq!(attempts[0].outcome, Some(AttemptEnd::Failed));
    assert!(attempts[0].error.as_ref().unwrap().contains("Too much to do."), "{:?}", attempts[0].error);
    let second = claim(&storage, run, LONG).await;
    assert!(second.run.updated_at >= waiting.run_at.unwrap(), "it was taken before its time");
    assert_eq!((second.attempt_number, second.run.failure_count), (2, 1));
    let waiting = storage.hand_back(&second.lease, retry(failure(), LONG)).await.unwrap();
    assert_eq!(waiting.failure_count, 2);
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    assert_eq!(storage.depth().await.unwrap(), QueueDepth { scheduled: 1, ..QueueDepth::default() });
    use RunStatus::{Queued, Running};
    assert_eq!(scene.states(&storage, run).await, [Queued, Running, Queued, Running, Queued]);
}

/// `hand_back`: not before the time that the provider gave, as far as that is within a day.
pub async fn a_retry_waits_for_the_word_of_the_provider_within_a_day(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let now = from_now(Duration::ZERO);
    let minutes = |n| now + TimeDelta::minutes(n);
    for (word, pause, from, to) in [
        (Some(minutes(60)), 0, minutes(60), minutes(61)),
        (Some(minutes(60)), 120, minutes(120), minutes(125)),
        (Some(minutes(-60)), 30, minutes(30), minutes(35)),
        (Some(minutes(60 * 24 * 30)), 1, minutes(60 * 24), minutes(60 * 24 + 5)),
        (None, 1, minutes(1), minutes(6)),
    ] {
        let claim = scene.running(&storage).await;
        let failure = Failure { retry_at: word, ..Failure::new(FailureKind::RateLimited, "Wait.") };
        let waiting =
            storage.hand_back(&claim.lease, retry(failure, Duration::from_secs(60 * pause))).await.unwrap();
        let again = waiting.run_at.expect("it waits for its time");
        assert!((from..=to).contains(&again), "{word:?} and {pause} min became {again}");
        assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
    }
}

/// `settle`: a run that waits for a person ends like any other.
pub async fn a_run_that_waits_for_a_person_can_end(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for outcome in [succeeded(), failed(), Outcome::Cancelled] {
        let claim = scene.running(&storage).await;
        storage.ask(&claim.lease, question("Bash")).await.unwrap();
        let ended = storage.settle(&claim.lease, settlement(outcome.clone())).await.unwrap();
        assert_eq!(ended.status, outcome.status());
        let events = scene.events(&storage, ended.id).await;
        assert_eq!(events.last(), Some(&AgentEvent::Status { status: outcome.status(), detail: None }));
        assert_eq!(events.iter().filter(|event| event.is_final()).count(), 1);
    }
}

/// A run has its place in the line from its submission to its end, whatever the end is, and no longer.
pub async fn what_has_ended_has_no_place(storage: Subject) {
    let scene = Scene::new(&storage).await;
    for outcome in [succeeded(), failed(), Outcome::Cancelled] {
        let claim = scene.running(&storage).await;
        storage.settle(&claim.lease, settlement(outcome)).await.unwrap();
    }
    let waiting = scene.queued(&storage).await.id;
    storage.request(&scene.scope, waiting, Request::Cancel).await.unwrap();
    let claim = scene.running(&storage).await;
    storage.request(&scene.scope, claim.lease.run, Request::Cancel).await.unwrap();
    storage.hand_back(&claim.lease, Handback::released()).await.unwrap();
    eventually("the line is empty", async || {
        (storage.depth().await.unwrap() == QueueDepth::default()).then_some(())
    })
    .await;
    assert_eq!(storage.sweep().await.unwrap(), 0);
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), []);
}
