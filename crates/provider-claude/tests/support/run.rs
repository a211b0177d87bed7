//! Running a provider in tests.

use std::path::Path;
use std::time::{Duration, Instant};

use lime_core::Id;
use lime_core::governance::{Allowlist, EnvValue};
use lime_core::ports::{AgentSession, SessionSpec};
use lime_core::runs::{AgentEvent, AgentMode, AgentRunRequest, Constraints};

use crate::processes::marked;

/// A spec for work in a folder, with the default tools and no limits.
pub(crate) fn spec(workdir: &Path, mode: AgentMode, prompt: &str) -> SessionSpec {
    SessionSpec {
        request: AgentRunRequest {
            run_id: Id::new(1),
            tenant_id: Id::new(1),
            project_id: None,
            ticket_id: None,
            mode,
            prompt: prompt.to_owned(),
            repo: None,
            constraints: Some(Constraints::default()),
        },
        workdir: workdir.to_owned(),
        instructions: String::new(),
        model: None,
        resume: None,
        tools: Allowlist::all(),
        ask: Vec::new(),
        env: Vec::new(),
    }
}

/// The same with one more variable.
pub(crate) fn with_env(mut spec: SessionSpec, name: &str, value: &str) -> SessionSpec {
    spec.env.push(EnvValue::secret(name, value).unwrap());
    spec
}

/// Every event until the end.
pub(crate) async fn all(session: &mut Box<dyn AgentSession>) -> Vec<AgentEvent> {
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        events.push(event);
    }
    events
}

/// Waits for the first event that is meant; panics if the session ends before.
pub(crate) async fn until(session: &mut Box<dyn AgentSession>, meant: impl Fn(&AgentEvent) -> bool) {
    loop {
        let event = session.next_event().await.expect("the session goes on");
        if meant(&event) {
            return;
        }
    }
}

/// Waits until no process has this text in its environment; gives back how many still have it after a second.
pub(crate) async fn processes_left(mark: &str) -> usize {
    let patience = Instant::now() + Duration::from_secs(1);
    loop {
        let left = marked(mark);
        if left == 0 || Instant::now() > patience {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
