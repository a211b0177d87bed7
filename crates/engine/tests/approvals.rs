//! What people are asked, and what comes of their answers.
#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use lime_core::governance::{
    ActionScope, Approval, ApprovalPolicy, ApprovalRule, ApprovalStatus, Decision, ToolPattern,
};
use lime_core::ports::ToolAnswer;
use lime_core::repos::CodeDiff;
use lime_core::runs::{AgentEvent, AgentRun, AttemptEnd, Constraints, Effect, FailureKind, RunStatus};
use lime_core::{ErrorKind, Id, Store, Stored};
use lime_engine::WorkerConfig;
use serde_json::json;
use tokio::sync::Notify;

use support::agent::{says, session};
use support::{Act, Play, Scene, stop, told, until};

fn ask_tools() -> ApprovalPolicy {
    ApprovalPolicy::ask(ActionScope::tool())
}

fn ask_push() -> ApprovalPolicy {
    ApprovalPolicy::ask(ActionScope::repo_push())
}

fn bash(command: &str) -> Act {
    Act::Ask("Bash", json!({ "command": command }))
}

impl Scene {
    async fn policy(&self, policy: ApprovalPolicy) {
        self.storage.insert(&self.scope, policy).await.unwrap();
    }

    /// Waits until so many questions were asked, and gives them.
    async fn questions(&self, run: Id<AgentRun>, count: usize) -> Vec<Stored<Approval>> {
        let asked = async || self.factory.approvals(&self.scope, run).await.unwrap();
        until(&format!("{count} questions are asked"), async || asked().await.len() >= count).await;
        asked().await
    }

    async fn decide(&self, question: &Stored<Approval>, decision: Decision, note: Option<&str>) {
        let note = note.map(str::to_owned);
        self.factory.decide(&self.scope, question.id, decision, note).await.unwrap();
    }
}

