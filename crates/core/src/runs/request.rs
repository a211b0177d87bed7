//! What a run is asked to do: the lead document's section 6.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::governance::{Allowlist, ToolLayer};
use crate::identity::Tenant;
use crate::planning::{Project, Ticket};
use crate::repos::Repository;
use crate::runs::AgentRun;
use crate::words::words;
use crate::{Id, Invalid, Value};

/// The name of an agent provider, such as `claude`: 1 to 40 of `a-z`, `0-9`, `-` and `_`, a letter first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderId(Cow<'static, str>);

impl ProviderId {
    /// The name of an adapter, known when it is built.
    ///
    /// - Panics if the name breaks the rule; use it in a `const`, so that it does so while compiling.
    pub const fn from_static(name: &'static str) -> Self {
        assert!(Self::is_well_formed(name.as_bytes()), "a provider's name is 1 to 40 of a-z, 0-9, - and _");
        Self(Cow::Borrowed(name))
    }

    /// Checks a name.
    pub fn parse(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        if !Self::is_well_formed(name.as_bytes()) {
            return Err(Invalid::new("provider", "must be 1 to 40 of a-z, 0-9, `-` and `_`, a letter first"));
        }
        Ok(Self(Cow::Owned(name)))
    }

    const fn is_well_formed(name: &[u8]) -> bool {
        if name.is_empty() || name.len() > 40 || !name[0].is_ascii_lowercase() {
            return false;
        }
        let mut at = 0;
        while at < name.len() {
            if !matches!(name[at], b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_') {
                return false;
            }
            at += 1;
        }
        true
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl TryFrom<String> for ProviderId {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::parse(name)
    }
}
impl From<ProviderId> for String {
    fn from(id: ProviderId) -> Self {
        id.0.into_owned()
    }
}
impl From<ProviderId> for Value {
    fn from(id: ProviderId) -> Self {
        Self::Text(id.into())
    }
}
impl JsonSchema for ProviderId {
    fn schema_name() -> Cow<'static, str> {
        "ProviderId".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_-]{0,39}$", "examples": ["claude", "codex"] })
    }
}

words! {
    /// What kind of work a run does (000 §0).
    pub enum AgentMode: "mode" {
        /// Writes a plan; changes nothing.
        Plan = "plan",
        /// Builds what the ticket asks for.
        Implement = "implement",
        /// Finds and mends a fault.
        Bugfix = "bugfix",
        /// Reads a change and comments on it.
        Review = "review",
    }
}

/// A run, as a worker or a provider is asked for it on the wire (000 §6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentRunRequest {
    /// The run.
    pub run_id: Id<AgentRun>,
    /// The tenant.
    pub tenant_id: Id<Tenant>,
    /// The project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Id<Project>>,
    /// The ticket that the work is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<Id<Ticket>>,
    /// The kind of work.
    pub mode: AgentMode,
    /// What the person asked for.
    pub prompt: String,
    /// The repository to work in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repo: Option<RepoRequest>,
    /// What the run may take and use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
}

/// The repository of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepoRequest {
    /// The repository.
    pub repository_id: Id<Repository>,
    /// What `git clone` takes, without credentials.
    pub clone_url: String,
    /// The branch that work starts from unless `ref` says otherwise.
    pub default_branch: String,
    /// The branch, tag or commit that work starts from.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The paths that the run may change; all of them, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_paths: Option<Vec<String>>,
}

/// What a run may take and use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraints {
    /// The most seconds that the agent may take, from its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_budget_sec: Option<u32>,
    /// The most money that the agent may use, in cents; it can be passed by one call in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost_cents: Option<i64>,
    /// The tools that the agent may use, such as `Read` or `Bash(git *)`, of those that the tenant's defaults leave it;
    /// all of these, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_tools: Option<Vec<String>>,
    /// The most turns that the agent may take (ours, from 001 `maxTurns`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_turns: Option<u32>,
}

impl Constraints {
    /// Checks that every limit given is above 0, and that the tools are named as they can be.
    pub fn validate(&self) -> Result<(), Invalid> {
        for (field, zero) in [
            ("constraints.timeBudgetSec", self.time_budget_sec == Some(0)),
            ("constraints.maxCostCents", self.max_cost_cents.is_some_and(|cents| cents <= 0)),
            ("constraints.maxTurns", self.max_turns == Some(0)),
        ] {
            if zero {
                return Err(Invalid::new(field, "must be above 0"));
            }
        }
        self.tools().map(|_| ())
    }

    /// The run's own list of tools.
    pub fn tools(&self) -> Result<Allowlist, Invalid> {
        match &self.allowed_tools {
            Some(tools) => Allowlist::parse(ToolLayer::Run, tools)
                .map_err(|invalid| Invalid::new("constraints.allowedTools", invalid.rule)),
            None => Ok(Allowlist::all()),
        }
    }
}
