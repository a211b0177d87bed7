//! How a worker finds work, and how it stops.

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::ports::{
    Author, Changes, Claimant, CommitId, CommittedFiles, FilesWanted, Handback, Queue, RepoAccess,
    WorkerName, Workspace, WorkspaceSpec, Workspaces,
};
use lime_core::runs::{AgentRun, AttemptEnd, Failure, FailureKind, Lease, Outcome, RunStatus, StepStatus};
use lime_core::{ErrorKind, Id};
use lime_engine::{Factory, Worker, WorkerConfig};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use support::agent::says;
use support::watched::Fault;
use support::{Act, Ground, Play, Scene, stop, told, until};

#[tokio::test]
async fn as_many_runs_at_once_as_the_worker_may() {
    let scene = Scene::new([Play::of([Act::Hang])]).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(scene.submit_one().await);
    }
    let worker = scene.worker_with(WorkerConfig { concurrency: 3, ..WorkerConfig::default() });
    until("three are at work", async || scene.agent.starts() == 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(scene.agent.starts(), 3);
    for run in &runs {
        scene.factory.cancel(&scene.scope, *run).await.unwrap();
    }
    for run in runs {
        assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    }
    stop(worker).await;
}

#[tokio::test]
async fn what_is_queued_is_taken_at_once_and_nobody_looks_in_between() {
    let scene = Scene::new([Play::work()]).await;
    let config = WorkerConfig { poll: Duration::from_secs(3_600), ..WorkerConfig::default() };
    let worker = Worker::new(&scene.factory, config).unwrap().spawn();
    until("it has looked", async || scene.watched.calls().contains(&"take".into())).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(scene.watched.calls(), Vec::<String>::new(), "a worker at rest");
    for _ in 0..20 {
        let run = scene.submit_one().await;
        assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    }
    stop(worker).await;
}

#[tokio::test]
async fn what_nobody_tells_of_is_found_by_looking() {
    let scene = Scene::new([Play::work()]).await;
    let worker = scene.worker();
    let later = AgentRun { run_at: Some(std::time::SystemTime::now().into()), ..scene.a_run() };
    let later = AgentRun { run_at: later.run_at.map(|at| at + Duration::from_millis(150)), ..later };
    let run = scene.submit(later).await;
    let run = scene.end(run).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert!(run.started_at.unwrap() >= run.created_at + Duration::from_millis(100));
    stop(worker).await;
}

#[tokio::test]
async fn a_worker_that_drains_claims_nothing_more_and_lets_its_runs_end() {
    let gate = Arc::new(Notify::new());
    let scene = Scene::new([Play::of([Act::Gate(gate.clone()), Act::Write])]).await;
    let (drain, hand_back) = (CancellationToken::new(), CancellationToken::new());
    let config = WorkerConfig { poll: Duration::from_millis(10), ..WorkerConfig::default() };
    let worker = Worker::new(&scene.factory, config).unwrap();
    let worker = tokio::spawn(worker.run(drain.clone(), hand_back));
    let first = scene.submit_one().await;
    until("it works", async || scene.agent.starts() == 1).await;
    drain.cancel();
    let second = scene.submit_one().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    gate.notify_one();
    worker.await.unwrap();
    assert_eq!(scene.run(first).await.status, RunStatus::Succeeded);
    let second = scene.run(second).await;
    assert_eq!((second.status, second.attempt_count), (RunStatus::Queued, 0));
}

