//! The suite of [`AgentProvider`](lime_core::ports::AgentProvider) and
//! [`AgentSession`](lime_core::ports::AgentSession).
//!
//! - What the agent of a test is to do is a [`Task`]; an [`AgentFixture`] sets a [`Stage`] for it, with a scripted
//!   model or whatever the provider's agents listen to. A task that it cannot set is skipped, visibly.
//! - [`agent_suite!`](crate::agent_suite) makes a test of each; [`all`] runs them one after another.

mod asking;
mod played;
mod stage;

use std::time::Duration;

use lime_core::ErrorKind;
use lime_core::ports::{Readiness, SessionReport};
use lime_core::runs::{AgentEvent, FailureKind, Limit, MessageRole, Outcome, ToolStatus};
use tokio::time::{Instant, sleep, timeout};

pub use self::asking::{
    a_denied_call_is_not_made, a_message_is_heard, a_question_waits_for_its_own_answer,
    an_allowed_call_is_made, cancelling_while_it_asks_stops_it, dropping_while_it_asks_ends_it,
    no_message_is_lost, nobody_is_asked_in_vain,
};
use self::played::{Played, play, start, story};
pub use self::stage::{AgentFixture, EDITED_FILE, EDITED_TEXT, Stage, Task, spec};

/// How long a session may take to its end.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long cancelling may take: the port's 2 s, and half a second for a busy machine.
pub const CANCEL_WITHIN: Duration = Duration::from_millis(2_500);
/// How long readiness may take: it starts a program at most, and calls nobody.
pub const READY_WITHIN: Duration = Duration::from_secs(5);
/// How long the processes of a dropped session may still be seen.
pub const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Makes a test of each agent test, on what the expression gives: an `Option<impl AgentFixture>` in a future, where
/// `None` means that a part is missing; the expression says so visibly itself.
#[macro_export]
macro_rules! agent_suite {
    ($make:expr) => {
        $crate::agent_tests!(@each $make);
    };
}

macro_rules! list {
    ($d:tt $($test:ident)+) => {
        /// Calls back for each test; see [`agent_suite!`](crate::agent_suite).
        #[doc(hidden)]
        #[macro_export]
        macro_rules! agent_tests {
            (@each $d make:expr) => {
                $(#[tokio::test]
                async fn $test() {
                    if let Some(fixture) = $d make.await {
                        $crate::agent::$test(&fixture).await;
                    }
                })+
            };
        }

        /// Runs every test, one after another, and gives their names.
        ///
        /// - For agents that are slow to start side by side.
        pub async fn all(fixture: &impl AgentFixture) -> Vec<&'static str> {
            let mut names = Vec::new();
            $(
                names.push(stringify!($test));
                $test(fixture).await;
            )+
            names
        }
    };
}

list! { $
    readiness_is_quick
    the_work_is_done
    nothing_comes_after_the_end
    no_event_is_lost_in_a_select
    the_report_agrees_with_the_events
    a_session_can_be_taken_up
    an_unknown_session_is_gone
    a_failure_is_an_outcome
    what_is_missing_is_an_outcome
    what_it_cannot_do_is_refused
    a_denied_tool_is_reported
    the_turn_limit_ends_it
    the_cost_limit_ends_it
    cancelling_stops_it_in_time
    cancelling_at_once_stops_it
    cancelling_after_the_end_does_nothing
    a_report_before_the_end_cancels
    dropping_ends_the_agent
    an_allowed_call_is_made
    a_denied_call_is_not_made
    a_question_waits_for_its_own_answer
    nobody_is_asked_in_vain
    cancelling_while_it_asks_stops_it
    dropping_while_it_asks_ends_it
    a_message_is_heard
    no_message_is_lost
}

/// `readiness`: quick; a provider whose agents work says that it is ready.
pub async fn readiness_is_quick(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Edits).await else { return };
    let readiness = readiness(&stage).await;
    assert!(matches!(readiness, Readiness::Ready(_)), "the agent works, and yet: {readiness:?}");
}

/// `start`: the agent works in its folder, and comes to its end.
pub async fn the_work_is_done(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Edits).await else { return };
    let file = stage.spec.workdir.join(EDITED_FILE);
    let Played { session, events, keep: _keep, .. } = start(stage).await.until_its_end().await;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?} after {events:#?}", report.outcome);
    let text = std::fs::read_to_string(&file).expect("the agent wrote its file into its folder");
    assert_eq!(text, EDITED_TEXT);
    let said = |event: &AgentEvent| matches!(event, AgentEvent::Message { role: MessageRole::Assistant, .. });
    assert!(events.iter().any(said), "the agent said nothing: {events:#?}");
}

