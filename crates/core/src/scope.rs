//! Who asks, and for which tenant.

use std::borrow::Cow;
use std::fmt;

use crate::Id;
use crate::identity::{ApiKey, Tenant, User};
use crate::runs::{AgentRun, Lease};

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
    /// An API key.
    ApiKey {
        /// The key.
        key: Id<ApiKey>,
        /// The person whose key it is; the tenant's own, if none.
        user: Option<Id<User>>,
    },
    /// The agent of a run.
    Agent {
        /// The run.
        run: Id<AgentRun>,
        /// The person who started the run, if one did.
        user: Option<Id<User>>,
        /// The key that started it, if one did.
        key: Option<Id<ApiKey>>,
    },
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

    /// The scope of an API key that authentication has recognised, and of the person whose it is.
    ///
    /// - Nothing is checked here either.
    pub fn of_key(tenant: Id<Tenant>, key: Id<ApiKey>, user: Option<Id<User>>) -> Self {
        Self { tenant, actor: Actor::ApiKey { key, user }, fence: None }
    }

    /// The scope of the agent that works a run, for whom the run was started by this person or key.
    pub fn of_agent(
        tenant: Id<Tenant>,
        run: Id<AgentRun>,
        user: Option<Id<User>>,
        key: Option<Id<ApiKey>>,
    ) -> Self {
        Self { tenant, actor: Actor::Agent { run, user, key }, fence: None }
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

    /// The person who acts, by themselves or by a key of theirs.
    ///
    /// - None for an agent: whoever started its run has not said what it says.
    pub fn user(&self) -> Option<Id<User>> {
        match &self.actor {
            Actor::User(user) => Some(*user),
            Actor::ApiKey { user, .. } => *user,
            Actor::Agent { .. } | Actor::System(_) => None,
        }
    }

    /// The person at the beginning of what is done, and the key that they used: for an agent, those that started its
    /// run.
    pub fn origin(&self) -> (Option<Id<User>>, Option<Id<ApiKey>>) {
        match &self.actor {
            Actor::User(user) => (Some(*user), None),
            Actor::ApiKey { key, user } => (*user, Some(*key)),
            Actor::Agent { user, key, .. } => (*user, *key),
            Actor::System(_) => (None, None),
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
            Actor::ApiKey { key, user: None } => write!(f, "API key {key}")?,
            Actor::ApiKey { key, user: Some(user) } => write!(f, "API key {key} of user {user}")?,
            Actor::Agent { run, .. } => write!(f, "the agent of run {run}")?,
            Actor::System(reason) => write!(f, "system ({reason})")?,
        }
        match &self.fence {
            Some(lease) => write!(f, " under {lease:?}"),
            None => Ok(()),
        }
    }
}
