//! Who works on the ticket.

use assembly_lime::claude::ClaudeProvider;
use assembly_lime::codex::CodexProvider;
use assembly_lime::ports::{AgentProvider, Readiness};
use assembly_lime::replay::{Recording, ReplayProvider};
use assembly_lime::runs::ProviderId;

use crate::args::{Args, Choice};
use crate::exit::Refusal;
use crate::place::Place;
use crate::show::text::first_line;
use crate::ticket::Wish;

/// An agent that can be started, and why it is this one.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) agent: Agent,
    pub(crate) why: String,
}

/// The kinds of agent.
#[derive(Debug)]
pub(crate) enum Agent {
    Claude(ClaudeProvider),
    Codex(CodexProvider),
    Replay(ReplayProvider),
}

impl Agent {
    /// The name that a run asks for it by.
    pub(crate) fn id(&self) -> ProviderId {
        match self {
            Self::Claude(claude) => claude.id(),
            Self::Codex(codex) => codex.id(),
            Self::Replay(replay) => replay.id(),
        }
    }

    /// Whether it only plays a recorded session.
    pub(crate) fn is_recorded(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    async fn readiness(&self) -> Readiness {
        match self {
            Self::Claude(claude) => claude.readiness().await,
            Self::Codex(codex) => codex.readiness().await,
            Self::Replay(replay) => replay.readiness().await,
        }
    }

    fn claude() -> Self {
        Self::Claude(ClaudeProvider::from_env())
    }

    fn codex(place: &Place) -> Self {
        Self::Codex(CodexProvider::from_env(place.codex()))
    }
}

impl Chosen {
    /// The agent that the arguments ask for.
    ///
    /// - The demo's own recording is played in the demo project and for its own ticket only.
    pub(crate) async fn by(
        args: &Args,
        place: &Place,
        recording: Recording,
        wish: &Wish,
    ) -> Result<Self, Refusal> {
        let own_recording = args.recording.is_some();
        if let Some(when) = recording.when().filter(|when| own_recording && !wish.prompt.contains(when)) {
            return Err(Refusal::new(format!("the recording is only for prompts with \"{when}\" in them")));
        }
        let the_demo = args.repo.is_none() && args.prompt.is_none();
        match args.provider {
            Choice::Claude | Choice::Codex if own_recording => Err(Refusal::new(
                "a recording is played instead of an agent: leave either --provider or --recording out",
            )),
            Choice::Claude => Self::ready(Agent::claude()).await,
            Choice::Codex => Self::ready(Agent::codex(place)).await,
            Choice::Auto | Choice::Replay if own_recording => Ok(Self::recorded(recording, "")),
            Choice::Replay if the_demo => Ok(Self::recorded(recording, "")),
            Choice::Replay => Err(Refusal::new(
                "the demo's recording knows nothing but the demo's ticket: leave --repo and --prompt out, or name a \
                 recording of your own with --recording",
            )),
            Choice::Auto => Self::first_ready(place, recording, the_demo).await,
        }
    }

    fn recorded(recording: Recording, why: &str) -> Self {
        let why = format!("recording \"{}\"{why}", recording.name());
        Self { agent: Agent::Replay(ReplayProvider::new(recording)), why }
    }

    async fn ready(agent: Agent) -> Result<Self, Refusal> {
        match agent.readiness().await {
            Readiness::Ready(why) => Ok(Self { agent, why }),
            Readiness::MissingBinary(how) | Readiness::MissingCredentials(how) => Err(Refusal::new(how)),
        }
    }

    async fn first_ready(place: &Place, recording: Recording, the_demo: bool) -> Result<Self, Refusal> {
        let (claude, codex) = tokio::join!(Self::ready(Agent::claude()), Self::ready(Agent::codex(place)));
        let (no_claude, no_codex) = match (claude, codex) {
            (Ok(claude), _) => return Ok(claude),
            (Err(_), Ok(codex)) => return Ok(codex),
            (Err(no_claude), Err(no_codex)) => (no_claude.to_string(), no_codex.to_string()),
        };
        tracing::info!(claude = no_claude, codex = no_codex, "no agent");
        if the_demo {
            return Ok(Self::recorded(recording, ", since there is no Claude or Codex with a key"));
        }
        let (no_claude, no_codex) = (first_line(&no_claude), first_line(&no_codex));
        Err(Refusal::new(format!(
            "there is no agent for your ticket; get one of these two:\n  Claude: {no_claude}\n  Codex:  {no_codex}"
        )))
    }
}
