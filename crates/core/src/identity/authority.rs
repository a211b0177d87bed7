//! What an actor may do, and the one question about it.

use std::collections::BTreeSet;

use super::api_key::ApiKey;
use super::permission::{Action, Permission, Permissions, Resource};
use super::user::{User, UserStatus};
use crate::planning::Project;
use crate::{Error, ErrorKind, Id};

/// Whether an actor may do this to that.
///
/// - Everybody asks here, whatever the actor is: a person, an API key, the agent of a run, the software itself.
/// - What the matrix does not decide, nobody may, not even the software.
///
/// ```
/// use lime_core::Id;
/// use lime_core::identity::{Action, Authority, BuiltInRole, Grant, Resource, User, UserStatus, authorize};
/// use lime_core::planning::Project;
///
/// let (ours, theirs) = (Id::<Project>::new(1), Id::<Project>::new(2));
/// let ada = User { email: "ada@example.com".into(), name: None, github_user_id: None, status: UserStatus::Active };
/// let dev = Grant { permissions: BuiltInRole::Dev.permissions(), project_id: Some(ours) };
/// let ada = Authority::of_user(&ada, [dev]);
///
/// assert!(authorize(&ada, Action::Cancel, Resource::Run.within(ours)).is_ok());
/// let denied = authorize(&ada, Action::Cancel, Resource::Run.within(theirs)).unwrap_err();
/// assert_eq!(
///     denied.to_string(),
///     "this needs the permission `runs:cancel` in project 2, which your roles do not give; \
///      ask an admin, or whoever else has `roles:assign`"
/// );
/// ```
pub fn authorize(actor: &Authority, action: Action, target: impl Into<Target>) -> Result<(), Denied> {
    let Target { resource, project_id } = target.into();
    match Permission::new(action, resource) {
        Some(permission) => actor.check(permission, project_id),
        None => Err(Denied::Undecided { action, resource }),
    }
}

/// The thing that something is to be done to: its kind, and the project that it belongs to.
///
/// - What belongs to no project (people, roles, repositories, the tenant's own policies, a project that is yet to be
///   made) takes a grant in the whole tenant: a grant in a project is about the things of that project only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The kind.
    pub resource: Resource,
    /// The project, if it belongs to one.
    pub project_id: Option<Id<Project>>,
}

impl Resource {
    /// One of this kind that belongs to this project, or to none.
    pub fn within(self, project: impl Into<Option<Id<Project>>>) -> Target {
        Target { resource: self, project_id: project.into() }
    }
}

impl From<Resource> for Target {
    /// One that belongs to no project.
    fn from(resource: Resource) -> Self {
        resource.within(None)
    }
}

/// Permissions, and where they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What is permitted.
    pub permissions: Permissions,
    /// In this project only; in the whole tenant and every project of it, if none.
    pub project_id: Option<Id<Project>>,
}

impl Grant {
    fn holds_in(&self, project: Option<Id<Project>>) -> bool {
        self.project_id.is_none_or(|only| project == Some(only))
    }
}

/// What an actor may do.
///
/// - Made of limits, each of which must allow what is done: a further limit takes away and never adds.
/// - It is as of when it was made. Make it anew for each request, or keep it no longer than a lost right may last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    limits: Vec<Limit>,
}

/// Grants of which one must allow what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Limit {
    by: LimitedBy,
    grants: Vec<Grant>,
}

/// What did not allow something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// The roles of a person.
    Roles,
    /// The scopes of an API key.
    Scopes,
    /// What an agent may do while it works a run.
    Agent,
}

impl Authority {
    /// That of a person: what any of their roles permits, each where it was given.
    ///
    /// - Nothing at all for one who is disabled, whatever the roles say.
    pub fn of_user(user: &User, grants: impl IntoIterator<Item = Grant>) -> Self {
        let grants = match user.status {
            UserStatus::Active => grants.into_iter().collect(),
            UserStatus::Disabled => Vec::new(),
        };
        Self::limited(LimitedBy::Roles, grants)
    }

    /// That of an API key: its scopes, in its project.
    ///
    /// - A person's key may also never do more than the person may do now, so `owner` is their authority; without it
    ///   such a key may do nothing.
    /// - A key of the tenant itself ([`user_id`](ApiKey::user_id) is none) has no owner and outlasts who made it. It
    ///   was bounded [when it was made](Authority::check_grant), and lasts until it expires or is revoked.
    /// - Whether the key may be used at all is [`ApiKey::admit`]'s business.
    pub fn of_key(key: &ApiKey, owner: Option<Self>) -> Self {
        let scopes = Grant { permissions: key.scopes.clone(), project_id: key.project_id };
        let owner = match key.user_id {
            Some(_) => owner.unwrap_or_else(|| Self::limited(LimitedBy::Roles, Vec::new())),
            None => Self::of_system(),
        };
        owner.and(LimitedBy::Scopes, scopes)
    }

