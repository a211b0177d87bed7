//! Secrets at rest: sealed before they are stored, and opened where they are used.

mod environment;
mod keys;
mod rotation;

use std::fmt;
use std::sync::Arc;

use lime_core::governance::{Cell, DataKey, Sealed, SealedStore, Sealing};
use lime_core::ports::{Entropy, KeyWrapper, Storage};
use lime_core::{Error, ErrorKind, Id, Result, Scope, Store, Stored};
use secrecy::SecretString;

use self::keys::Keys;
pub use self::rotation::Rotated;
use crate::SystemEntropy;

/// Seals what is secret with a key of its tenant, and opens it again; clones share their keys.
///
/// - A tenant's key is made when its first secret is stored. It is unwrapped once a minute at most, and wiped from memory
///   when it is forgotten.
/// - What is stored is sealed for its [`Cell`]: nothing opens in another row, column, table or tenant.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use lime_core::governance::{EnvKey, EnvScope, EnvVarSet, MasterKeys};
/// use lime_core::identity::{Slug, Tenant, Tenants};
/// use lime_core::memory::MemoryStorage;
/// use lime_core::planning::Project;
/// use lime_core::{Scope, Store};
/// use lime_engine::{SystemEntropy, Vault};
/// use secrecy::{ExposeSecret, SecretString};
/// use std::sync::Arc;
///
/// let storage = MemoryStorage::default();
/// let tenant = storage.create_tenant(Tenant::new("Acme", Slug::parse("acme")?)).await?;
/// let scope = Scope::system(tenant.id, "an example");
/// let project = storage.insert(&scope, Project::new("Shop", "SHOP")).await?;
///
/// // `ENCRYPTION_MASTER_KEY`, as `openssl rand -base64 32` makes it, behind a name.
/// let master = SecretString::from("2026:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
/// let vault = Vault::new(storage.clone(), MasterKeys::parse(&master, Arc::new(SystemEntropy))?);
///
/// let set = EnvVarSet { scope: EnvScope::Project(project.id), name: "test".into() };
/// let set = storage.insert(&scope, set).await?;
/// vault.set_env_var(&scope, set.id, EnvKey::parse("TOKEN")?, &SecretString::from("hunter2"), true).await?;
/// let environment = vault.environment(&scope, &[EnvScope::Project(project.id)]).await?;
/// assert_eq!(environment[0].key().as_str(), "TOKEN");
/// assert_eq!(environment[0].value().expose_secret(), "hunter2");
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
/// ```
#[derive(Clone)]
pub struct Vault(Arc<Parts>);

struct Parts {
    storage: Arc<dyn Storage>,
    wrapper: Arc<dyn KeyWrapper>,
    entropy: Arc<dyn Entropy>,
    keys: Keys,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

/// Seals the values of one row.
pub struct Sealer<'a> {
    key: &'a DataKey,
    entropy: &'a dyn Entropy,
    cell: Cell,
}

impl fmt::Debug for Sealer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("key", &self.key.id())
            .field("row", &self.cell.row)
            .finish_non_exhaustive()
    }
}

impl Sealer<'_> {
    /// Seals the value of a column; fails as [`DataKey::seal`] does.
    pub fn seal(&self, column: &'static str, value: &SecretString) -> Result<Sealed> {
        self.key.seal(Cell { column, ..self.cell }, value, self.entropy)
    }
}

impl Vault {
    /// A vault over a storage, whose keys this wrapper wraps.
    pub fn new(storage: impl Storage + 'static, wrapper: impl KeyWrapper + 'static) -> Self {
        Self::with_entropy(storage, wrapper, SystemEntropy)
    }

    /// The same, with random bytes from somewhere else than the operating system.
    pub fn with_entropy(
        storage: impl Storage + 'static,
        wrapper: impl KeyWrapper + 'static,
        entropy: impl Entropy + 'static,
    ) -> Self {
        let (storage, wrapper, entropy) = (Arc::new(storage), Arc::new(wrapper), Arc::new(entropy));
        Self(Arc::new(Parts { storage, wrapper, entropy, keys: Keys::default() }))
    }

