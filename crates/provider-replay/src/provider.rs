use std::fmt::Display;
use std::time::Duration;

use async_trait::async_trait;
use lime_core::ports::{AgentProvider, AgentSession, Readiness, SessionSpec};
use lime_core::runs::{AgentEvent, AgentMode, Failure, FailureKind, Outcome, ProviderId};
use lime_core::{Error, Result};

use crate::recording::Recording;
use crate::script::{Moment, What, script};
use crate::session::ReplaySession;

/// Plays recordings instead of starting agents.
///
/// - Of several recordings, the first one whose `when` is in the prompt is played.
/// - Keeps the limits of the run's constraints for turns and cost, and its allowed tools by their exact names; the
///   time is the engine's to keep, as with every provider.
/// - A session can be resumed by its id, also after a restart. It plays the recording from the start: a recording
///   has no memory.
#[derive(Debug, Clone)]
pub struct ReplayProvider {
    id: ProviderId,
    recordings: Vec<Recording>,
    speed: f64,
}

impl ReplayProvider {
    /// The name that runs ask for it by, unless [`named`](ReplayProvider::named) otherwise.
    pub const ID: ProviderId = ProviderId::from_static("replay");

    /// A provider that plays this recording, as fast as it was recorded.
    pub fn new(recording: Recording) -> Self {
        Self { id: Self::ID, recordings: vec![recording], speed: 1.0 }
    }

    /// The same provider, with another recording for the prompts that none before it is for.
    #[must_use]
    pub fn or(mut self, recording: Recording) -> Self {
        self.recordings.push(recording);
        self
    }

    /// The same provider under another name, to stand in for a real one.
    #[must_use]
    pub fn named(mut self, id: ProviderId) -> Self {
        self.id = id;
        self
    }

    /// The same provider, so many times as fast as recorded; with 0.0 it does not wait at all.
    ///
    /// - At least a thousandth of the recorded speed.
    #[must_use]
    pub fn speed(mut self, speed: f64) -> Self {
        self.speed = if speed > 0.0 { speed.max(0.001) } else { f64::INFINITY };
        self
    }

    fn for_prompt(&self, prompt: &str) -> Result<&Recording> {
        let fits = |recording: &&Recording| recording.when().is_none_or(|text| prompt.contains(text));
        self.recordings.iter().find(fits).ok_or_else(|| {
            let known: Vec<_> = self.recordings.iter().filter_map(Recording::when).collect();
            invalid(format!("no recording is for this prompt; they are for prompts with one of: {known:?}"))
        })
    }

    fn for_session(&self, session_id: &str) -> Option<&Recording> {
        let (name, _run) = session_id.strip_prefix("replay/")?.rsplit_once('/')?;
        self.recordings.iter().find(|recording| recording.name() == name)
    }

    fn play(&self, recording: &Recording, session_id: String, spec: SessionSpec) -> ReplaySession {
        let model = recording.model().map(str::to_owned);
        let mut moments = script(recording, &spec);
        for moment in &mut moments {
            moment.wait = Duration::from_secs_f64(moment.wait.as_secs_f64() / self.speed);
        }
        moments.push_front(Moment::now(What::Tell(AgentEvent::Session {
            session_id: session_id.clone(),
            model,
        })));
        moments.push_front(Moment::now(What::Tell(notice(recording.name()))));
        ReplaySession::new(spec.workdir, Some(session_id), moments)
    }
}

#[async_trait]
impl AgentProvider for ReplayProvider {
    fn id(&self) -> ProviderId {
        self.id.clone()
    }

    async fn readiness(&self) -> Readiness {
        let names: Vec<_> = self.recordings.iter().map(Recording::name).collect();
        Readiness::Ready(format!("plays recordings, no model is called: {}", names.join(", ")))
    }

    fn refuses_unlisted(&self) -> bool {
        true
    }

    /// What the request asks wrongly is an error here. What goes wrong with the agent or its folder is the session's
    /// outcome, so that it is told and recorded like every other end.
    async fn start(&self, spec: SessionSpec) -> Result<Box<dyn AgentSession>> {
        let recording = match &spec.resume {
            None => self.for_prompt(&spec.request.prompt)?,
            Some(id) => match self.for_session(id) {
                Some(recording) => recording,
                None => {
                    return Ok(refused(
                        spec,
                        FailureKind::SessionGone,
                        "There is no such session to resume.",
                    ));
                }
            },
        };
        check_mode(recording, spec.request.mode)?;
        if !spec.workdir.is_dir() {
            return Ok(refused(spec, FailureKind::Workspace, "The folder to work in is not there."));
        }
        let session_id = match &spec.resume {
            Some(id) => id.clone(),
            None => format!("replay/{}/{}", recording.name(), spec.request.run_id),
        };
        Ok(Box::new(self.play(recording, session_id, spec)))
    }
}

/// A session that fails at once.
fn refused(spec: SessionSpec, kind: FailureKind, message: &str) -> Box<dyn AgentSession> {
    let end = Moment::now(What::End(Outcome::Failed(Failure::new(kind, message))));
    Box::new(ReplaySession::new(spec.workdir, None, [end].into()))
}

fn notice(name: impl Display) -> AgentEvent {
    AgentEvent::system(format!("This is a recording ({name}): no model is called."))
}

/// A plan or a review changes nothing, and a recording cannot do without what it does.
fn check_mode(recording: &Recording, mode: AgentMode) -> Result<()> {
    let changes = recording.steps.iter().find(|step| step.action.changes_files());
    match (mode, changes) {
        (AgentMode::Plan | AgentMode::Review, Some(step)) => Err(invalid(format!(
            "the mode `{mode}` changes no files, and the recording `{}` does at its line {}; give it a recording \
             without edits",
            recording.name(),
            step.line
        ))),
        (AgentMode::Plan | AgentMode::Review, None) | (AgentMode::Implement | AgentMode::Bugfix, _) => Ok(()),
    }
}

fn invalid(message: String) -> Error {
    Error::invalid("replay.start", message)
}
