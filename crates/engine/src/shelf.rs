//! What runs that were claimed together share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lime_core::governance::ApprovalPolicy;
use lime_core::identity::Tenant;
use lime_core::planning::Project;
use lime_core::ports::{BudgetsInForce, Claim, Storage};
use lime_core::repos::Repository;
use lime_core::{Entity, Error, Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use tokio::sync::OnceCell;

use crate::patience::persist;

/// What the runs of one claim need to know, read once for all of a tenant when the first of them asks.
///
/// - It is as fresh as if each had read it, since all of them begin when it is made; a later claim has another one.
pub(crate) struct Shelf {
    storage: Arc<dyn Storage>,
    policies: Memo<Arc<[ApprovalPolicy]>>,
    budgets: Memo<Arc<BudgetsInForce>>,
    projects: Rows<Project>,
    repositories: Rows<Repository>,
}

/// Values by their tenants, each made once.
struct Memo<V>(Mutex<HashMap<Id<Tenant>, Arc<OnceCell<V>>>>);

/// The rows of one table that the runs of each tenant name.
struct Rows<E> {
    named: HashMap<Id<Tenant>, Vec<Id<E>>>,
    read: Memo<Arc<Found<E>>>,
}

type Found<E> = HashMap<Id<E>, Arc<Stored<E>>>;

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V: Clone> Memo<V> {
    async fn get<F: Future<Output = Result<V>>>(
        &self,
        tenant: Id<Tenant>,
        read: impl FnOnce() -> F,
    ) -> Result<V> {
        let cell = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default().clone();
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
    pub(crate) fn new(storage: Arc<dyn Storage>, claims: &[Claim]) -> Self {
        Self {
            storage,
            policies: Memo::default(),
            budgets: Memo::default(),
            projects: Rows::new(claims, |claim| Some(claim.run.project_id)),
            repositories: Rows::new(claims, |claim| claim.run.repository_id),
        }
    }

    /// The policies of the scope's tenant that count.
    pub(crate) async fn policies(&self, scope: &Scope) -> Result<Arc<[ApprovalPolicy]>> {
        let read = || async {
            let query = || Query::all().filter(ApprovalPolicy::ENABLED.eq(true));
            let stored = persist(|| self.storage.all(scope, query())).await?;
            Ok(stored.into_iter().map(|policy| policy.value).collect())
        };
        self.policies.get(scope.tenant(), read).await
    }

    /// The budgets of the scope's tenant that count.
    pub(crate) async fn budgets(&self, scope: &Scope) -> Result<Arc<BudgetsInForce>> {
        let read = || async { persist(|| self.storage.budgets_in_force(scope)).await.map(Arc::new) };
        self.budgets.get(scope.tenant(), read).await
    }

    /// The project of one of the claimed runs.
    pub(crate) async fn project(&self, scope: &Scope, id: Id<Project>) -> Result<Arc<Stored<Project>>> {
        self.projects.get(&*self.storage, scope, id).await
    }

    /// The repository of one of the claimed runs.
    pub(crate) async fn repository(
        &self,
        scope: &Scope,
        id: Id<Repository>,
    ) -> Result<Arc<Stored<Repository>>> {
        self.repositories.get(&*self.storage, scope, id).await
    }
}
