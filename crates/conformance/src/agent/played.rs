use std::any::Any;
use std::time::Duration;

use lime_core::ports::{AgentSession, SessionReport};
use lime_core::runs::AgentEvent;
use tokio::time::{Instant, timeout, timeout_at};

use super::{AgentFixture, CANCEL_WITHIN, PATIENCE, Stage};

/// A session, and what it has told.
pub(super) struct Played {
    pub(super) session: Box<dyn AgentSession>,
    pub(super) events: Vec<AgentEvent>,
    pub(super) living: Option<Box<dyn Fn() -> usize + Send + Sync>>,
    pub(super) told: Option<Box<dyn Fn() -> String + Send + Sync>>,
    pub(super) keep: Box<dyn Any + Send + Sync>,
}

impl Played {
    pub(super) async fn until_its_end(mut self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(event) = timeout_at(deadline, self.session.next_event()).await else {
                panic!("no end after {PATIENCE:?}: {:#?}", self.events);
            };
            match event {
                Some(event) => self.events.push(event),
                None => break,
            }
        }
        let status = self.events.iter().find(|event| matches!(event, AgentEvent::Status { .. }));
        assert_eq!(status, None, "the run's status is the engine's to tell");
        self
    }

    /// Takes events until the one that is meant, and gives it.
    pub(super) async fn until(&mut self, what: &str, meant: impl Fn(&AgentEvent) -> bool) -> AgentEvent {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(event) = timeout_at(deadline, self.session.next_event()).await else {
                panic!("no {what} after {PATIENCE:?}: {:#?}", self.events);
            };
            let Some(event) = event else { panic!("it ended without {what}: {:#?}", self.events) };
            self.events.push(event.clone());
            if meant(&event) {
                return event;
            }
        }
    }

    /// Takes events until the agent has begun and nothing more comes for a while.
    pub(super) async fn up_to_its_wait(&mut self) {
        let first = timeout(PATIENCE, self.session.next_event()).await.expect("the agent begins");
        self.events.push(first.expect("the agent has not ended"));
        while let Ok(event) = timeout(Duration::from_secs(1), self.session.next_event()).await {
            let told = &self.events;
            self.events.push(event.unwrap_or_else(|| panic!("the agent was to wait, and ended: {told:#?}")));
        }
    }

    pub(super) async fn cancel(&mut self) {
        let in_time = timeout(CANCEL_WITHIN, self.session.cancel()).await.is_ok();
        assert!(in_time, "cancelling takes more than {CANCEL_WITHIN:?}");
    }
}

pub(super) async fn start(stage: Stage) -> Played {
    let Stage { provider, spec, living, told, keep, .. } = stage;
    let session = timeout(PATIENCE, provider.start(spec)).await.expect("starting is quick").unwrap();
    Played { session, events: Vec::new(), living, told, keep }
}

pub(super) async fn play(stage: Stage) -> (Vec<AgentEvent>, SessionReport) {
    let Played { session, events, keep: _keep, .. } = start(stage).await.until_its_end().await;
    let report = timeout(PATIENCE, session.report()).await.expect("a report after the end is quick");
    (events, report)
}

/// What a session told, with the pieces of a message put together, since they can be cut anywhere.
pub(super) fn story(fixture: &impl AgentFixture, events: &[AgentEvent]) -> Vec<String> {
    let mut story: Vec<String> = Vec::new();
    let mut in_pieces = false;
    for event in events {
        match event {
            AgentEvent::Delta { text } if in_pieces => {
                if let Some(line) = story.last_mut() {
                    line.push_str(text);
                }
            }
            AgentEvent::Delta { text } => story.push(format!("delta: {text}")),
            _ => {
                // What is left out does not part two pieces.
                let Some(told) = fixture.told(event) else { continue };
                story.push(told);
            }
        }
        in_pieces = matches!(event, AgentEvent::Delta { .. });
    }
    story
}
