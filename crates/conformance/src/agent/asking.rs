//! Questions to a person, and what is said to an agent while it works.

use std::path::PathBuf;
use std::time::Duration;

use lime_core::ErrorKind;
use lime_core::governance::{ActionScope, ApprovalStatus};
use lime_core::ports::ToolAnswer;
use lime_core::runs::{AgentEvent, MessageRole, Outcome, ToolStatus};
use tokio::time::{Instant, sleep, timeout};

use super::played::{Played, start};
use super::{AgentFixture, EDITED_FILE, EDITED_TEXT, GONE_WITHIN, Task, cancelled, set};

/// The reason that is given for a no.
const REASON: &str = "Nobody writes that file before Monday.";
/// What is said to an agent.
const MESSAGE: &str = "The customer prefers pears, says message number";
/// All that the agent has been told.
type Told = dyn Fn() -> String + Send + Sync;

/// How long a question is left open to see that it waits.
const A_WHILE: Duration = Duration::from_millis(1_500);

/// `SessionSpec::ask`: a call that is meant comes as a question, with all that there is to know; allowed, it is made.
pub async fn an_allowed_call_is_made(fixture: &impl AgentFixture) {
    let Some((mut played, file)) = asking(fixture).await else { return };
    let call = question(&mut played).await;
    assert!(!file.exists(), "the call was made before anybody allowed it");
    played.session.answer(&call, ToolAnswer::Allow).await;
    let played = played.until_its_end().await;
    assert!(ended(&played.events, &call) == Some(ToolStatus::Completed), "{:#?}", played.events);
    let report = played.session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?}", report.outcome);
    assert_eq!(report.denials, [], "nothing was denied");
    assert_eq!(std::fs::read_to_string(&file).expect("the call was made"), EDITED_TEXT);
}

/// `AgentSession::answer`: a denied call is not made; the agent is told why, and goes on without it.
pub async fn a_denied_call_is_not_made(fixture: &impl AgentFixture) {
    let Some((mut played, file)) = asking(fixture).await else { return };
    let call = question(&mut played).await;
    played.session.answer(&call, ToolAnswer::Deny(REASON.into())).await;
    let said = |event: &AgentEvent| matches!(event, AgentEvent::Message { role: MessageRole::Assistant, .. });
    played.until("a word after the denial", said).await;
    let Played { session, events, told, .. } = played.until_its_end().await;
    assert!(ended(&events, &call) == Some(ToolStatus::Denied), "{events:#?}");
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?} after {events:#?}", report.outcome);
    let denied: Vec<&str> = report.denials.iter().map(|denial| denial.call_id.as_str()).collect();
    assert_eq!(denied, [call.as_str()]);
    assert!(!file.exists(), "the call was made though it was denied");
    was_told(told.as_deref(), &events, REASON);
}

/// `AgentSession::answer`: a question waits; an answer to one that is not open does nothing.
pub async fn a_question_waits_for_its_own_answer(fixture: &impl AgentFixture) {
    let Some((mut played, file)) = asking(fixture).await else { return };
    let call = question(&mut played).await;
    played.session.answer("a-call-that-nobody-made", ToolAnswer::Deny(REASON.into())).await;
    let until = Instant::now() + A_WHILE;
    while let Ok(event) = tokio::time::timeout_at(until, played.session.next_event()).await {
        let told = &played.events;
        let event = event.unwrap_or_else(|| panic!("it ended with a question open: {told:#?}"));
        let on = matches!(event, AgentEvent::Tool { status: ToolStatus::Completed, .. });
        assert!(!on, "it did not wait: {event:?}");
        played.events.push(event);
    }
    assert!(!file.exists(), "the call was made before anybody allowed it");
    played.session.answer(&call, ToolAnswer::Allow).await;
    played.session.answer(&call, ToolAnswer::Deny(REASON.into())).await;
    let mut played = played.until_its_end().await;
    played.session.answer(&call, ToolAnswer::Deny(REASON.into())).await;
    assert!(file.exists(), "it was allowed first");
    let report = played.session.report().await;
    assert_eq!(report.denials, [], "it was allowed first");
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?}", report.outcome);
}

/// `next_event`: a call that the provider's own rules refuse is not asked about.
pub async fn nobody_is_asked_in_vain(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::AsksInVain).await else { return };
    assert!(!stage.spec.ask.is_empty(), "a stage for Task::AsksInVain asks");
    let played = start(stage).await.until_its_end().await;
    let asked = played.events.iter().find(|event| matches!(event, AgentEvent::Approval { .. }));
    assert_eq!(asked, None, "somebody was asked in vain");
    let report = played.session.report().await;
    assert!(!report.denials.is_empty(), "no denial in the report after {:#?}", played.events);
}

/// `cancel`: in time and without a trace while a question is open.
pub async fn cancelling_while_it_asks_stops_it(fixture: &impl AgentFixture) {
    let Some((mut played, file)) = asking(fixture).await else { return };
    question(&mut played).await;
    cancelled(played).await;
    assert!(!file.exists(), "the call was made though nobody allowed it");
}

