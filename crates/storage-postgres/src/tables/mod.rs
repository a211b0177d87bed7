//! One file for each table: its columns, and how they become the entity and back.
#![allow(unreachable_pub, reason = "what SeaORM's derives make is public")]

pub(crate) mod agent_run;
pub(crate) mod api_key;
pub(crate) mod approval;
mod approval_policy;
mod board;
pub(crate) mod budget;
mod budget_entry;
mod code_diff;
pub(crate) mod custom_instruction;
pub(crate) mod default_instruction;
mod default_tools;
mod effect;
mod env_var;
mod env_var_set;
mod project;
mod repository;
mod repository_config;
pub(crate) mod role;
pub(crate) mod run_attempt;
pub(crate) mod run_input;
mod run_step;
pub(crate) mod tenant;
mod tenant_key;
mod ticket;
mod tool_call;
pub(crate) mod user;
mod user_role;
mod worktree;

use lime_core::governance::Sealed;
use lime_core::{Id, Invalid};
use sea_orm::JsonValue;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn id<E>(raw: Option<i64>) -> Option<Id<E>> {
    raw.map(Id::new)
}

fn raw<E>(id: Option<Id<E>>) -> Option<i64> {
    id.map(Id::raw)
}

fn ids<E>(raw: Vec<i64>) -> Vec<Id<E>> {
    raw.into_iter().map(Id::new).collect()
}

fn raws<E>(ids: Vec<Id<E>>) -> Vec<i64> {
    ids.into_iter().map(Id::raw).collect()
}

/// The word of an enum, which is its text.
fn word(word: impl std::fmt::Display) -> String {
    word.to_string()
}

fn parse_some<T>(
    word: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    word.map(parse).transpose()
}

fn known<T>(field: &'static str, code: Option<T>) -> Result<T, Invalid> {
    code.ok_or_else(|| Invalid::new(field, "has a code that this version does not know"))
}

/// A sealed value as its column has it; only its head is looked at.
fn sealed(field: &'static str, bytes: Vec<u8>) -> Result<Sealed, Invalid> {
    Sealed::from_row(bytes).map_err(|error| Invalid::new(field, error.message().to_owned()))
}

pub(crate) fn from_json<T: DeserializeOwned>(field: &'static str, value: JsonValue) -> Result<T, Invalid> {
    serde_json::from_value(value)
        .map_err(|_| Invalid::new(field, "has a form that this version does not know"))
}

pub(crate) fn to_json(value: &impl Serialize) -> JsonValue {
    serde_json::to_value(value).expect("nouns are plain values with text keys, which always become JSON")
}
