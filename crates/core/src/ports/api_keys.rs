use async_trait::async_trait;

use crate::identity::{ApiKey, FoundKey, KeyHash, KeyPrefix};
use crate::{Id, Result, Scope, Stored};

/// Keeps API keys; [`Lookup<ApiKey>`](crate::Lookup) shows those of a tenant.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Keeps a new key.
    ///
    /// - Fails with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if another key has the prefix, whosever it is:
    ///   make another one. With [`Invalid`](crate::ErrorKind::Invalid) for a broken rule, and for a person or a
    ///   project that is missing or another tenant's.
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>>;

    /// The key with this prefix, of whatever tenant: for authentication, which nobody else is without a scope.
    ///
    /// - With it come its tenant, its owner and what the owner's roles permit, all as of one moment.
    /// - None if there is none, or its tenant was deleted; revoked and expired ones are found.
    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>>;

    /// Notes that a key was used now, and puts a renewed hash in the place of the one that was checked; gives whether
    /// anything was written.
    ///
    /// - A use within [`LAST_USED_STEP`](ApiKey::LAST_USED_STEP) of the last one that was noted is not, so that many who
    ///   do so at once write once.
    /// - A renewed hash is written only if that which was checked is still there.
    /// - A key that was revoked stays as it is. It is no update: the version stays.
    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool>;

    /// Revokes a key, for good; gives it as it is then.
    ///
    /// - Revoking it again changes nothing.
    /// - Fails with [`NotFound`](crate::ErrorKind::NotFound).
    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>>;
}

/// A hash under the newest pepper, for the one that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The hash that was checked.
    pub from: KeyHash,
    /// The one in its place.
    pub to: KeyHash,
}