/// `AgentSession`: dropping it while a question is open ends the agent, and the call is not made.
pub async fn dropping_while_it_asks_ends_it(fixture: &impl AgentFixture) {
    let Some((mut played, file)) = asking(fixture).await else { return };
    question(&mut played).await;
    let Played { session, living, keep: _keep, .. } = played;
    drop(session);
    let deadline = Instant::now() + GONE_WITHIN;
    while living.as_ref().is_some_and(|living| living() > 0) {
        assert!(Instant::now() < deadline, "processes of the agent live on");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!file.exists(), "the call was made though nobody allowed it");
}

/// `AgentSession::send`: the agent hears what is said to it while it works.
pub async fn a_message_is_heard(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Listens).await else { return };
    let mut played = start(stage).await;
    played.until("a first word", is_word).await;
    let Some(hears) = say(&mut played, 0).await else { return };
    assert!(hears, "the agent works, and hears nothing: {:#?}", played.events);
    let Played { session, events, told, .. } = played.until_its_end().await;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?} after {events:#?}", report.outcome);
    heard(told.as_deref(), &events, 0);
}

/// `AgentSession::send`: a message is heard, whenever it was sent, or refused because the agent has come to its end.
pub async fn no_message_is_lost(fixture: &impl AgentFixture) {
    let Some(stage) = set(fixture, Task::Listens).await else { return };
    let mut played = start(stage).await;
    let mut sent = Vec::new();
    while let Ok(Some(event)) = timeout(super::PATIENCE, played.session.next_event()).await {
        // Also after what may be its last word, when its end is on its way.
        let word = is_word(&event);
        played.events.push(event);
        if word && sent.len() < 3 {
            let number = sent.len();
            let Some(hears) = say(&mut played, number).await else { return };
            sent.push(hears);
        }
    }
    let mut played = played.until_its_end().await;
    assert_eq!(say(&mut played, 9).await, Some(false), "an agent that has ended hears nothing");
    let Played { session, events, told, .. } = played;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{:?} after {events:#?}", report.outcome);
    for number in (0..sent.len()).filter(|number| sent[*number]) {
        heard(told.as_deref(), &events, number);
    }
    let told_usage = events.iter().rev().find_map(|event| match event {
        AgentEvent::Usage(usage) => Some(*usage),
        _ => None,
    });
    assert_eq!(report.usage, told_usage.unwrap_or_default(), "the last usage event is the report's usage");
}

/// A session of [`Task::Asks`], and the file that its call writes.
async fn asking(fixture: &impl AgentFixture) -> Option<(Played, PathBuf)> {
    let stage = set(fixture, Task::Asks).await?;
    assert!(!stage.spec.ask.is_empty(), "a stage for Task::Asks asks");
    let file = stage.spec.workdir.join(EDITED_FILE);
    Some((start(stage).await, file))
}

/// Waits for the question; gives the id of its call.
async fn question(played: &mut Played) -> String {
    let asked = played.until("a question", |event| matches!(event, AgentEvent::Approval { .. })).await;
    let AgentEvent::Approval { approval_id, scope, action, call_id, status, summary, payload } = asked else {
        unreachable!("only a question is waited for");
    };
    assert_eq!((approval_id, status), (None, ApprovalStatus::Pending), "nobody has stored it yet");
    assert_eq!(scope, ActionScope::tool());
    assert!(
        !action.is_empty() && !summary.trim().is_empty() && payload.is_some(),
        "it says what it is about"
    );
    call_id.expect("a question about a call names the call")
}

/// How a call ended.
fn ended(events: &[AgentEvent], call: &str) -> Option<ToolStatus> {
    events.iter().rev().find_map(|event| match event {
        AgentEvent::Tool { call_id, status, .. } if call_id == call => Some(*status),
        _ => None,
    })
}

fn is_word(event: &AgentEvent) -> bool {
    matches!(event, AgentEvent::Message { role: MessageRole::Assistant, .. })
}

/// Says something to the agent; whether it will hear it, or `None` if the provider's agents hear nothing.
async fn say(played: &mut Played, number: usize) -> Option<bool> {
    match played.session.send(&format!("{MESSAGE} {number}.")).await {
        Ok(hears) => Some(hears),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            crate::skip("the provider's agents hear nothing but their prompt");
            None
        }
    }
}

fn heard(told: Option<&Told>, events: &[AgentEvent], number: usize) {
    was_told(told, events, &format!("{MESSAGE} {number}."));
}

/// The agent was told this, as the stage knows, or as its own events show.
fn was_told(told: Option<&Told>, events: &[AgentEvent], what: &str) {
    match told {
        Some(told) => assert!(told().contains(what), "the agent was not told {what:?}: {events:#?}"),
        None if events.iter().any(|event| format!("{event:?}").contains(what)) => {}
        None => crate::skip("the stage cannot tell what the agent was told"),
    }
}