/// `next_event`: after `None`, `None` again.
pub async fn nothing_comes_after_the_end(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Edits).await else { return };
    let Played { mut session, .. } = start(stage).await.until_its_end().await;
    for _ in 0..3 {
        assert_eq!(timeout(PATIENCE, session.next_event()).await.expect("the session has ended"), None);
    }
}

/// `next_event`: safe to cancel. Its future is dropped at odd moments, and the session tells the same.
pub async fn no_event_is_lost_in_a_select(fixture: &impl AgentFixture) {
    let Some(calm) = set(fixture, Task::Edits).await else { return };
    let Some(hurried) = set(fixture, Task::Edits).await else { return };
    let (expected, _) = play(calm).await;

    let mut played = start(hurried).await;
    let deadline = Instant::now() + PATIENCE;
    let (mut broken_off, mut chance) = (0_u32, 7_u32);
    loop {
        assert!(Instant::now() < deadline, "no end after {PATIENCE:?}: {:#?}", played.events);
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let a_moment = Duration::from_millis(u64::from(chance >> 30));
        match timeout(a_moment, played.session.next_event()).await {
            Ok(Some(event)) => played.events.push(event),
            Ok(None) => break,
            Err(_) => broken_off += 1,
        }
    }
    assert_eq!(story(fixture, &played.events), story(fixture, &expected));
    if broken_off == 0 {
        crate::skip("no wait was ever broken off: the agent never paused");
    }
}

/// `SessionReport`: session, usage and denials are those that were told.
pub async fn the_report_agrees_with_the_events(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Edits).await else { return };
    let (events, report) = play(stage).await;
    let told_session = events.iter().rev().find_map(|event| match event {
        AgentEvent::Session { session_id, .. } => Some(session_id.clone()),
        _ => None,
    });
    assert_eq!(report.session_id, told_session, "the last session event names the report's session");
    let told_usage = events.iter().rev().find_map(|event| match event {
        AgentEvent::Usage(usage) => Some(*usage),
        _ => None,
    });
    assert_eq!(report.usage, told_usage.unwrap_or_default(), "the last usage event is the report's usage");
    assert_eq!(report.denials, [], "nothing was denied");
}

/// `SessionSpec::resume`: the session goes on under the id that the report gave.
pub async fn a_session_can_be_taken_up(fixture: &impl AgentFixture) {
    let Some(mut stage) = set(fixture, Task::Resumes).await else { return };
    let mut next = stage.next.take().expect("a stage for Task::Resumes has a `next`");
    let provider = stage.provider.clone();
    let played = start(stage).await.until_its_end().await;
    let report = timeout(PATIENCE, played.session.report()).await.expect("a report is quick");
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?}", report.outcome);
    assert!(report.session_id.is_some(), "the report gives no session to take up");

    next.resume = report.session_id;
    let keep = Box::new(played.keep);
    let (events, report) =
        play(Stage { provider, spec: next, next: None, living: None, told: None, keep }).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?} after {events:#?}", report.outcome);
    assert!(report.session_id.is_some(), "the session that was taken up has no id");
}

/// `SessionSpec::resume`: a session that is not there is [`FailureKind::SessionGone`].
pub async fn an_unknown_session_is_gone(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::UnknownSession).await else { return };
    assert!(stage.spec.resume.is_some(), "a stage for Task::UnknownSession resumes something");
    let (_, report) = play(stage).await;
    assert_eq!(failure(&report), FailureKind::SessionGone, "{:?}", report.outcome);
}

/// `start`: what goes wrong from then on is the session's outcome, in words.
pub async fn a_failure_is_an_outcome(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Fails).await else { return };
    let (_, report) = play(stage).await;
    failure(&report);
}

/// `readiness` says what is missing; `start` does too, as the session's outcome.
pub async fn what_is_missing_is_an_outcome(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::NotReady).await else { return };
    let expected = match readiness(&stage).await {
        Readiness::MissingBinary(_) => FailureKind::MissingBinary,
        Readiness::MissingCredentials(_) => FailureKind::MissingCredentials,
        Readiness::Ready(found) => panic!("something is missing, and yet it is ready: {found}"),
    };
    let (_, report) = play(stage).await;
    assert_eq!(failure(&report), expected, "{:?}", report.outcome);
}

