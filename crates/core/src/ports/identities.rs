use std::time::Duration;

use async_trait::async_trait;

use crate::identity::{Identity, LoginSession, Membership, NewSession, SignedIn, Tenant, TokenHash, User};
use crate::{Id, Result, Scope, Stored};

/// People over all tenants, and what they are signed in by (003 §1, §2).
///
/// - Most of it is without a scope, since it comes before one: for signing in and authentication.
/// - Times are on the database's clock.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Identities: Send + Sync {
    /// The person with this address, made if there is none.
    ///
    /// - One who is there stays as they are, except that an address becomes verified once it was.
    /// - Fails with [`Invalid`](crate::ErrorKind::Invalid) for a broken rule.
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>>;

    /// Says which person a user of the tenant is; saying it again changes nothing.
    ///
    /// - Fails with [`NotFound`](crate::ErrorKind::NotFound) for a user that is missing or another tenant's, with
    ///   [`Invalid`](crate::ErrorKind::Invalid) for a person that is missing, with
    ///   [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if another user of the tenant is that person, with
    ///   [`Conflict`](crate::ErrorKind::Conflict) if the user is another person.
    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()>;

    /// The tenants that a person belongs to, oldest first, and who they are there.
    ///
    /// - Without those that were deleted.
    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>>;

    /// Opens a session; those of the person whose time is up are forgotten by that.
    ///
    /// - Fails with [`Invalid`](crate::ErrorKind::Invalid) for a person that is missing and for a length that is not
    ///   allowed.
    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>>;

    /// The session with this token; none if it was ended, or its time is up.
    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>>;

    /// The same, with who the person is in a tenant and what their roles permit, all as of one moment.
    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>>;

    /// Makes a session count for so long from now on.
    ///
    /// - Fails with [`NotFound`](crate::ErrorKind::NotFound) if it was ended, or its time is up, with
    ///   [`Invalid`](crate::ErrorKind::Invalid) for a length that is not allowed.
    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>>;

    /// Ends a session; one that has ended stays so.
    async fn end_session(&self, token: &TokenHash) -> Result<()>;

    /// Ends every session of a person; gives how many there were.
    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize>;
}
