//! Who asks, and for which tenant.

use std::borrow::Cow;
use std::fmt;

use crate::Id;
use crate::identity::{Tenant, User};
use crate::runs::Lease;

/// The tenant that a call belongs to, and the actor behind it.
///
/// - Every store method takes it first; what it does not own, it does not see: a row of another tenant and a
///   row that is missing give the same answer.
/// - A scope [fenced](Scope::fenced) by a lease also proves, on every write, that the attempt still holds it.
/// - It is minted by authentication, or by [`Scope::system`] with a reason that ends up in traces and audit.
///
/// ```
/// # use lime_core::{Id, Lookup, Scope, planning::Ticket};
/// # async fn open(store: &dyn Lookup<Ticket>, scope: &Scope, id: Id<Ticket>) {
/// let _ = store.get(scope, id).await;
/// # }
/// ```
/// ```compile_fail,E0061
/// # use lime_core::{Id, Lookup, Scope, planning::Ticket};
/// # async fn open(store: &dyn Lookup<Ticket>, scope: &Scope, id: Id<Ticket>) {
/// let _ = store.get(id).await; // a call without a scope does not compile
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    tenant: Id<Tenant>,
    actor: Actor,
    fence: Option<Lease>,
}

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Actor {
    /// A person, known by their membership in the tenant.
    User(Id<User>),
    /// The software itself, for this reason.
    System(Cow<'static, str>),
}

impl Scope {
    /// The scope of a person that authentication has recognised.
    ///
    /// - Call it only where a login, a session or a key has been checked; nothing is checked here.
    pub fn authenticated(tenant: Id<Tenant>, user: Id<User>) -> Self {
        Self { tenant, actor: Actor::User(user), fence: None }
    }

    /// The scope of the software itself, which says why it acts.
    pub fn system(tenant: Id<Tenant>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { tenant, actor: Actor::System(reason.into()), fence: None }
    }

    /// The same scope, bound to a lease.
    ///
    /// - A write under it fails with [`ErrorKind::StaleLease`](crate::ErrorKind::StaleLease), and changes
    ///   nothing, once the lease is lost or the run has ended.
    /// - The lease's tenant must be this scope's; otherwise every write fails as stale.
    #[must_use]
    pub fn fenced(mut self, lease: Lease) -> Self {
        self.fence = Some(lease);
        self
    }

    /// The tenant.
    pub fn tenant(&self) -> Id<Tenant> {
        self.tenant
    }

    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The person who acts, if it is one.
    pub fn user(&self) -> Option<Id<User>> {
        match &self.actor {
            Actor::User(user) => Some(*user),
            Actor::System(_) => None,
        }
    }

    /// The lease that writes must prove, if any.
    pub fn fence(&self) -> Option<&Lease> {
        self.fence.as_ref()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {} as ", self.tenant)?;
        match &self.actor {
            Actor::User(user) => write!(f, "user {user}")?,
            Actor::System(reason) => write!(f, "system ({reason})")?,
        }
        match &self.fence {
            Some(lease) => write!(f, " under {lease:?}"),
            None => Ok(()),
        }
    }
}