#[tokio::test]
async fn a_worker_that_stops_hands_its_run_back_without_burning_it() {
    let scene = Scene::new([Play::of([says("I begin."), Act::Hang])]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    worker.stop(Duration::ZERO).await.unwrap();
    assert_eq!(scene.agent.alive(), 0, "an agent was left");
    let run = scene.run(run).await;
    assert_eq!((run.status, run.crash_count, run.failure_count), (RunStatus::Queued, 0, 0));
    assert_eq!(scene.ends().await, [Some(AttemptEnd::Released)]);
    let log = scene.storage.clone();
    let log = lime_core::ports::EventLog::read(&log, &scene.scope, run.id, 0, 100).await.unwrap();
    assert!(told(&log).contains("I begin.") && told(&log).contains("The worker stops"), "{}", told(&log));
}

#[tokio::test]
async fn an_agent_that_goes_down_with_its_worker_costs_the_run_nothing() {
    let gate = Arc::new(Notify::new());
    let crashed = Play {
        outcome: Outcome::Failed(Failure::new(FailureKind::Crashed, "It was killed.")),
        ..Play::of([Act::Gate(gate.clone())])
    };
    let scene = Scene::new([crashed, Play::work()]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    let stopping = tokio::spawn(worker.stop(Duration::from_secs(10)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    gate.notify_one();
    stopping.await.unwrap().unwrap();
    let queued = scene.run(run).await;
    assert_eq!((queued.status, queued.failure_count), (RunStatus::Queued, 0));
    assert_eq!(scene.work(run).await.0.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_storage_that_fails_is_left_alone_for_longer_and_longer() {
    let scene = Scene::new([Play::work()]).await;
    for _ in 0..4 {
        scene.watched.fail("take", Fault::Before);
    }
    let run = scene.submit_one().await;
    let began = std::time::Instant::now();
    let worker = scene.worker_with(WorkerConfig::default());
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    // Halves of 20, 40, 80 and 160 ms at the least.
    assert!(began.elapsed() >= Duration::from_millis(150), "{:?}", began.elapsed());
    stop(worker).await;
}

#[tokio::test]
async fn a_run_that_fell_out_of_the_line_is_found() {
    let scene = Scene::new([Play::work()]).await;
    let run = scene.submit_one().await;
    let claimant = lime_core::ports::Claimant {
        worker: lime_core::ports::WorkerName::parse("other").unwrap(),
        providers: vec![support::STUB],
    };
    let leases = scene.storage.take(&claimant, 1, Duration::from_secs(30)).await.unwrap();
    assert_eq!(scene.storage.finish(&leases).await.unwrap(), 1);
    let worker =
        scene.worker_with(WorkerConfig { sweep: Duration::from_millis(20), ..WorkerConfig::default() });
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
}

#[tokio::test]
async fn a_lost_lease_writes_and_publishes_nothing_more() {
    let gate = Arc::new(Notify::new());
    let acts = [Act::Write, Act::Gate(gate.clone()), says("too late")];
    let scene = Scene::new([Play::of(acts)]).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the agent is there", async || scene.agent.alive() == 1).await;
    // Somebody takes the run from under the worker's hands, as a rescue does after a long stall.
    let claims = scene.take_after_lease().await;
    gate.notify_one();
    stop(worker).await;
    assert!(scene.ground.pushes().is_empty());
    scene.storage.hand_back(&claims[0].lease, Handback::released()).await.unwrap();
    let log = lime_core::ports::EventLog::read(&scene.storage, &scene.scope, run, 0, 100).await.unwrap();
    assert!(!told(&log).contains("too late"));
    assert_eq!(scene.ends().await, [Some(AttemptEnd::Lost), Some(AttemptEnd::Released)]);
    assert!(scene.ground.kept().is_empty(), "what the lost one made is left");
}

/// Checkouts that take for ever to be made.
struct Stuck;

#[async_trait]
impl Workspaces for Stuck {
    async fn prepare(&self, _: &WorkspaceSpec) -> lime_core::Result<Workspace> {
        std::future::pending().await
    }

    async fn adopt(&self, _: &WorkspaceSpec, _: &Workspace) -> lime_core::Result<Option<Workspace>> {
        panic!("there is no checkout to take over")
    }

    async fn committed_files(&self, _: &Workspace, _: &FilesWanted) -> lime_core::Result<CommittedFiles> {
        panic!("there is no checkout to read")
    }

    async fn changes(&self, _: &Workspace) -> lime_core::Result<Changes> {
        panic!("there is no checkout to look at")
    }

    async fn commit(&self, _: &Workspace, _: &str, _: &Author) -> lime_core::Result<Option<CommitId>> {
        panic!("there is nothing to commit")
    }

    async fn publish(&self, _: &Workspace, _: &RepoAccess, _: &CommitId) -> lime_core::Result<()> {
        panic!("there is nothing to publish")
    }

    async fn remove(&self, _: &Workspace) -> lime_core::Result<()> {
        panic!("there is no checkout to remove")
    }
}

#[tokio::test]
async fn a_run_is_cancelled_while_its_checkout_is_made() {
    let ground = Ground::default();
    let scene =
        Scene::with([Play::work()], ground.clone(), |builder| builder.repos(ground).workspaces(Stuck)).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    until("the step has begun", async || !scene.steps().await.is_empty()).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    assert_eq!(scene.steps().await[0].status, StepStatus::Failed);
    assert_eq!(scene.agent.starts(), 0, "an agent was started without a place to work");
    stop(worker).await;
}

#[tokio::test]
async fn a_worker_that_contradicts_itself_is_refused() {
    let scene = Scene::new([]).await;
    let default = WorkerConfig::default;
    let configs = [
        WorkerConfig { heartbeat: Duration::from_secs(20), ..default() },
        WorkerConfig { concurrency: 0, ..default() },
        WorkerConfig { poll: Duration::ZERO, ..default() },
        WorkerConfig { sweep: Duration::ZERO, ..default() },
        WorkerConfig { hang_after: Duration::ZERO, ..default() },
        WorkerConfig { loop_limit: 1, ..default() },
    ];
    for config in configs {
        let error = Worker::new(&scene.factory, config.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{config:?}");
    }
    let bare = Factory::builder(scene.storage).build();
    assert!(Worker::new(&bare, default()).is_err());
}

#[tokio::test]
async fn runs_whose_worker_was_lost_are_worked_one_at_a_time() {
    let gate = Arc::new(Notify::new());
    let hangs = Play::of([Act::Hang]);
    let scene = Scene::new([hangs.clone(), hangs, Play::of([Act::Gate(gate.clone())])]).await;
    let runs = [scene.submit_one().await, scene.submit_one().await];
    let doomed = scene.doomed_worker();
    until("both are at work", async || scene.agent.alive() == 2).await;
    doomed.abort();
    until("the agents are gone", async || scene.agent.alive() == 0).await;
    scene.hands.forward(Duration::from_secs(60));

    let worker = scene.worker();
    until("both are claimed", async || scene.ends().await.len() == 4).await;
    until("one is at work", async || scene.agent.starts() == 3).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(scene.agent.alive(), 1, "two suspects are worked at once");
    // A run that is not suspect does not wait, and one that waits can be cancelled.
    let waiting =
        if scene.steps().await.iter().any(|step| {
            step.run_id == runs[0] && step.status == StepStatus::Running && step.step_key == "agent"
        }) {
            runs[1]
        } else {
            runs[0]
        };
    scene.factory.cancel(&scene.scope, waiting).await.unwrap();
    assert_eq!(scene.end(waiting).await.status, RunStatus::Cancelled);
    gate.notify_one();
    let other = if waiting == runs[0] { runs[1] } else { runs[0] };
    assert_eq!(scene.end(other).await.status, RunStatus::Succeeded);
    stop(worker).await;
}

/// A connection can die without a word: the call is never answered, and the agent must not outlive its lease.
#[tokio::test]
async fn an_agent_whose_heartbeats_are_never_answered_is_stopped_with_its_lease() {
    // Where the attempt itself waits for an answer, it is broken off.
    for also in [None, Some("append")] {
        let scene = Scene::new([Play::of([says("hello"), Act::Hang])]).await;
        for call in ["heartbeat"].into_iter().chain(also) {
            scene.watched.before(call, || Box::pin(std::future::pending()));
        }
        scene.submit_one().await;
        let lease = Duration::from_secs(1);
        let config = WorkerConfig { lease, heartbeat: lease / 3, ..WorkerConfig::default() };
        let worker = scene.worker_with(config);
        until("the agent is there", async || scene.agent.alive() == 1).await;
        until("the agent is gone", async || scene.agent.alive() == 0).await;
        stop(worker).await;
    }
}

/// A fleet hands a lease out once more if nobody has begun it for a while.
#[tokio::test]
async fn a_run_that_another_worker_has_begun_is_left_to_it() {
    let scene = Scene::new([Play::of([Act::Hang])]).await;
    let run = scene.submit_one().await;
    scene.watched.fail("start", Fault::Before);
    let (storage, tenant) = (scene.storage.clone(), scene.scope.tenant());
    let starts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    scene.watched.before("start", move || {
        let storage = storage.clone();
        let is_second = starts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1;
        Box::pin(async move {
            if is_second {
                // Which one it is, only the worker was told.
                let leases: Vec<_> = (1..100).map(|id| Lease { tenant, run, attempt: Id::new(id) }).collect();
                let other = Claimant { worker: WorkerName::parse("other").unwrap(), providers: vec![] };
                let begun = storage.start(&other, &leases, Duration::from_secs(60)).await.unwrap();
                assert_eq!(begun.len(), 1);
            }
        })
    });
    let worker = scene.worker();
    until("it has tried again", async || scene.run(run).await.attempt_count == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let run = scene.run(run).await;
    assert_eq!((run.status, run.attempt_count), (RunStatus::Running, 1));
    assert_eq!(scene.ends().await, [None]);
    assert!(!scene.watched.calls().contains(&"hand_back".into()));
    stop(worker).await;
}
