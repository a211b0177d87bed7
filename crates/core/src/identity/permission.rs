//! What may be done to what, in words.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matrix::MATRIX;
use crate::Invalid;
use crate::words::words;

words! {
    /// What is done to a thing.
    pub enum Action: "action" {
        /// Make a new one; for a run also to put a failed one back into the line, which costs as much.
        Create = "create",
        /// See it and list it; what is secret in it is never shown.
        Read = "read",
        /// Change it; for a ticket also to move it, for a hook also to try it.
        Update = "update",
        /// Take it away; an API key or a connector is revoked, and its row stays (000 §5.1).
        Delete = "delete",
        /// Give it to a person, or take it from one.
        Assign = "assign",
        /// Say yes or no: to a question of a run, or to the work on a ticket.
        Decide = "decide",
        /// Speak to it while it works, pause it, let it go on.
        Steer = "steer",
        /// Stop it for good.
        Cancel = "cancel",
    }
}

words! {
    /// A kind of thing that a permission is about: what people see of the tables of 000 §5, and ours.
    ///
    /// - Parts go with their whole: events, steps, tool calls, diffs and worktrees are their run's, variables their
    ///   set's.
    pub enum Resource: "resource" {
        /// The tenant itself: its name and its limits.
        Tenant = "tenants",
        /// The people of the tenant.
        User = "users",
        /// Roles, and who has which.
        Role = "roles",
        /// The tenant's own API keys, and those of other people.
        ApiKey = "api_keys",
        /// The API keys of the person who asks.
        OwnApiKey = "own_api_keys",
        /// Projects.
        Project = "projects",
        /// Boards and their workflows.
        Board = "boards",
        /// Tickets.
        Ticket = "tickets",
        /// Connections to code hosts.
        Connector = "connectors",
        /// Repositories.
        Repository = "repositories",
        /// What code hosts call us by.
        Webhook = "webhooks",
        /// Runs of agents.
        Run = "runs",
        /// Questions of runs to people.
        Approval = "approvals",
        /// The rules by which runs must ask.
        ApprovalPolicy = "approval_policies",
        /// What agents are told, by default and by the tenant's own layers.
        Instruction = "instructions",
        /// What agents may use.
        Tool = "tools",
        /// What projects may spend.
        Budget = "budgets",
        /// Variables and secrets.
        EnvVar = "env_vars",
        /// The tenant's own code that runs on events.
        Hook = "hooks",
        /// Build pipelines and their runs.
        Pipeline = "pipelines",
        /// Where to deploy.
        DeploymentTarget = "deployment_targets",
        /// The record of what people did.
        AuditLog = "audit_log",
    }
}

/// The leave to do one thing to one kind of thing, such as `runs:cancel`.
///
/// - There are those of the matrix (see [`BuiltInRole`](super::BuiltInRole)) and no others: what makes no sense, such
///   as `users:cancel`, cannot be given to anybody.
/// - No wildcards: the documents have none (003: `mcp:read`), and one would grant what does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Permission {
    pub(super) resource: Resource,
    pub(super) action: Action,
}

impl Permission {
    /// The permission to do this, if there is one.
    pub fn new(action: Action, resource: Resource) -> Option<Self> {
        Self::all().find(|it| it.action == action && it.resource == resource)
    }

    /// Every one, in the order of the matrix.
    pub fn all() -> impl Iterator<Item = Self> {
        MATRIX.iter().map(|row| row.permission)
    }

    /// Reads `resource:action`; otherwise an error that lists what there is.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let Some((resource, action)) = text.split_once(':') else {
            return Err(Invalid::new(
                "permission",
                "must be a resource and an action, such as `runs:cancel`",
            ));
        };
        let resource = Resource::parse(resource)?;
        Self::new(Action::parse(action)?, resource).ok_or_else(|| {
            let actions: Vec<_> =
                Self::all().filter(|it| it.resource == resource).map(|it| it.action.as_str()).collect();
            Invalid::new("permission", format!("`{resource}` can be given with: {}", actions.join(" ")))
        })
    }

    /// What is done.
    pub fn action(self) -> Action {
        self.action
    }

    /// To what.
    pub fn resource(self) -> Resource {
        self.resource
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.resource, self.action)
    }
}

impl FromStr for Permission {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Permission {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> Self {
        permission.to_string()
    }
}

/// A set of permissions, as data: a JSON array of their texts (000 `permissions_json`, `scopes_json`).
///
/// - Read from a request, one that does not exist is refused; from a row, it is [left out](Permissions::known).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Permissions(BTreeSet<Permission>);

impl Permissions {
    /// Those among these texts that exist, as a store reads them from a row.
    ///
    /// - A row can name others: a newer version wrote it, while this one is still running, or an older one, before a
    ///   permission went. What nobody knows allows nothing, and the rest of the role must go on working.
    pub fn known<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        texts.into_iter().filter_map(|text| Permission::parse(text).ok()).collect()
    }

    /// Whether it is among them.
    pub fn contains(&self, permission: Permission) -> bool {
        self.0.contains(&permission)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them, by resource and then by action.
    pub fn iter(&self) -> impl Iterator<Item = Permission> {
        self.0.iter().copied()
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().collect())
    }
}
