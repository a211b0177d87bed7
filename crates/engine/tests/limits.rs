//! What stops an agent by itself.

mod support;

use std::time::Duration;

use lime_core::Micros;
use lime_core::runs::{
    AgentEvent, AgentRun, Constraints, Limit, Outcome, RunStatus, StopReason, ToolStatus, Usage,
};
use lime_engine::WorkerConfig;

use support::agent::{says, session, tool};
use support::{Act, Play, Scene, told, until};

fn spent(cents: i64) -> Usage {
    Usage { turns: 1, cost: Some(Micros::from_cents(cents)), ..Usage::default() }
}

async fn limited(scene: &Scene, constraints: Constraints, config: WorkerConfig) -> (StopReason, String) {
    let run = scene.submit(AgentRun { constraints, ..scene.a_run() }).await;
    let (run, log) = scene.work_with(run, config).await;
    assert_eq!(run.status, RunStatus::Failed);
    assert_eq!(scene.agent.alive(), 0);
    (run.stop_reason.expect("a run that has failed says why it stopped"), told(&log))
}

#[tokio::test]
async fn limits_of_time_and_money_stop_the_agent() {
    let usage = spent(11);
    let scene =
        Scene::new([Play { usage, ..Play::of([Act::Event(AgentEvent::Usage(usage)), Act::Hang]) }]).await;
    let cost = Constraints { max_cost_cents: Some(10), ..Constraints::default() };
    let (reason, told) = limited(&scene, cost, WorkerConfig::default()).await;
    assert_eq!(reason, StopReason::MaxCost);
    assert!(told.contains("all the money"), "{told}");

    let scene = Scene::new([Play::of([Act::Hang])]).await;
    let time = Constraints { time_budget_sec: Some(1), ..Constraints::default() };
    let (reason, told) = limited(&scene, time, WorkerConfig::default()).await;
    assert_eq!(reason, StopReason::MaxTime);
    assert!(told.contains("all the time"), "{told}");
}

#[tokio::test]
async fn the_money_is_the_runs_and_not_the_attempts() {
    let first = Play {
        usage: spent(6),
        ..Play::of([session("s-1"), Act::Event(AgentEvent::Usage(spent(6))), Act::Hang])
    };
    let second = Play { usage: spent(6), ..Play::of([Act::Event(AgentEvent::Usage(spent(6))), Act::Hang]) };
    let scene = Scene::new([first, second]).await;
    let constraints = Constraints { max_cost_cents: Some(10), ..Constraints::default() };
    let run = scene.submit(AgentRun { constraints, ..scene.a_run() }).await;
    let worker = scene.worker();
    until("it has used something", async || scene.steps().await.iter().any(|step| step.usage.is_some()))
        .await;
    worker.stop(Duration::ZERO).await.unwrap();
    assert_eq!(scene.run(run).await.usage, spent(6));
    let (run, _) = scene.work(run).await;
    assert_eq!(run.stop_reason, Some(StopReason::MaxCost));
    let left = scene.agent.specs()[1].request.constraints.clone().unwrap();
    assert_eq!(left.max_cost_cents, Some(4));
    assert_eq!(run.usage.cost, Some(Micros::from_cents(12)));
}

#[tokio::test]
async fn a_limit_that_the_provider_keeps_is_told_too() {
    let scene = Scene::new([Play { outcome: Outcome::Limited(Limit::Turns), ..Play::of([]) }]).await;
    let (reason, told) = limited(&scene, Constraints::default(), WorkerConfig::default()).await;
    assert_eq!(reason, StopReason::MaxSteps);
    assert!(told.contains("its limit of turns"), "{told}");
}

#[tokio::test]
async fn an_agent_that_gives_no_sign_of_life_is_stopped() {
    let scene = Scene::new([Play::of([says("I think."), Act::Hang])]).await;
    let config = WorkerConfig { hang_after: Duration::from_millis(80), ..WorkerConfig::default() };
    let (reason, told) = limited(&scene, Constraints::default(), config).await;
    assert_eq!(reason, StopReason::Hung);
    assert!(told.contains("no sign of life for 80 ms"), "{told}");
}

#[tokio::test]
async fn an_agent_that_goes_in_circles_is_stopped() {
    let calls = (0..20).flat_map(|number| {
        let id = format!("c{number}");
        [tool(&id, ToolStatus::Started, None), tool(&id, ToolStatus::Failed, Some("no such file"))]
    });
    let scene = Scene::new([Play::of(calls.chain([Act::Hang]))]).await;
    let config = WorkerConfig { loop_limit: 4, ..WorkerConfig::default() };
    let (reason, told) = limited(&scene, Constraints::default(), config).await;
    assert_eq!(reason, StopReason::Looping);
    assert!(told.contains("the same call of Bash 4 times"), "{told}");
    let run = scene.all::<AgentRun>().await.remove(0);
    assert_eq!(run.tool_calls[0].count, 4);
}
