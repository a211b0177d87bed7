use async_trait::async_trait;

use crate::governance::{DataKeyBytes, WrappedKey};
use crate::identity::Tenant;
use crate::{Id, Result};

/// Wraps the data keys of tenants under a key that the database does not have.
///
/// - [`MasterKeys`](crate::governance::MasterKeys) is one in the process; a key management service can stand in.
/// - A data key is unwrapped seldom: who asks keeps it for a while.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait KeyWrapper: Send + Sync {
    /// Wraps a tenant's data key under the newest master key.
    async fn wrap(&self, tenant: Id<Tenant>, key: &DataKeyBytes) -> Result<WrappedKey>;

    /// The data key of a tenant that was wrapped before.
    ///
    /// - Fails with `Missing` if its master key is not there, with `Corrupt` if it was changed or is another
    ///   tenant's.
    async fn unwrap(&self, tenant: Id<Tenant>, wrapped: &WrappedKey) -> Result<DataKeyBytes>;

    /// Whether it is wrapped under the newest master key; otherwise a rotation has to wrap it anew.
    fn is_newest(&self, wrapped: &WrappedKey) -> bool;
}
