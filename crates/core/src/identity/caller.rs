//! Who calls, once authentication has recognised them.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::api_key::{ApiKey, KeyRefused};
use super::authority::{Authority, Grant, Target, authorize};
use super::permission::Action;
use super::session::{LoginSession, SessionRefused};
use super::tenant::Tenant;
use super::user::{User, UserStatus};
use crate::{Id, Result, Scope, Stored};

/// Somebody who calls: in whose name, and what they may do.
///
/// - Made by authentication for each request, or kept no longer than a lost right may last; cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    scope: Scope,
    authority: Arc<Authority>,
}

impl Caller {
    /// Somebody with this authority.
    pub fn new(scope: Scope, authority: Authority) -> Self {
        Self { scope, authority: Arc::new(authority) }
    }

    /// The software itself, which may do anything in the tenant of the scope.
    pub fn system(scope: Scope) -> Self {
        Self::new(scope, Authority::of_system())
    }

    /// The scope to read and write with, once that is [authorized](Caller::authorize).
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What they may do.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Asks [`authorize`]; fails with [`PermissionDenied`](crate::ErrorKind::PermissionDenied), in the name of the
    /// operation.
    pub fn authorize(
        &self,
        operation: &'static str,
        action: Action,
        target: impl Into<Target>,
    ) -> Result<()> {
        authorize(&self.authority, action, target).map_err(|denied| denied.refused(operation))
    }
}

/// A person of a tenant, and what their roles permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub user: Stored<User>,
    /// What each of their roles permits, and where it was given.
    pub grants: Vec<Grant>,
}

impl Member {
    /// What the person may do.
    pub fn authority(&self) -> Authority {
        Authority::of_user(&self.user, self.grants.iter().cloned())
    }

    fn is_active(&self) -> bool {
        match self.user.status {
            UserStatus::Active => true,
            UserStatus::Disabled => false,
        }
    }
}

/// A tenant that a person belongs to, and who they are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The tenant.
    pub tenant: Stored<Tenant>,
    /// The person in it.
    pub user: Stored<User>,
}

/// An API key as it was found by its prefix, with all that the check of it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundKey {
    /// The tenant.
    pub tenant_id: Id<Tenant>,
    /// The key.
    pub key: Stored<ApiKey>,
    /// The person whose key it is, if it is a person's.
    pub owner: Option<Member>,
    /// When it was looked for, on the database's clock.
    pub now: DateTime<Utc>,
}

impl FoundKey {
    /// Whether the person whose key it is may act; true for a key of the tenant's own.
    pub fn check_owner(&self) -> Result<(), KeyRefused> {
        match &self.owner {
            Some(owner) if !owner.is_active() => Err(KeyRefused::OwnerDisabled),
            Some(_) | None => Ok(()),
        }
    }

    /// Who calls with it; whether its bearer is let in is [`ApiKey::admit`]'s business.
    pub fn caller(&self) -> Caller {
        let scope = Scope::of_key(self.tenant_id, self.key.id, self.key.user_id);
        Caller::new(scope, Authority::of_key(&self.key, self.owner.as_ref().map(Member::authority)))
    }
}

/// A login session as it was found by its token, and who the person is in the tenant that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedIn {
    /// The session.
    pub session: Stored<LoginSession>,
    /// The person in the tenant; none if they are not in it, or it is not there.
    pub member: Option<Member>,
}

impl SignedIn {
    /// Who calls with it in this tenant, which must be the one that was asked for.
    pub fn caller(&self, tenant: Id<Tenant>) -> Result<Caller, SessionRefused> {
        match &self.member {
            None => Err(SessionRefused::NotAMember),
            Some(member) if !member.is_active() => Err(SessionRefused::Disabled),
            Some(member) => Ok(Caller::new(Scope::authenticated(tenant, member.user.id), member.authority())),
        }
    }
}
