use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use lime_core::governance::PriceTable;
use lime_core::ports::{
    AgentProvider, Author, Clock, EventStream, InstructionSource, Live, RepoProvider, Storage, Workspaces,
};
use lime_core::repos::{CodeDiff, RepoKind, Repository};
use lime_core::runs::{AgentRun, ProviderId, Seq};
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use tracing::instrument;

use crate::{SystemClock, Vault};

/// Submits runs, shows them, and does to them what people ask for; clones share everything.
///
/// ```
/// # async fn example() -> lime_core::Result<()> {
/// use lime_core::memory::MemoryStorage;
/// use lime_engine::Factory;
///
/// let factory = Factory::builder(MemoryStorage::default()).build();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Factory {
    pub(crate) parts: Arc<Parts>,
}

pub(crate) struct Parts {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) providers: HashMap<ProviderId, Arc<dyn AgentProvider>>,
    pub(crate) repos: HashMap<RepoKind, Arc<dyn RepoProvider>>,
    pub(crate) workspaces: Option<Arc<dyn Workspaces>>,
    /// None for what the storage has.
    pub(crate) instructions: Option<Arc<dyn InstructionSource>>,
    pub(crate) repository_instructions: bool,
    pub(crate) author: Author,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) prices: Arc<PriceTable>,
    /// What opens the variables of projects and agents.
    pub(crate) vault: Option<Vault>,
}

/// Puts a factory together.
pub struct FactoryBuilder(Parts);

impl fmt::Debug for Factory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Factory").field("providers", &self.parts.providers.keys()).finish_non_exhaustive()
    }
}

impl fmt::Debug for FactoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FactoryBuilder")
    }
}

impl FactoryBuilder {
    /// Agents that runs may ask for, by the provider's name; a second one of the same name replaces the first.
    #[must_use]
    pub fn provider(mut self, provider: impl AgentProvider + 'static) -> Self {
        self.0.providers.insert(provider.id(), Arc::new(provider));
        self
    }

    /// A kind of repository.
    #[must_use]
    pub fn repos(mut self, repos: impl RepoProvider + 'static) -> Self {
        self.0.repos.insert(repos.kind(), Arc::new(repos));
        self
    }

    /// Where checkouts are made; a worker needs it, a server that only submits does not.
    #[must_use]
    pub fn workspaces(mut self, workspaces: impl Workspaces + 'static) -> Self {
        self.0.workspaces = Some(Arc::new(workspaces));
        self
    }

    /// Where instructions are kept; in the storage unless this is given.
    #[must_use]
    pub fn instructions(mut self, source: impl InstructionSource + 'static) -> Self {
        self.0.instructions = Some(Arc::new(source));
        self
    }

    /// Whether agents are told what a repository's own files say to them, such as `AGENTS.md`, as
    /// [`RepositoryConfig`](lime_core::repos::RepositoryConfig) has it; they are unless this is given.
    #[must_use]
    pub fn repository_instructions(mut self, told: bool) -> Self {
        self.0.repository_instructions = told;
        self
    }

    /// Who commits are by; `Assembly Lime <agent@assembly-lime.invalid>` unless this is given.
    #[must_use]
    pub fn author(mut self, author: Author) -> Self {
        self.0.author = author;
        self
    }

    /// What opens secrets: the variables of a run's project and of its agent are given to agents then.
    ///
    /// - Without it agents get none of them.
    #[must_use]
    pub fn vault(mut self, vault: Vault) -> Self {
        self.0.vault = Some(vault);
        self
    }

    /// The time of day; the machine's unless this is given.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.0.clock = Arc::new(clock);
        self
    }

    /// What models cost, for budgets; the prices that this version was [shipped](PriceTable::shipped) with unless this is
    /// given.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.0.prices = Arc::new(prices);
        self
    }

    /// The factory.
    #[must_use]
    pub fn build(self) -> Factory {
        Factory { parts: Arc::new(self.0) }
    }
}

impl Factory {
    /// Begins to put a factory together on this storage.
    pub fn builder(storage: impl Storage + 'static) -> FactoryBuilder {
        FactoryBuilder(Parts {
            storage: Arc::new(storage),
            providers: HashMap::new(),
            repos: HashMap::new(),
            workspaces: None,
            instructions: None,
            repository_instructions: true,
            author: Author { name: "Assembly Lime".into(), email: "agent@assembly-lime.invalid".into() },
            clock: Arc::new(SystemClock),
            prices: Arc::new(PriceTable::shipped()),
            vault: None,
        })
    }

    /// Everything that is stored.
    pub fn storage(&self) -> &dyn Storage {
        &*self.parts.storage
    }

    /// Looks at a location and stores it as a repository of the tenant, or gives back the one that is stored.
    ///
    /// - Fails as [`RepoProvider::describe`] does, and with `Unsupported` for a kind that was not given.
    #[instrument(skip(self), fields(tenant = %scope.tenant()))]
    pub async fn connect_repository(
        &self,
        scope: &Scope,
        kind: RepoKind,
        location: &str,
    ) -> Result<Stored<Repository>> {
        let description = self.parts.repos(kind, "factory.connect_repository")?.describe(location).await?;
        let repository = description.into_repository(kind);
        let query = Query::all()
            .filter(Repository::PROVIDER.eq(kind))
            .filter(Repository::FULL_NAME.eq(repository.full_name.clone()));
        match self.storage().find(scope, query).await? {
            Some(known) => {
                let value = Repository {
                    is_enabled: known.is_enabled,
                    connector_id: known.connector_id,
                    ..repository
                };
                if known.value == value {
                    Ok(known)
                } else {
                    self.storage().update(scope, &Stored { value, ..known }).await
                }
            }
            None => self.storage().insert(scope, repository).await,
        }
    }

    /// A run.
    pub async fn run(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        Lookup::get(self.storage(), scope, run).await
    }

    /// What happens in a run after a position, live, until its end; without what stays on the server side.
    pub fn watch(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        let for_client = |live| match live {
            Live::Recorded(event) => Live::Recorded(event.for_client()),
            Live::Ephemeral(event) => Live::Ephemeral(event.for_client()),
        };
        self.storage().subscribe(scope, run, after).map(move |live| live.map(for_client)).boxed()
    }

    /// Waits for a run's end and gives the run.
    pub async fn wait(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Stored<AgentRun>> {
        let seen = self.run(scope, run).await?.last_seq;
        let mut events = self.storage().subscribe(scope, run, seen.saturating_sub(1));
        while let Some(live) = events.next().await {
            live?;
        }
        self.run(scope, run).await
    }

    /// The newest diff of a run, if it has changed anything.
    ///
    /// - It is there before it is brought to the repository, so that whoever is asked about that can see it; once the
    ///   run has succeeded, it is what was brought there.
    pub async fn diff(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Option<Stored<CodeDiff>>> {
        let query = Query::all().filter(CodeDiff::AGENT_RUN_ID.eq(run)).newest_first();
        self.storage().find(scope, query).await
    }
}

impl Parts {
    pub(crate) fn repos(&self, kind: RepoKind, operation: &'static str) -> Result<&dyn RepoProvider> {
        self.repos.get(&kind).map(|repos| &**repos).ok_or_else(|| {
            let message = format!("this factory was not given repositories of the kind {kind:?}");
            Error::new(ErrorKind::Unsupported, operation, message)
        })
    }
}
