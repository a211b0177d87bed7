//! What runs that were claimed together share.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use lime_core::governance::ApprovalPolicy;
use lime_core::identity::Tenant;
use lime_core::planning::Project;
use lime_core::ports::Storage;
use lime_core::repos::Repository;
use lime_core::{Id, Lookup, LookupExt, Query, Result, Scope, Stored};
use tokio::sync::OnceCell;

use crate::patience::persist;

/// What the runs of one claim need to know, read once when the first of them asks.
///
/// - It is as fresh as if each had read it, since all of them begin when it is made; a later claim has another one.
pub(crate) struct Shelf {
    storage: Arc<dyn Storage>,
    policies: Memo<Id<Tenant>, Arc<[ApprovalPolicy]>>,
    projects: Memo<Key<Project>, Row<Project>>,
    repositories: Memo<Key<Repository>, Row<Repository>>,
}

type Key<E> = (Id<Tenant>, Id<E>);
type Row<E> = Arc<Stored<E>>;

/// Values by a key, each made once.
struct Memo<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

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

impl Shelf {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, policies: Memo::default(), projects: Memo::default(), repositories: Memo::default() }
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

    pub(crate) async fn project(&self, scope: &Scope, id: Id<Project>) -> Result<Row<Project>> {
        let read = || async { persist(|| Lookup::get(&*self.storage, scope, id)).await.map(Arc::new) };
        self.projects.get((scope.tenant(), id), read).await
    }

    pub(crate) async fn repository(&self, scope: &Scope, id: Id<Repository>) -> Result<Row<Repository>> {
        let read = || async { persist(|| Lookup::get(&*self.storage, scope, id)).await.map(Arc::new) };
        self.repositories.get((scope.tenant(), id), read).await
    }
}
