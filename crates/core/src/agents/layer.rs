use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{CustomInstruction, DefaultInstruction};
use crate::planning::{Project, Ticket};
use crate::ports::{CommitId, RunTarget};
use crate::repos::Repository;
use crate::runs::{AgentMode, ProviderId};
use crate::words::words;
use crate::{Id, Stored, Value};

words! {
    /// Where a layer comes from, in the order in which they are told: the later, the stronger.
    pub enum LayerScope: "scope_type" {
        /// The repository's own files, such as `AGENTS.md` (ours): whoever may commit says what is in them, so that
        /// they come before all that the tenant's people say.
        Checkout = "checkout",
        /// The tenant's defaults, for any provider or one of them.
        Default = "default",
        /// The tenant.
        Tenant = "tenant",
        /// The project.
        Project = "project",
        /// The repository.
        Repository = "repository",
        /// The ticket.
        Ticket = "ticket",
    }
}

/// What instructions are for (000 §5.10 `scope_type`, `scope_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstructionScope {
    /// All runs of the tenant.
    Tenant,
    /// The runs of a project.
    Project(Id<Project>),
    /// The runs in a repository.
    Repository(Id<Repository>),
    /// The runs for a ticket.
    Ticket(Id<Ticket>),
}

impl InstructionScope {
    /// The layer that it is.
    pub const fn layer(self) -> LayerScope {
        match self {
            Self::Tenant => LayerScope::Tenant,
            Self::Project(_) => LayerScope::Project,
            Self::Repository(_) => LayerScope::Repository,
            Self::Ticket(_) => LayerScope::Ticket,
        }
    }

    /// The project, if it is one.
    pub const fn project(self) -> Option<Id<Project>> {
        match self {
            Self::Project(project) => Some(project),
            Self::Tenant | Self::Repository(_) | Self::Ticket(_) => None,
        }
    }

    /// The repository, if it is one.
    pub const fn repository(self) -> Option<Id<Repository>> {
        match self {
            Self::Repository(repository) => Some(repository),
            Self::Tenant | Self::Project(_) | Self::Ticket(_) => None,
        }
    }

    /// The ticket, if it is one.
    pub const fn ticket(self) -> Option<Id<Ticket>> {
        match self {
            Self::Ticket(ticket) => Some(ticket),
            Self::Tenant | Self::Project(_) | Self::Repository(_) => None,
        }
    }

    /// Whether it means a run about this.
    pub fn applies(self, target: RunTarget) -> bool {
        match self {
            Self::Tenant => true,
            Self::Project(project) => project == target.project_id,
            Self::Repository(repository) => target.repository_id == Some(repository),
            Self::Ticket(ticket) => target.ticket_id == Some(ticket),
        }
    }
}

impl fmt::Display for InstructionScope {
    /// `tenant`, `project 3`, `repository 4` or `ticket 5`: the column that makes it unique.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant => f.write_str("tenant"),
            Self::Project(project) => write!(f, "project {project}"),
            Self::Repository(repository) => write!(f, "repository {repository}"),
            Self::Ticket(ticket) => write!(f, "ticket {ticket}"),
        }
    }
}

impl From<InstructionScope> for Value {
    fn from(scope: InstructionScope) -> Self {
        Self::Text(scope.to_string())
    }
}

/// What a layer was read from: a row, by its table and id, a file of the repository, or a name.
///
/// - One text on the wire and in what is kept with a run: `custom_instructions 12`, `tickets 5`,
///   `repositories 7 AGENTS.md@<commit>`; any other text is a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum LayerSource {
    /// A row of `default_agent_instructions`.
    Default(Id<DefaultInstruction>),
    /// A row of `custom_instructions`.
    Custom(Id<CustomInstruction>),
    /// What the ticket itself says.
    Ticket(Id<Ticket>),
    /// A file of the repository, as a commit has it.
    File {
        /// The repository.
        repository: Id<Repository>,
        /// The path from the top of the repository.
        path: String,
        /// The commit.
        commit: CommitId,
    },
    /// What an integrator's own source calls it.
    Named(String),
}

impl LayerSource {
    /// Whether both are the same row, file or name; a file is the same at every commit.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::File { repository, path, .. },
                Self::File { repository: others, path: other_path, .. },
            ) => repository == others && path == other_path,
            _ => self == other,
        }
    }
}

impl fmt::Display for LayerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default(id) => write!(f, "default_agent_instructions {id}"),
            Self::Custom(id) => write!(f, "custom_instructions {id}"),
            Self::Ticket(id) => write!(f, "tickets {id}"),
            Self::File { repository, path, commit } => write!(f, "repositories {repository} {path}@{commit}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

fn row<E>(id: &str) -> Option<Id<E>> {
    Id::from_str(id).ok()
}

fn file(rest: &str) -> Option<LayerSource> {
    let (repository, file) = rest.split_once(' ')?;
    let (path, commit) = file.rsplit_once('@')?;
    Some(LayerSource::File { repository: row(repository)?, path: path.to_owned(), commit: commit.to_owned() })
}

impl From<&str> for LayerSource {
    fn from(text: &str) -> Self {
        let known = text.split_once(' ').and_then(|(table, rest)| match table {
            "default_agent_instructions" => row(rest).map(Self::Default),
            "custom_instructions" => row(rest).map(Self::Custom),
            "tickets" => row(rest).map(Self::Ticket),
            "repositories" => file(rest),
            _ => None,
        });
        known.unwrap_or_else(|| Self::Named(text.to_owned()))
    }
}

impl From<String> for LayerSource {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<LayerSource> for String {
    fn from(source: LayerSource) -> Self {
        source.to_string()
    }
}

impl JsonSchema for LayerSource {
    fn schema_name() -> Cow<'static, str> {
        "LayerSource".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": ["custom_instructions 12", "tickets 5"] })
    }
}

/// Some instructions, and when they apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionLayer {
    /// Where it comes from.
    pub scope: LayerScope,
    /// What it was read from.
    pub source: LayerSource,
    /// The provider that it is for; any, if none. Only defaults and files of the repository have one.
    pub provider: Option<ProviderId>,
    /// The mode that it is for; any, if none.
    pub mode: Option<AgentMode>,
    /// Lower is stronger, and comes later within its scope.
    pub priority: i32,
    /// Whether it applies at all.
    pub enabled: bool,
    /// The instructions, in Markdown.
    pub content_md: String,
    /// SHA-256 of the content in hexadecimal, where a store has kept it; it is made of the content otherwise.
    pub content_sha256: Option<String>,
}

impl InstructionLayer {
    /// The priority that a layer has unless it is given one (000).
    pub const PRIORITY: i32 = 100;

    /// A layer for any provider and mode.
    pub fn new(scope: LayerScope, source: impl Into<LayerSource>, content_md: impl Into<String>) -> Self {
        Self {
            scope,
            source: source.into(),
            provider: None,
            mode: None,
            priority: Self::PRIORITY,
            enabled: true,
            content_md: content_md.into(),
            content_sha256: None,
        }
    }

    /// What a ticket itself says: before what was written about it for agents.
    pub fn of_ticket(ticket: &Stored<Ticket>) -> Self {
        let description = ticket.description_md.as_deref().unwrap_or_default();
        let content = format!("# Ticket: {}\n\n{description}", ticket.title);
        Self { priority: i32::MAX, ..Self::new(LayerScope::Ticket, LayerSource::Ticket(ticket.id), content) }
    }
}
