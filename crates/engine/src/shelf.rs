//! What runs that were claimed together share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use lime_core::agents::InstructionLayer;
use lime_core::governance::{ApprovalPolicy, DefaultTools};
use lime_core::identity::Tenant;
use lime_core::planning::Project;
use lime_core::ports::{BudgetsInForce, Claim, CommitId, RunTarget, Storage};
use lime_core::repos::{Repository, RepositoryConfig};
use lime_core::{Entity, Error, Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use tokio::sync::OnceCell;

use crate::factory::Parts;
use crate::patience::persist;

/// What the runs of one claim need to know, read once for all of a tenant when the first of them asks.
///
/// - It is as fresh as if each had read it, since all of them begin when it is made; a later claim has another one.
pub(crate) struct Shelf {
    parts: Arc<Parts>,
    policies: Memo<Id<Tenant>, Arc<[ApprovalPolicy]>>,
    budgets: Memo<Id<Tenant>, Arc<BudgetsInForce>>,
    tools: Memo<Id<Tenant>, Arc<[DefaultTools]>>,
    layers: Memo<(Id<Tenant>, RunTarget), Arc<[InstructionLayer]>>,
    configs: Memo<(Id<Tenant>, Id<Repository>, CommitId), Arc<RepositoryConfig>>,
    projects: Rows<Project>,
    repositories: Rows<Repository>,
}

/// Values by their keys, each made once.
struct Memo<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

/// The rows of one table that the runs of each tenant name.
struct Rows<E> {
    named: HashMap<Id<Tenant>, Vec<Id<E>>>,
    read: Memo<Id<Tenant>, Arc<Found<E>>>,
}

type Found<E> = HashMap<Id<E>, Arc<Stored<E>>>;

impl<K, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memo<K, V> {
    async fn get<F: Future<Output = Result<V>>>(&self, key: K, read: impl FnOnce() -> F) -> Result<V> {
        let cell = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        cell.get_or_try_init(read).await.cloned()
    }
}

impl<E: Entity> Rows<E>
where
    dyn Storage: Lookup<E>,
{
    fn new(claims: &[Claim], name: impl Fn(&Claim) -> Option<Id<E>>) -> Self {
        let mut named: HashMap<_, Vec<_>> = HashMap::new();
        for claim in claims {
            named.entry(claim.lease.tenant).or_default().extend(name(claim));
        }
        Self { named, read: Memo::default() }
    }

    async fn get(
        &self,
        storage: &(dyn Storage + 'static),
        scope: &Scope,
        id: Id<E>,
    ) -> Result<Arc<Stored<E>>> {
        let tenant = scope.tenant();
        let read = || async {
            let named = self.named.get(&tenant).into_iter().flatten().copied();
            let query = Query::all().among(named);
            let rows = persist(|| storage.all(scope, query.clone())).await?;
            Ok(Arc::new(rows.into_iter().map(|row| (row.id, Arc::new(row))).collect::<Found<E>>()))
        };
        let rows = self.read.get(tenant, read).await?;
        rows.get(&id).cloned().ok_or_else(|| Error::not_found("store.get", E::NAME, id))
    }
}

impl Shelf {
    pub(crate) fn new(parts: Arc<Parts>, claims: &[Claim]) -> Self {
        Self {
            parts,
            policies: Memo::default(),
            budgets: Memo::default(),
            tools: Memo::default(),
            layers: Memo::default(),
            configs: Memo::default(),
            projects: Rows::new(claims, |claim| Some(claim.run.project_id)),
            repositories: Rows::new(claims, |claim| claim.run.repository_id),
        }
    }

    /// The policies of the scope's tenant that count.
    pub(crate) async fn policies(&self, scope: &Scope) -> Result<Arc<[ApprovalPolicy]>> {
        let read = || async {
            let query = || Query::all().filter(ApprovalPolicy::ENABLED.eq(true));
            let stored = persist(|| self.parts.storage.all(scope, query())).await?;
            Ok(stored.into_iter().map(|policy| policy.value).collect())
        };
        self.policies.get(scope.tenant(), read).await
    }

    /// The budgets of the scope's tenant that count.
    pub(crate) async fn budgets(&self, scope: &Scope) -> Result<Arc<BudgetsInForce>> {
        let read = || async { persist(|| self.parts.storage.budgets_in_force(scope)).await.map(Arc::new) };
        self.budgets.get(scope.tenant(), read).await
    }

    /// The tools that the scope's tenant gives its agents.
    pub(crate) async fn default_tools(&self, scope: &Scope) -> Result<Arc<[DefaultTools]>> {
        let read = || async {
            let query = || Query::all().filter(DefaultTools::ENABLED.eq(true));
            let stored = persist(|| self.parts.storage.all(scope, query())).await?;
            Ok(stored.into_iter().map(|tools| tools.value).collect())
        };
        self.tools.get(scope.tenant(), read).await
    }

    /// What was written for runs about this.
    pub(crate) async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Arc<[InstructionLayer]>> {
        let source = self.parts.instructions();
        let read = || async { Ok(persist(|| source.layers(scope, target)).await?.into()) };
        self.layers.get((scope.tenant(), target), read).await
    }

    /// What a commit of a repository says to agents, which one of the runs that start from it finds out.
    pub(crate) async fn repository_config<F: Future<Output = Result<Arc<RepositoryConfig>>>>(
        &self,
        scope: &Scope,
        repository: Id<Repository>,
        commit: &CommitId,
        read: impl FnOnce() -> F,
    ) -> Result<Arc<RepositoryConfig>> {
        self.configs.get((scope.tenant(), repository, commit.clone()), read).await
    }

    /// The project of one of the claimed runs.
    pub(crate) async fn project(&self, scope: &Scope, id: Id<Project>) -> Result<Arc<Stored<Project>>> {
        self.projects.get(&*self.parts.storage, scope, id).await
    }

    /// The repository of one of the claimed runs.
    pub(crate) async fn repository(
        &self,
        scope: &Scope,
        id: Id<Repository>,
    ) -> Result<Arc<Stored<Repository>>> {
        self.repositories.get(&*self.parts.storage, scope, id).await
    }
}
