//! What the agent of a run is told, and what it would be.

use lime_core::agents::{InstructionLayer, ResolvedInstructions};
use lime_core::governance::{Allowlist, DefaultTools};
use lime_core::planning::{Project, Ticket};
use lime_core::ports::{InstructionSource, RunTarget};
use lime_core::repos::RepositoryConfig;
use lime_core::runs::AgentRun;
use lime_core::{Error, Lookup, LookupExt, Query, Result, Scope, Stored};
use tracing::instrument;

use crate::Factory;
use crate::factory::Parts;

const RESOLVE: &str = "instructions.resolve";

/// What the agent of a run would be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The layers in their order, and the whole text.
    pub instructions: ResolvedInstructions,
    /// What comes after them.
    pub prompt: String,
    /// The model; the provider's default, if none.
    pub model: Option<String>,
    /// The tools that it could call; those of its provider, if there is no list.
    pub tools: Allowlist,
    /// What is known of the repository's own files: those of the commit that was read last.
    pub repository: Option<RepositoryConfig>,
}

impl Parts {
    /// Where instructions are kept: in the storage, unless the factory was given another source.
    pub(crate) fn instructions(&self) -> &dyn InstructionSource {
        match &self.instructions {
            Some(source) => &**source,
            None => &*self.storage,
        }
    }

    /// Puts in order what a run is told: what was written for it, what its ticket says, what its repository says.
    pub(crate) fn resolve(
        &self,
        run: &AgentRun,
        written: &[InstructionLayer],
        ticket: Option<&Stored<Ticket>>,
        config: Option<&RepositoryConfig>,
    ) -> Result<ResolvedInstructions> {
        let provider = self.providers.get(&run.provider);
        let reads = |path: &str| provider.is_some_and(|provider| provider.reads(path));
        let ticket = ticket.map(InstructionLayer::of_ticket);
        let files = config.map(|config| config.layers(reads)).unwrap_or_default();
        let layers = written.iter().chain(&ticket).chain(&files);
        ResolvedInstructions::resolve(layers, &run.provider, run.mode)
            .map_err(|too_long| Error::invalid(RESOLVE, too_long.to_string()))
    }
}

/// The tools of a run: what the tenant gives its agents, narrowed by the run.
pub(crate) fn tools<'d>(
    run: &AgentRun,
    defaults: impl IntoIterator<Item = &'d DefaultTools>,
) -> Result<Allowlist> {
    let own =
        run.constraints.tools().map_err(|invalid| Error::invalid("tools.resolve", invalid.to_string()))?;
    Ok(Allowlist::defaults(defaults, &run.provider).narrow(&own))
}

impl Factory {
    /// What the agent of a run would be told, if it were submitted and worked now; nothing is stored.
    ///
    /// - Of the repository's own files it is told what the commit had that was read last: a run reads those of the
    ///   commit that it starts from. What a provider adds by itself, such as that a plan changes no file, is no part of it.
    /// - Fails with `Invalid` if the instructions are too long, and names the layer; the run would fail with it, too.
    #[instrument(skip_all, fields(tenant = %scope.tenant(), project = %run.project_id, provider = %run.provider))]
    pub async fn preview(&self, scope: &Scope, run: &AgentRun) -> Result<Preview> {
        let storage = self.storage();
        let project: Stored<Project> = Lookup::get(storage, scope, run.project_id).await?;
        let ticket: Option<Stored<Ticket>> = match run.ticket_id {
            Some(ticket) => Some(Lookup::get(storage, scope, ticket).await?),
            None => None,
        };
        let repository_id = run.repository_id.or_else(|| ticket.as_ref()?.repository_id);
        let repository = match repository_id {
            Some(repository) if self.parts.repository_instructions => {
                let query = Query::all().filter(RepositoryConfig::REPOSITORY_ID.eq(repository));
                storage.find(scope, query).await?.map(|config| config.value)
            }
            Some(_) | None => None,
        };
        let target = RunTarget { repository_id, ..RunTarget::from(run) };
        let written = self.parts.instructions().layers(scope, target).await?;
        let instructions = self.parts.resolve(run, &written, ticket.as_ref(), repository.as_ref())?;
        let model = run.model.clone().or(project.value.config.model);
        let defaults = storage.all(scope, Query::<DefaultTools>::all()).await?;
        let tools = tools(run, defaults.iter().map(|defaults| &defaults.value))?;
        Ok(Preview { instructions, prompt: run.input_prompt.clone(), model, tools, repository })
    }
}
