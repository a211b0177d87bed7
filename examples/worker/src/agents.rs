//! Whose runs this worker can work.

use std::path::Path;

use assembly_lime::FactoryBuilder;
use assembly_lime::claude::ClaudeProvider;
use assembly_lime::codex::CodexProvider;
use assembly_lime::ports::{AgentProvider, Readiness};
use assembly_lime::replay::{Recording, ReplayProvider};

use crate::exit::Refusal;
use crate::settings::{Agent, Settings};

/// Agents that are ready to be started.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    claude: Option<ClaudeProvider>,
    codex: Option<CodexProvider>,
    replay: Option<ReplayProvider>,
}

impl Agents {
    /// Those that were named, all of which must be ready; if nobody was, those that are.
    ///
    /// - A worker that cannot start an agent would take its runs and fail them, so it does not begin.
    pub(crate) async fn find(settings: &Settings) -> Result<Self, Refusal> {
        let named = settings.providers.as_deref();
        let mut agents = Self::default();
        let wanted = named.unwrap_or(&[Agent::Claude, Agent::Codex, Agent::Replay]);
        let mut missing = Vec::new();
        for agent in wanted {
            match agents.add(*agent, settings).await? {
                Readiness::Ready(found) => tracing::info!(agent = agent.as_str(), found, "an agent is ready"),
                Readiness::MissingBinary(how) | Readiness::MissingCredentials(how) => {
                    if named.is_some() {
                        return Err(Refusal::variable(
                            "LIME_PROVIDERS",
                            format!("{}: {how}", agent.as_str()),
                        ));
                    }
                    missing.push(format!("{}: {how}", agent.as_str()));
                }
            }
        }
        if agents.claude.is_none() && agents.codex.is_none() && agents.replay.is_none() {
            let why = format!("no agent is ready on this machine:\n  {}", missing.join("\n  "));
            return Err(Refusal::variable("LIME_PROVIDERS", why));
        }
        Ok(agents)
    }

    async fn add(&mut self, agent: Agent, settings: &Settings) -> Result<Readiness, Refusal> {
        Ok(match agent {
            Agent::Claude => {
                let claude = ClaudeProvider::from_env();
                let readiness = claude.readiness().await;
                self.claude = is_ready(&readiness).then_some(claude);
                readiness
            }
            Agent::Codex => {
                let codex = CodexProvider::from_env(settings.state_dir.join("codex"));
                let readiness = codex.readiness().await;
                self.codex = is_ready(&readiness).then_some(codex);
                readiness
            }
            Agent::Replay => match &settings.recordings {
                Some(folder) => {
                    let replay = recordings(folder)?;
                    let readiness = replay.readiness().await;
                    self.replay = Some(replay);
                    readiness
                }
                None => {
                    Readiness::MissingBinary("LIME_RECORDINGS names no folder with recordings".to_owned())
                }
            },
        })
    }

    /// Gives them to a factory.
    pub(crate) fn join(self, mut factory: FactoryBuilder) -> FactoryBuilder {
        if let Some(claude) = self.claude {
            factory = factory.provider(claude);
        }
        if let Some(codex) = self.codex {
            factory = factory.provider(codex);
        }
        if let Some(replay) = self.replay {
            factory = factory.provider(replay);
        }
        factory
    }
}

fn is_ready(readiness: &Readiness) -> bool {
    matches!(readiness, Readiness::Ready(_))
}

/// The recordings of a folder, in the order of their names; those without a `when` come last, since they fit anything.
fn recordings(folder: &Path) -> Result<ReplayProvider, Refusal> {
    let refused = |why: String| Refusal::variable("LIME_RECORDINGS", why);
    let unreadable = |error| refused(format!("{} cannot be read: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    let read = files.iter().map(Recording::load).collect::<Result<Vec<_>, _>>();
    let mut read = read.map_err(|error| refused(error.to_string()))?;
    read.sort_by_key(|recording| recording.when().is_none());
    let mut read = read.into_iter();
    let first = read.next().ok_or_else(|| refused(format!("there is no *.toml in {}", folder.display())))?;
    Ok(read.fold(ReplayProvider::new(first), ReplayProvider::or))
}
