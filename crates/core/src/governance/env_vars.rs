use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use super::{Hook, Sealed, Sealing, TenantKey};
use crate::agents::Agent;
use crate::planning::Project;
use crate::repos::{BuildPipeline, DeploymentTarget};
use crate::words::words;
use crate::{Editable, Field, Id, Invalid, Value, entity};

/// Variables that belong together and are for one thing (000 §5.8 env_var_sets).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVarSet {
    /// What they are for.
    pub scope: EnvScope,
    /// The name, 1 to 100 characters, unique for what they are for.
    pub name: String,
}

/// What variables are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EnvScope {
    /// All agents that work in a project.
    Project(Id<Project>),
    /// The runs of a pipeline.
    Pipeline(Id<BuildPipeline>),
    /// What is deployed to a target.
    DeploymentTarget(Id<DeploymentTarget>),
    /// A hook.
    Hook(Id<Hook>),
    /// A named agent, in whatever project; stronger than its project's.
    Agent(Id<Agent>),
}

words! {
    /// The word for what variables are for (000 §5.8 scope_type).
    pub enum EnvScopeKind: "scope_type" {
        /// A project.
        Project = "project",
        /// A pipeline.
        Pipeline = "pipeline",
        /// A deployment target.
        DeploymentTarget = "deployment_target",
        /// A hook.
        Hook = "hook",
        /// An agent.
        Agent = "agent",
    }
}

impl EnvScope {
    /// One of this kind, by its number (000 scope_id).
    pub const fn new(kind: EnvScopeKind, id: i64) -> Self {
        match kind {
            EnvScopeKind::Project => Self::Project(Id::new(id)),
            EnvScopeKind::Pipeline => Self::Pipeline(Id::new(id)),
            EnvScopeKind::DeploymentTarget => Self::DeploymentTarget(Id::new(id)),
            EnvScopeKind::Hook => Self::Hook(Id::new(id)),
            EnvScopeKind::Agent => Self::Agent(Id::new(id)),
        }
    }

    /// The word for it.
    pub const fn kind(self) -> EnvScopeKind {
        match self {
            Self::Project(_) => EnvScopeKind::Project,
            Self::Pipeline(_) => EnvScopeKind::Pipeline,
            Self::DeploymentTarget(_) => EnvScopeKind::DeploymentTarget,
            Self::Hook(_) => EnvScopeKind::Hook,
            Self::Agent(_) => EnvScopeKind::Agent,
        }
    }

    /// Its number.
    pub const fn id(self) -> i64 {
        match self {
            Self::Project(id) => id.raw(),
            Self::Pipeline(id) => id.raw(),
            Self::DeploymentTarget(id) => id.raw(),
            Self::Hook(id) => id.raw(),
            Self::Agent(id) => id.raw(),
        }
    }

    /// The project, if it is one.
    pub const fn project(self) -> Option<Id<Project>> {
        match self {
            Self::Project(project) => Some(project),
            Self::Pipeline(_) | Self::DeploymentTarget(_) | Self::Hook(_) | Self::Agent(_) => None,
        }
    }
}

entity! {
    EnvVarSet as "set of variables" in "env_var_sets" {
        SCOPE_TYPE: EnvScopeKind = scope_type => |set| set.scope.kind();
        SCOPE_ID: i64 = scope_id => |set| set.scope.id();
        PROJECT_ID: Option<Id<Project>> = project_id => |set| set.scope.project();
        NAME: String = name => |set| set.name.clone();
    }
    unique [SCOPE_TYPE, SCOPE_ID, NAME];
    refers PROJECT_ID -> Project Cascade;
    validate |set| {
        Invalid::text("name", &set.name, 1, 100)?;
        Invalid::no_nul("name", &set.name)
    };
}
impl Editable for EnvVarSet {}

/// The name of a variable: 1 to 200 of `A-Z`, `a-z`, `0-9` and `_`, not beginning with a digit (POSIX).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvKey(String);

impl EnvKey {
    const MOST_CHARS: usize = 200;

    /// Checks a name.
    pub fn parse(text: impl Into<String>) -> Result<Self, Invalid> {
        let text = text.into();
        let is_known = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        if !begins || text.len() > Self::MOST_CHARS || !text.bytes().all(is_known) {
            let rule = "must be 1 to 200 letters, digits and `_`, and not begin with a digit, such as `DATABASE_URL`";
            return Err(Invalid::new("key", rule));
        }
        Ok(Self(text))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<EnvKey> for Value {
    fn from(key: EnvKey) -> Self {
        Self::Text(key.0)
    }
}

/// One variable (000 §5.8 env_vars), whose value is sealed whether or not it is a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvVar {
    /// The set that it belongs to.
    pub set_id: Id<EnvVarSet>,
    /// The name, unique in the set.
    pub key: EnvKey,
    /// The value, sealed for its [cell](EnvVar::VALUE).
    pub value: Sealed,
    /// Whether it is hidden in all that an agent says; otherwise it is a setting that anybody may see.
    pub is_secret: bool,
}

impl EnvVar {
    /// The column of the value.
    pub const VALUE: &str = "value_enc";
}

entity! {
    EnvVar as "variable" in "env_vars" {
        SET_ID: Id<EnvVarSet> = set_id => |var| var.set_id;
        KEY: EnvKey = key => |var| var.key.clone();
        KEY_ID: Id<TenantKey> = key_id => |var| var.value.key();
    }
    unique [SET_ID, KEY];
    refers SET_ID -> EnvVarSet Cascade;
    refers KEY_ID -> TenantKey Restrict;
    validate |_var| Ok(());
}
impl Editable for EnvVar {}

impl Sealing for EnvVar {
    const SEALED_WITH: Field<Self, Id<TenantKey>> = Self::KEY_ID;

    fn sealed_mut(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![(Self::VALUE, &mut self.value)]
    }
}

/// One variable of an environment, opened.
///
/// - `Debug` shows no value.
#[derive(Debug, Clone)]
pub struct EnvValue {
    key: EnvKey,
    value: SecretString,
    is_secret: bool,
}

impl EnvValue {
    /// A variable; one that is no secret may be shown by agents and must not be hidden in what they say.
    ///
    /// - Fails for a value with a NUL character, which no environment can hold.
    pub fn new(key: EnvKey, value: SecretString, is_secret: bool) -> Result<Self, Invalid> {
        Invalid::no_nul("value", value.expose_secret())?;
        Ok(Self { key, value, is_secret })
    }

    /// A secret with this name; fails as [`EnvKey::parse`] and [`new`](Self::new) do.
    pub fn secret(name: impl Into<String>, value: impl Into<SecretString>) -> Result<Self, Invalid> {
        Self::new(EnvKey::parse(name)?, value.into(), true)
    }

    /// The name.
    pub fn key(&self) -> &EnvKey {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> &SecretString {
        &self.value
    }

    /// The value, if it is to be hidden in what an agent says.
    pub fn hidden(&self) -> Option<&SecretString> {
        self.is_secret.then_some(&self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables() {
        for good in ["A", "_", "DATABASE_URL", "a1"] {
            assert!(EnvKey::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "1A", "A B", "A=B", "A-B", "Ä", "A\0", &"A".repeat(201)] {
            assert!(EnvKey::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_scope_comes_back_from_its_word_and_number() {
        for kind in EnvScopeKind::ALL {
            let scope = EnvScope::new(*kind, 7);
            assert_eq!((scope.kind(), scope.id()), (*kind, 7));
        }
    }
}