    /// Stores a value with sealed columns, which `make` seals.
    ///
    /// - Fails as `insert` does.
    pub async fn insert<E: Sealing>(
        &self,
        scope: &Scope,
        make: impl Fn(&Sealer<'_>) -> Result<E>,
    ) -> Result<Stored<E>>
    where
        dyn Storage: SealedStore<E>,
    {
        let id = SealedStore::<E>::draw_id(&*self.0.storage, scope).await?;
        let mut key = self.newest(scope).await?;
        loop {
            let value = make(&self.sealer::<E>(scope, &key, id))?;
            match SealedStore::<E>::insert_as(&*self.0.storage, scope, id, value).await {
                Err(error) => key = self.another(scope, &key, error).await?,
                stored => return stored,
            }
        }
    }

    /// Updates a value with sealed columns, which `change` seals anew where they change.
    ///
    /// - All that is sealed in the row is sealed with the newest key then.
    /// - Fails as `update` does, and as [`open`](Self::open) does for what stays.
    pub async fn update<E: Sealing>(
        &self,
        scope: &Scope,
        stored: &Stored<E>,
        change: impl Fn(&mut E, &Sealer<'_>) -> Result<()>,
    ) -> Result<Stored<E>>
    where
        dyn Storage: SealedStore<E>,
    {
        let mut key = self.newest(scope).await?;
        loop {
            let mut next = self.resealed(scope, stored, &key).await?;
            change(&mut next.value, &self.sealer::<E>(scope, &key, stored.id))?;
            match Store::<E>::update(&*self.0.storage, scope, &next).await {
                Err(error) => key = self.another(scope, &key, error).await?,
                stored => return stored,
            }
        }
    }

    /// Opens a sealed column of a row.
    ///
    /// - Fails with [`Missing`](ErrorKind::Missing) if the key or the master key is not there, with
    ///   [`Corrupt`](ErrorKind::Corrupt) for what was moved or changed.
    pub async fn open<E: Sealing>(
        &self,
        scope: &Scope,
        stored: &Stored<E>,
        column: &'static str,
        value: &Sealed,
    ) -> Result<SecretString> {
        let key = self.key(scope, value).await?;
        key.open(Self::cell::<E>(scope, stored.id, column), value)
    }

    fn cell<E: Sealing>(scope: &Scope, id: Id<E>, column: &'static str) -> Cell {
        Cell { tenant: scope.tenant(), table: E::TABLE, column, row: id.raw() }
    }

    fn sealer<'a, E: Sealing>(&'a self, scope: &Scope, key: &'a DataKey, id: Id<E>) -> Sealer<'a> {
        Sealer { key, entropy: &*self.0.entropy, cell: Self::cell::<E>(scope, id, "") }
    }

    /// The same row with all that is sealed in it sealed with this key.
    async fn resealed<E: Sealing>(
        &self,
        scope: &Scope,
        stored: &Stored<E>,
        key: &DataKey,
    ) -> Result<Stored<E>> {
        let mut next = stored.clone();
        for (column, value) in next.value.sealed_mut() {
            if value.key() != key.id() {
                let cell = Self::cell::<E>(scope, stored.id, column);
                let opened = self.key(scope, value).await?.open(cell, value)?;
                *value = key.seal(cell, &opened, &*self.0.entropy)?;
            }
        }
        Ok(next)
    }

    /// The key to try again with, after a write failed: one that was deleted since it was read is refused as `Invalid`.
    async fn another(&self, scope: &Scope, tried: &DataKey, error: Error) -> Result<Arc<DataKey>> {
        if error.kind() != ErrorKind::Invalid {
            return Err(error);
        }
        self.0.keys.forget(scope.tenant());
        let newest = self.newest(scope).await?;
        if newest.id() == tried.id() { Err(error) } else { Ok(newest) }
    }
}