    /// That of the agent of a run: little, in the run's project only, and never more than who started it may.
    ///
    /// - `starter` is the authority of the person or the key that started the run, or the
    ///   [software's own](Authority::of_system).
    #[must_use]
    pub fn of_agent(project: Id<Project>, starter: Self) -> Self {
        let grant = Grant { permissions: Permissions::of_agents(), project_id: Some(project) };
        starter.and(LimitedBy::Agent, grant)
    }

    /// That of the software itself, for a [`Scope::system`](crate::Scope::system): no limits.
    pub fn of_system() -> Self {
        Self { limits: Vec::new() }
    }

    /// Whether the actor may give this to somebody: who gives must have, each permission of it, where it is to hold.
    ///
    /// - To be asked, beside the permission to do it at all, before a role is assigned, a role's permissions are
    ///   changed (they hold wherever the role was given: in the whole tenant), or an API key is made. Otherwise
    ///   `roles:assign` alone would be every permission.
    pub fn check_grant(&self, grant: &Grant) -> Result<(), Denied> {
        grant.permissions.iter().try_for_each(|permission| self.check(permission, grant.project_id))
    }

    /// Where the actor has this permission, for lists that show no more than that.
    pub fn reach(&self, permission: Permission) -> Reach {
        self.limits.iter().fold(Reach::Tenant, |reach, limit| reach.and(limit.reach(permission)))
    }

    fn check(&self, permission: Permission, project_id: Option<Id<Project>>) -> Result<(), Denied> {
        let allows = |limit: &Limit| {
            limit.grants.iter().any(|it| it.holds_in(project_id) && it.permissions.contains(permission))
        };
        match self.limits.iter().find(|limit| !allows(limit)) {
            Some(limit) => Err(Denied::Missing { permission, project_id, limited_by: limit.by }),
            None => Ok(()),
        }
    }

    fn limited(by: LimitedBy, grants: Vec<Grant>) -> Self {
        Self { limits: vec![Limit { by, grants }] }
    }

    fn and(mut self, by: LimitedBy, grant: Grant) -> Self {
        self.limits.push(Limit { by, grants: vec![grant] });
        self
    }
}

impl Limit {
    fn reach(&self, permission: Permission) -> Reach {
        let having = self.grants.iter().filter(|grant| grant.permissions.contains(permission));
        let projects: Option<BTreeSet<_>> = having.map(|grant| grant.project_id).collect();
        projects.map_or(Reach::Tenant, Reach::Projects)
    }
}

/// Where somebody has a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// In the whole tenant, with and without a project.
    Tenant,
    /// In these projects only; nowhere, if there is none.
    Projects(BTreeSet<Id<Project>>),
}

impl Reach {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Tenant, reach) | (reach, Self::Tenant) => reach,
            (Self::Projects(these), Self::Projects(those)) => Self::Projects(&these & &those),
        }
    }
}

/// Why an actor may not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The actor does not have the permission there.
    #[error(
        "this needs the permission `{permission}` in {}, which {}", place(*.project_id), advice(*.limited_by)
    )]
    Missing {
        /// The permission.
        permission: Permission,
        /// The project where it is needed; the whole tenant, if none.
        project_id: Option<Id<Project>>,
        /// What does not give it; the first, if several don't.
        limited_by: LimitedBy,
    },
    /// There is no such permission, so nobody may.
    #[error("nobody may {action} {resource}: the permission `{resource}:{action}` does not exist")]
    Undecided {
        /// What was to be done.
        action: Action,
        /// To what.
        resource: Resource,
    },
}

fn place(project: Option<Id<Project>>) -> String {
    project.map_or_else(|| "the whole tenant".to_owned(), |project| format!("project {project}"))
}

const fn advice(limited_by: LimitedBy) -> &'static str {
    match limited_by {
        LimitedBy::Roles => "your roles do not give; ask an admin, or whoever else has `roles:assign`",
        LimitedBy::Scopes => "is not among the scopes of this API key there; make a key that has it",
        LimitedBy::Agent => "the agent of a run does not have there; leave it to a person of the project",
    }
}

impl Denied {
    /// The error of a call that was refused for it.
    pub fn refused(self, operation: &'static str) -> Error {
        Error::new(ErrorKind::PermissionDenied, operation, self.to_string())
    }
}
