//! The data keys of tenants, unwrapped and kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lime_core::governance::{DataKey, DataKeyBytes, Sealed, TenantKey};
use lime_core::identity::Tenant;
use lime_core::{Error, ErrorKind, Id, LookupExt, Query, Result, Scope, Stored};

use super::{Parts, Vault};

/// How long a tenant's keys are kept; a master key that was taken away is noticed by then.
const KEPT: Duration = Duration::from_secs(60);
/// Of how many tenants keys are kept at most.
const MOST: usize = 10_000;

/// The keys of the tenants that were asked for lately.
#[derive(Default)]
pub(super) struct Keys(Mutex<HashMap<Id<Tenant>, Kept>>);

struct Kept {
    since: Instant,
    /// The oldest first; the last one seals.
    keys: Vec<Arc<DataKey>>,
}

impl Keys {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id<Tenant>, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, tenant: Id<Tenant>) {
        self.lock().remove(&tenant);
    }

    fn find<T>(&self, tenant: Id<Tenant>, pick: impl FnOnce(&[Arc<DataKey>]) -> Option<T>) -> Option<T> {
        let kept = self.lock();
        pick(&kept.get(&tenant).filter(|kept| kept.since.elapsed() < KEPT)?.keys)
    }

    fn keep(&self, tenant: Id<Tenant>, keys: Vec<Arc<DataKey>>) {
        let mut kept = self.lock();
        if kept.len() >= MOST {
            kept.retain(|_, kept| kept.since.elapsed() < KEPT);
        }
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(tenant, Kept { since: Instant::now(), keys });
    }
}

impl Vault {
    /// The key that seals for the tenant; makes the first one.
    pub(super) async fn newest(&self, scope: &Scope) -> Result<Arc<DataKey>> {
        let tenant = scope.tenant();
        if let Some(newest) = self.0.keys.find(tenant, |keys| keys.last().cloned()) {
            return Ok(newest);
        }
        if self.load(scope).await?.is_empty() {
            self.add_key(scope).await?;
            // Somebody else may have made one at the same time; the newest is the one that counts for both.
            self.load(scope).await?;
        }
        let none =
            || Error::new(ErrorKind::Conflict, "secrets.key", "a tenant's new key is gone again; try again");
        self.0.keys.find(tenant, |keys| keys.last().cloned()).ok_or_else(none)
    }

    /// The key that a value is sealed with.
    pub(super) async fn key(&self, scope: &Scope, value: &Sealed) -> Result<Arc<DataKey>> {
        let (tenant, id) = (scope.tenant(), value.key());
        let known = |keys: &[Arc<DataKey>]| keys.iter().find(|key| key.id() == id).cloned();
        if let Some(key) = self.0.keys.find(tenant, known) {
            return Ok(key);
        }
        known(&self.load(scope).await?).ok_or_else(|| {
            let message = "a secret is sealed with a key that is not there; restore the table tenant_keys from a backup";
            Error::new(ErrorKind::Missing, "secrets.key", message).with("key", id)
        })
    }

    /// The rows of the tenant's keys, the oldest first.
    pub(super) async fn key_rows(&self, scope: &Scope) -> Result<Vec<Stored<TenantKey>>> {
        self.0.storage.all(scope, Query::all()).await
    }

    async fn load(&self, scope: &Scope) -> Result<Vec<Arc<DataKey>>> {
        let Parts { wrapper, keys, .. } = &*self.0;
        let mut loaded = Vec::new();
        for row in self.key_rows(scope).await? {
            let bytes = wrapper.unwrap(scope.tenant(), &row.wrapped).await?;
            loaded.push(Arc::new(DataKey::new(row.id, &bytes)));
        }
        keys.keep(scope.tenant(), loaded.clone());
        Ok(loaded)
    }

    /// Makes another key for the tenant, which seals from then on.
    pub(super) async fn add_key(&self, scope: &Scope) -> Result<Stored<TenantKey>> {
        let Parts { storage, wrapper, entropy, keys } = &*self.0;
        let bytes = DataKeyBytes::generate(&**entropy)?;
        let wrapped = wrapper.wrap(scope.tenant(), &bytes).await?;
        let added = storage.insert(scope, TenantKey { wrapped }).await?;
        keys.forget(scope.tenant());
        Ok(added)
    }
}
