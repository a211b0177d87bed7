//! Which tools agents are given, and what becomes of calls that they may not make.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]

mod support;

use lime_core::governance::{Allowlist, DefaultTools, ToolLayer, ToolPattern};
use lime_core::ports::ToolAnswer;
use lime_core::runs::{
    AgentEvent, AgentRun, Constraints, RunEvent, RunStatus, StopReason, ToolCall, ToolCallStatus, ToolStatus,
};
use lime_core::{ErrorKind, Store, Stored};
use serde_json::json;

use support::agent::tool;
use support::{Act, Ground, Play, STUB, Scene, Stub, told};

fn patterns(texts: &[&str]) -> Vec<ToolPattern> {
    texts.iter().map(|text| ToolPattern::parse(*text).unwrap()).collect()
}

fn with_tools(scene: &Scene, tools: &[&str]) -> AgentRun {
    let allowed_tools = Some(tools.iter().map(|tool| (*tool).to_owned()).collect());
    AgentRun { constraints: Constraints { allowed_tools, ..Constraints::default() }, ..scene.a_run() }
}

/// Works a run that may use these tools with an agent that plays this.
async fn work(play: Play, tools: &[&str], refuses: bool) -> (Scene, Stored<AgentRun>, Vec<RunEvent>) {
    let ground = Ground::default();
    let agent = Stub::new([play], ground.clone());
    let agent = if refuses { agent.refusing() } else { agent };
    let scene = Scene::with([], ground.clone(), |builder| {
        builder.repos(ground.clone()).workspaces(ground.clone()).provider(agent)
    })
    .await;
    let run = scene.submit(with_tools(&scene, tools)).await;
    let (run, log) = scene.work(run).await;
    (scene, run, log)
}

#[tokio::test]
async fn an_agent_has_the_defaults_narrowed_by_its_run() {
    let acts = [
        Act::Ask("Bash", json!({ "command": "git log && rm x" })),
        Act::Answers,
        Act::Ask("Bash", json!({ "command": "git log" })),
        Act::Answers,
        Act::Ask("Bash", json!({ "command": "git push" })),
        Act::Answers,
    ];
    let scene = Scene::new([Play::of(acts)]).await;
    let defaults = |provider, allowed: &[&str], denied: &[&str]| DefaultTools {
        provider,
        allowed: patterns(allowed),
        denied: patterns(denied),
        enabled: true,
    };
    let any = defaults(None, &["Read", "Bash", "Edit"], &["Bash(git push *)"]);
    let own = defaults(Some(STUB), &["Bash", "Edit", "WebFetch"], &[]);
    let off =
        DefaultTools { provider: Some(lime_core::runs::ProviderId::from_static("other")), ..own.clone() };
    for tools in [&any, &own, &off] {
        scene.storage.insert(&scene.scope, tools.clone()).await.unwrap();
    }
    let asked = with_tools(&scene, &["Bash(git *)", "Edit", "Task"]);
    let run_list = Allowlist::parse(ToolLayer::Run, &["Bash(git *)", "Edit", "Task"]).unwrap();
    let expected = Allowlist::defaults([&any, &own], &STUB).narrow(&run_list);
    assert_eq!(scene.factory.preview(&scene.scope, &asked).await.unwrap().tools, expected);

    let (run, _) = scene.work(scene.submit(asked).await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    let spec = scene.agent.specs().remove(0);
    assert_eq!(spec.tools, expected);
    assert!(spec.tools.may_use("Edit") && !spec.tools.may_use("Read") && !spec.tools.may_use("Task"));
    assert_eq!(spec.ask, patterns(&["Bash"]), "each call is asked about where only some may be made");
    let answers: Vec<_> = scene.agent.answers().into_iter().map(|(_, answer)| answer).collect();
    let [ToolAnswer::Deny(first), ToolAnswer::Allow, ToolAnswer::Deny(second)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(first.contains("by the run list of tools: `rm x` is not on the list"), "{first}");
    assert!(
        second.contains("by the default list of tools: `Bash(git push *)` is never to be called"),
        "{second}"
    );
}

#[tokio::test]
async fn a_call_that_is_only_seen_stops_the_agent() {
    let acts = [tool("c1", ToolStatus::Started, None), Act::Hang];
    let (scene, run, log) = work(Play::of(acts), &["Read"], false).await;
    assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::ToolDenied)));
    let why = "this call of Bash is denied by the run list of tools: it is not on the list, which has Read";
    assert!(told(&log).contains(&format!("it may not make, and was stopped: {why}")), "{}", told(&log));
    let denied = |event: &RunEvent| matches!(&event.event, AgentEvent::Tool { status: ToolStatus::Denied, output: Some(said), .. } if said == why);
    assert!(log.iter().any(denied));
    let calls = scene.all::<ToolCall>().await;
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].status, calls[0].error.as_deref()), (ToolCallStatus::Denied, Some(why)));
    assert_eq!(calls[0].input, json!({ "command": "ls" }), "what it tried is kept");
    assert!(scene.ground.pushes().is_empty());
}

#[tokio::test]
async fn a_call_that_was_made_without_asking_stops_the_agent() {
    // Of Bash some calls may be made, so each is asked about; this one was not, and was made.
    let acts = [
        tool("c1", ToolStatus::Started, None),
        tool("c1", ToolStatus::Completed, Some("x")),
        tool("c1", ToolStatus::Completed, Some("again")),
        Act::Hang,
    ];
    for refuses in [false, true] {
        let (scene, run, _) = work(Play::of(acts.clone()), &["Bash(git *)"], refuses).await;
        assert_eq!((run.status, run.stop_reason), (RunStatus::Failed, Some(StopReason::ToolDenied)));
        let calls = scene.all::<ToolCall>().await;
        assert_eq!(calls.iter().map(|call| call.status).collect::<Vec<_>>(), [ToolCallStatus::Denied]);
        assert_eq!(run.tool_calls[0].count, 1);
    }
}

#[tokio::test]
async fn a_call_that_is_refused_in_time_stops_nobody() {
    for status in [ToolStatus::Failed, ToolStatus::Denied] {
        let acts =
            [tool("c1", ToolStatus::Started, None), tool("c1", status, Some("no such tool")), Act::Write];
        // The agent's program refuses what is not on the list.
        let (_, run, _) = work(Play::of(acts.clone()), &["Read", "Edit"], true).await;
        assert_eq!(run.status, RunStatus::Succeeded, "{:?}", run.failure);
        // It is asked about, and refused then.
        let (_, run, _) = work(Play::of(acts), &["Bash(git *)"], false).await;
        assert_eq!(run.status, RunStatus::Succeeded, "{:?}", run.failure);
    }
}

#[tokio::test]
async fn calls_on_the_list_pass() {
    let acts =
        [tool("c1", ToolStatus::Started, None), tool("c1", ToolStatus::Completed, Some("x")), Act::Write];
    for tools in [&["Bash", "Edit"][..], &["Bash(ls *)"], &["*"]] {
        let (scene, run, _) = work(Play::of(acts.clone()), tools, false).await;
        assert_eq!(run.status, RunStatus::Succeeded, "{tools:?}");
        assert_eq!(scene.all::<ToolCall>().await[0].status, ToolCallStatus::Complete);
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_refused_when_it_is_submitted() {
    let scene = Scene::new([]).await;
    for tools in [&["Bash("][..], &[""], &["x"; 201]] {
        let error = scene.factory.submit(&scene.scope, with_tools(&scene, tools)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("constraints.allowedTools"), "{error}");
    }
}