/// `start`: fails with `Invalid` where the spec asks for what the provider cannot do.
pub async fn what_it_cannot_do_is_refused(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Unsupported).await else { return };
    match timeout(PATIENCE, stage.provider.start(stage.spec)).await.expect("starting is quick") {
        Ok(_) => panic!("the provider starts an agent on what it cannot do"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
    }
}

/// `SessionReport::denials`: each call that was denied, as its events told it.
pub async fn a_denied_tool_is_reported(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::DeniedTool).await else { return };
    let (events, report) = play(stage).await;
    assert!(!report.denials.is_empty(), "no denial in the report after {events:#?}");
    for denial in &report.denials {
        let told = events.iter().any(|event| {
            matches!(event, AgentEvent::Tool { call_id, status: ToolStatus::Denied, .. } if *call_id == denial.call_id)
        });
        assert!(told, "no event told of {denial:?}: {events:#?}");
    }
}

/// `Outcome::Limited`: an agent that may not take another turn ends.
pub async fn the_turn_limit_ends_it(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::TurnLimit).await else { return };
    let (events, report) = play(stage).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Turns), "after {events:#?}");
}

/// `Outcome::Limited`: an agent that has used its money ends.
pub async fn the_cost_limit_ends_it(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::CostLimit).await else { return };
    let (events, report) = play(stage).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Cost), "after {events:#?}");
}

/// `cancel`: in the middle of its work; in time, with no process left, and with the right report.
pub async fn cancelling_stops_it_in_time(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Waits).await else { return };
    let mut played = start(stage).await;
    played.up_to_its_wait().await;
    cancelled(played).await;
}

/// `cancel`: before anything was taken.
pub async fn cancelling_at_once_stops_it(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Waits).await else { return };
    cancelled(start(stage).await).await;
}

/// `cancel`: does nothing to an agent that has ended.
pub async fn cancelling_after_the_end_does_nothing(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Edits).await else { return };
    let mut played = start(stage).await.until_its_end().await;
    played.cancel().await;
    assert_eq!(played.session.next_event().await, None);
    let report = played.session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?}", report.outcome);
}

/// `report`: an agent that has not ended is cancelled first.
pub async fn a_report_before_the_end_cancels(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Waits).await else { return };
    let mut played = start(stage).await;
    played.up_to_its_wait().await;
    let Played { session, living, keep: _keep, .. } = played;
    let report = timeout(CANCEL_WITHIN, session.report()).await.expect("a report cancels, within 2 s");
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert_eq!(living.map_or(0, |living| living()), 0, "processes of the agent are left");
}

/// `AgentSession`: dropping it ends the agent, and the provider goes on.
pub async fn dropping_ends_the_agent(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Waits).await else { return };
    let mut played = start(stage).await;
    played.up_to_its_wait().await;
    let Played { session, living, keep: _keep, .. } = played;
    drop(session);
    if let Some(living) = living {
        let deadline = Instant::now() + GONE_WITHIN;
        while living() > 0 {
            assert!(Instant::now() < deadline, "{} processes of the agent live on", living());
            sleep(Duration::from_millis(20)).await;
        }
    }
    if let Some(stage) = set(fixture, Task::Edits).await {
        let (_, report) = play(stage).await;
        assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?}", report.outcome);
    }
}

async fn cancelled(mut played: Played) {
    played.cancel().await;
    if let Some(living) = &played.living {
        assert_eq!(living(), 0, "processes of the agent are left when cancel returns");
    }
    played.cancel().await;
    let Played { session, keep: _keep, .. } = played.until_its_end().await;
    let report = timeout(CANCEL_WITHIN, session.report()).await.expect("a report after the end is quick");
    assert_eq!(report.outcome, Outcome::Cancelled);
}

async fn set(fixture: &impl AgentFixture, task: Task) -> Option<Stage> {
    let stage = fixture.stage(task).await;
    if stage.is_none() {
        crate::skip(&format!("the fixture has no stage for Task::{task:?}"));
    }
    stage
}

async fn readiness(stage: &Stage) -> Readiness {
    let in_time = timeout(READY_WITHIN, stage.provider.readiness()).await;
    in_time.unwrap_or_else(|_| panic!("readiness takes more than {READY_WITHIN:?}"))
}

/// The kind of a failure, which must say something.
fn failure(report: &SessionReport) -> FailureKind {
    match &report.outcome {
        Outcome::Failed(failure) => {
            assert!(!failure.message.trim().is_empty(), "a failure without a word: {failure:?}");
            failure.kind
        }
        other => panic!("the agent was to fail: {other:?}"),
    }
}