fn denied(answers: &[(String, ToolAnswer)]) -> String {
    answers
        .iter()
        .filter_map(|(_, answer)| match answer {
            ToolAnswer::Deny(reason) => Some(reason.as_str()),
            ToolAnswer::Allow => None,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[tokio::test]
async fn a_call_waits_for_a_person_while_all_else_goes_on() {
    let scene = Scene::new([Play::of([bash("make"), says("I wait."), Act::Answers, Act::Write])]).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let question = scene.questions(run, 1).await.remove(0);
    assert_eq!(scene.agent.specs()[0].ask, [ToolPattern::parse("*").unwrap()]);
    assert_eq!((question.status, question.action.as_str()), (ApprovalStatus::Pending, "Bash"));
    assert_eq!(question.payload, json!({ "command": "make" }));
    assert_eq!(question.intent_summary, "Bash wants to run.");
    scene.until_status(run, RunStatus::WaitingApproval).await;
    until("the agent's words are there", async || {
        let log = lime_core::ports::EventLog::read(&scene.storage, &scene.scope, run, 0, 100).await.unwrap();
        told(&log).contains("I wait.")
    })
    .await;
    scene.decide(&question, Decision::Approve, None).await;
    let ended = scene.end(run).await;
    stop(worker).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    assert_eq!(scene.agent.answers(), [("ask-1".into(), ToolAnswer::Allow)]);
    let log = scene.log(run).await;
    let questions: Vec<_> = log
        .iter()
        .filter_map(|recorded| match &recorded.event {
            AgentEvent::Approval { approval_id, status, .. } => Some((*approval_id, *status)),
            _ => None,
        })
        .collect();
    let id = Some(question.id);
    assert_eq!(questions, [(id, ApprovalStatus::Pending), (id, ApprovalStatus::Approved)]);
}

#[tokio::test]
async fn policies_answer_at_once_where_they_say_so() {
    let scene = Scene::new([Play::of([bash("make"), bash("rm -rf /"), Act::Answers])]).await;
    let rm = Some(ToolPattern::parse("Bash(rm *)").unwrap());
    scene.policy(ApprovalPolicy { tool: rm, rule: ApprovalRule::Deny, ..ask_tools() }).await;
    let run = scene.submit_one().await;
    let (ended, _) = scene.work(run).await;
    assert_eq!(ended.status, RunStatus::Succeeded);
    let answers = scene.agent.answers();
    assert_eq!(answers[0], ("ask-1".into(), ToolAnswer::Allow));
    assert!(denied(&answers[1..]).contains("A policy of this project"), "{answers:?}");
    assert!(scene.factory.approvals(&scene.scope, run).await.unwrap().is_empty());
}

#[tokio::test]
async fn several_questions_are_open_and_those_about_one_tool_come_one_by_one() {
    let edit = Act::Ask("Edit", json!({ "path": "a" }));
    let scene = Scene::new([Play::of([bash("one"), bash("two"), edit, Act::Answers])]).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let open = scene.questions(run, 2).await;
    let actions: Vec<_> = open.iter().map(|question| question.action.as_str()).collect();
    assert_eq!(actions, ["Bash", "Edit"]);
    scene.decide(&open[1], Decision::Deny, Some("not that file")).await;
    scene.decide(&open[0], Decision::Approve, None).await;
    let second = scene.questions(run, 3).await.remove(2);
    assert_eq!(second.payload, json!({ "command": "two" }));
    scene.decide(&second, Decision::Approve, None).await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
    let mut answers = scene.agent.answers();
    answers.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!((&answers[0].1, &answers[1].1), (&ToolAnswer::Allow, &ToolAnswer::Allow));
    assert_eq!(answers[2].1, ToolAnswer::Deny("A person refused it: not that file".into()));
    let all = scene.factory.approvals(&scene.scope, run).await.unwrap();
    assert!(all.iter().all(|question| question.status != ApprovalStatus::Void), "{all:?}");
}

#[tokio::test]
async fn what_was_denied_is_denied_again_without_asking_anybody() {
    let acts = [bash("make"), Act::Answers, bash("make"), Act::Answers];
    let scene = Scene::new([Play::of(acts)]).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let question = scene.questions(run, 1).await.remove(0);
    scene.decide(&question, Decision::Deny, None).await;
    scene.end(run).await;
    stop(worker).await;
    assert_eq!(denied(&scene.agent.answers()), "A person refused it.\nA person refused it.");
    assert_eq!(scene.factory.approvals(&scene.scope, run).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_run_that_asks_too_much_is_denied_the_rest() {
    let acts = [bash("1"), Act::Answers, bash("2"), Act::Answers, bash("3"), bash("1"), Act::Answers];
    let scene = Scene::new([Play::of(acts)]).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker_with(WorkerConfig { max_questions: 2, ..WorkerConfig::default() });
    for number in 1..=2 {
        let question = scene.questions(run, number).await.remove(number - 1);
        scene.decide(&question, Decision::Approve, None).await;
    }
    scene.end(run).await;
    stop(worker).await;
    let answers = scene.agent.answers();
    assert!(denied(&answers[2..3]).contains("has asked people 2 questions already"), "{answers:?}");
    assert_eq!(answers[3].1, ToolAnswer::Allow, "the answer that is there still counts");
    assert_eq!(scene.factory.approvals(&scene.scope, run).await.unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_too_large_to_be_shown_is_denied() {
    let large = Act::Ask("Write", json!({ "content": "x".repeat(AgentEvent::MAX_TEXT_BYTES + 1) }));
    let scene = Scene::new([Play::of([large, Act::Answers])]).await;
    scene.policy(ask_tools()).await;
    let (run, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(run.status, RunStatus::Succeeded);
    assert!(denied(&scene.agent.answers()).contains("too large for a person"));
}

#[tokio::test]
async fn a_question_that_nobody_answers_gets_its_default() {
    for (on_expiry, allowed) in [(Decision::Deny, false), (Decision::Approve, true)] {
        let scene = Scene::new([Play::of([bash("make"), Act::Answers])]).await;
        scene.policy(ApprovalPolicy { expires_after_s: 1, on_expiry, ..ask_tools() }).await;
        let (run, _) = scene.work(scene.submit_one().await).await;
        assert_eq!(run.status, RunStatus::Succeeded);
        let answers = scene.agent.answers();
        assert_eq!(answers[0].1 == ToolAnswer::Allow, allowed, "{answers:?}");
        assert!(allowed || denied(&answers).contains("Nobody answered in time"));
    }
}

#[tokio::test]
async fn no_time_counts_while_a_person_is_asked() {
    let scene = Scene::new([Play::of([bash("make"), Act::Answers, Act::Write])]).await;
    scene.policy(ask_tools()).await;
    let constraints = Constraints { time_budget_sec: Some(1), ..Constraints::default() };
    let run = scene.submit(AgentRun { constraints, ..scene.a_run() }).await;
    let worker =
        scene.worker_with(WorkerConfig { hang_after: Duration::from_millis(300), ..WorkerConfig::default() });
    let question = scene.questions(run, 1).await.remove(0);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(scene.run(run).await.status, RunStatus::WaitingApproval);
    scene.decide(&question, Decision::Approve, None).await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
}

#[tokio::test]
async fn a_question_outlives_the_worker_that_asked_it() {
    let asks = || Play::of([session("s-1"), Act::Write, bash("make"), Act::Answers]);
    let scene = Scene::new([asks(), asks()]).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let question = scene.questions(run, 1).await.remove(0);
    worker.stop(Duration::ZERO).await.unwrap();
    assert_eq!(scene.run(run).await.status, RunStatus::Queued);
    assert_eq!(scene.questions(run, 1).await[0].status, ApprovalStatus::Pending);
    scene.decide(&question, Decision::Approve, None).await;
    let (ended, _) = scene.work(run).await;
    assert_eq!((ended.status, ended.attempt_count), (RunStatus::Succeeded, 2));
    assert_eq!(scene.agent.answers(), [("ask-1".into(), ToolAnswer::Allow)]);
    assert_eq!(scene.questions(run, 1).await.len(), 1);
}

#[tokio::test]
async fn a_question_that_nobody_asks_any_more_does_not_hold_the_run() {
    let edit = || Act::Ask("Edit", json!({ "path": "a" }));
    let plays = [
        Play::of([session("s-1"), Act::Write, bash("make"), Act::Answers]),
        Play::of([edit(), Act::Answers]),
    ];
    let scene = Scene::new(plays).await;
    scene.policy(ask_tools()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    scene.questions(run, 1).await;
    worker.stop(Duration::ZERO).await.unwrap();
    let worker = scene.worker();
    let edit = scene.questions(run, 2).await.remove(1);
    scene.decide(&edit, Decision::Approve, None).await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
    let questions = scene.questions(run, 2).await;
    assert_ne!(questions[0].status, ApprovalStatus::Pending, "it is left open");
    assert_eq!(questions[1].status, ApprovalStatus::Approved);
}

#[tokio::test]
async fn cancelling_works_while_a_person_is_asked() {
    let scene = Scene::new([Play::of([bash("make"), Act::Answers])]).await;
    scene.policy(ask_tools()).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    scene.questions(run, 1).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    assert_eq!(scene.agent.alive(), 0);
    assert_eq!(scene.questions(run, 1).await[0].status, ApprovalStatus::Void);
    stop(worker).await;

    // And while it waits for leave to push.
    let scene = Scene::new([Play::work()]).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    scene.questions(run, 1).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    assert_eq!(scene.end(run).await.status, RunStatus::Cancelled);
    stop(worker).await;
    assert!(scene.ground.pushes().is_empty());
}

#[tokio::test]
async fn a_push_waits_for_leave_and_shows_what_it_is_about() {
    let scene = Scene::new([Play::work()]).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let question = scene.questions(run, 1).await.remove(0);
    let branch = format!("lime/run-{run}");
    assert_eq!((question.scope.as_str(), &question.action), (ActionScope::REPO_PUSH, &branch));
    let expected = json!({
        "repository": "/o/n",
        "branch": branch,
        "baseCommit": "b".repeat(40),
        "commit": format!("{:0>40}", 1),
        "stats": { "files_changed": 1, "insertions": 2, "deletions": 1 },
    });
    assert_eq!(question.payload, expected);
    let diff = scene.all::<CodeDiff>().await.remove(0);
    assert_eq!(diff.head_ref, question.payload["commit"].as_str().unwrap(), "whoever is asked can see it");
    assert!(scene.ground.pushes().is_empty());
    scene.decide(&question, Decision::Approve, None).await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
    assert_eq!(scene.ground.pushes().len(), 1);
    assert_eq!(scene.all::<Effect>().await[0].approval_id, Some(question.id));
}

#[tokio::test]
async fn a_push_that_is_denied_fails_the_run_and_keeps_the_work() {
    let scene = Scene::new([Play::work()]).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let question = scene.questions(run, 1).await.remove(0);
    scene.decide(&question, Decision::Deny, Some("wait for the release")).await;
    let ended = scene.end(run).await;
    stop(worker).await;
    let failure = ended.failure.as_ref().unwrap();
    assert_eq!((ended.status, failure.kind), (RunStatus::Failed, FailureKind::PermissionDenied));
    assert!(failure.message.contains("was not pushed") && failure.message.contains("wait for the release"));
    assert!(scene.ground.pushes().is_empty() && scene.all::<Effect>().await.is_empty());
    assert_eq!(scene.ground.kept().len(), 1);
    let again = scene.factory.decide(&scene.scope, question.id, Decision::Approve, None).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);

    let scene = Scene::new([Play::work()]).await;
    scene.policy(ApprovalPolicy { rule: ApprovalRule::Deny, ..ask_push() }).await;
    let (ended, _) = scene.work(scene.submit_one().await).await;
    assert_eq!(ended.failure.as_ref().unwrap().kind, FailureKind::PermissionDenied);
    assert!(scene.ground.pushes().is_empty());
}

#[tokio::test]
async fn leave_to_push_is_asked_once_for_the_same_work_however_often_workers_change() {
    let scene = Scene::new([Play::of([session("s-1"), Act::Write])]).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    for _ in 0..2 {
        let worker = scene.worker();
        scene.until_status(run, RunStatus::WaitingApproval).await;
        worker.stop(Duration::ZERO).await.unwrap();
        assert_eq!(scene.run(run).await.status, RunStatus::Queued);
    }
    let questions = scene.questions(run, 1).await;
    assert_eq!(questions.len(), 1);
    scene.decide(&questions[0], Decision::Approve, None).await;
    let (ended, _) = scene.work(run).await;
    assert_eq!((ended.status, ended.attempt_count), (RunStatus::Succeeded, 3));
    assert_eq!((scene.agent.starts(), scene.ground.pushes().len()), (1, 1));
    assert_eq!(
        scene.ends().await,
        [Some(AttemptEnd::Released), Some(AttemptEnd::Released), Some(AttemptEnd::Succeeded)]
    );
}

#[tokio::test]
async fn what_is_said_while_leave_to_push_is_asked_comes_first() {
    let gate = Arc::new(Notify::new());
    let plays = [
        Play::of([session("s-1"), Act::Write]),
        Play::of([says("on it"), Act::Gate(gate.clone()), Act::Write]),
    ];
    let scene = Scene::new(plays).await;
    scene.policy(ask_push()).await;
    let run = scene.submit_one().await;
    let worker = scene.worker();
    let first = scene.questions(run, 1).await.remove(0);
    scene.factory.say(&scene.scope, run, "The docs too.").await.unwrap();
    until("the agent goes on", async || scene.agent.starts() == 2).await;
    assert_eq!(scene.agent.resumed()[1].as_deref(), Some("s-1"));
    assert_eq!(scene.agent.prompts()[1], "The docs too.");
    gate.notify_one();
    let second = scene.questions(run, 2).await.remove(1);
    assert_ne!(first.payload, second.payload);
    assert_eq!(
        scene.questions(run, 2).await[0].status,
        ApprovalStatus::Void,
        "what it asked about has changed"
    );
    scene.decide(&second, Decision::Approve, None).await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    stop(worker).await;
    assert_eq!(scene.ground.pushes().len(), 1);
}
