//! Variables for agents, hooks, pipelines and deployments.

use std::collections::BTreeMap;

use lime_core::governance::{EnvKey, EnvScope, EnvValue, EnvVar, EnvVarSet};
use lime_core::{Error, ErrorKind, Id, Invalid, LookupExt, Query, Result, Scope, Stored};
use secrecy::{ExposeSecret, SecretString};

use super::Vault;

impl Vault {
    /// How many variables a set has at most.
    pub const MOST_VARS: usize = 200;
    /// How many bytes the names and values of an environment have together at most: 512 KiB. A process takes 2 MiB on
    /// Linux, its arguments included.
    pub const MOST_ENVIRONMENT: usize = 512 << 10;

    /// Sets a variable, whether or not the set has it already.
    ///
    /// - Fails with [`Invalid`](ErrorKind::Invalid) for a value with a NUL character or of more than 64 KiB, for a set
    ///   that is not there, and for more than [`MOST_VARS`](Self::MOST_VARS) in one.
    pub async fn set_env_var(
        &self,
        scope: &Scope,
        set: Id<EnvVarSet>,
        key: EnvKey,
        value: &SecretString,
        is_secret: bool,
    ) -> Result<Stored<EnvVar>> {
        const OPERATION: &str = "secrets.set_env_var";
        Invalid::no_nul("value", value.expose_secret())
            .map_err(|invalid| invalid.refused(OPERATION, "variable"))?;
        let storage = &*self.0.storage;
        loop {
            let all: Vec<Stored<EnvVar>> =
                storage.all(scope, Query::all().filter(EnvVar::SET_ID.eq(set))).await?;
            let known = all.iter().find(|var| var.key == key);
            let stored = match known {
                Some(known) => {
                    let change = |var: &mut EnvVar, sealer: &super::Sealer<'_>| {
                        var.value = sealer.seal(EnvVar::VALUE, value)?;
                        var.is_secret = is_secret;
                        Ok(())
                    };
                    self.update(scope, known, change).await
                }
                None if all.len() >= Self::MOST_VARS => {
                    let message = format!("a set has at most {} variables; use another one", Self::MOST_VARS);
                    return Err(Error::invalid(OPERATION, message));
                }
                None => {
                    let make = |sealer: &super::Sealer<'_>| {
                        let value = sealer.seal(EnvVar::VALUE, value)?;
                        Ok(EnvVar { set_id: set, key: key.clone(), value, is_secret })
                    };
                    self.insert(scope, make).await
                }
            };
            match stored {
                // Somebody else has set or deleted it meanwhile.
                Err(error) if is_overtaken(&error) => {}
                stored => return stored,
            }
        }
    }

    /// The value of a variable.
    pub async fn reveal(&self, scope: &Scope, var: &Stored<EnvVar>) -> Result<SecretString> {
        self.open(scope, var, EnvVar::VALUE, &var.value.value).await
    }

    /// The variables of all sets of these things, by their names.
    ///
    /// - A variable of a later thing replaces one of the same name of an earlier one; within one thing, the set whose
    ///   name comes last in the alphabet.
    /// - Fails with [`Invalid`](ErrorKind::Invalid) for more than [`MOST_ENVIRONMENT`](Self::MOST_ENVIRONMENT), and as
    ///   [`open`](Self::open) does.
    pub async fn environment(&self, scope: &Scope, things: &[EnvScope]) -> Result<Vec<EnvValue>> {
        const OPERATION: &str = "secrets.environment";
        let storage = &*self.0.storage;
        let ids = things.iter().map(|thing| thing.id());
        let query = Query::all().filter(EnvVarSet::SCOPE_ID.any_of(ids));
        let mut sets: Vec<(usize, Stored<EnvVarSet>)> = Vec::new();
        for set in storage.all(scope, query).await? {
            sets.extend(things.iter().position(|thing| *thing == set.scope).map(|place| (place, set)));
        }
        if sets.is_empty() {
            return Ok(Vec::new());
        }
        let order = |set: Id<EnvVarSet>| {
            let found = sets.iter().find(|(_, known)| known.id == set);
            found.map(|(place, known)| (*place, known.name.as_str()))
        };
        let query = Query::all().filter(EnvVar::SET_ID.any_of(sets.iter().map(|(_, set)| set.id)));
        let mut vars: Vec<Stored<EnvVar>> = storage.all(scope, query).await?;
        vars.sort_by_key(|var| order(var.set_id));
        let strongest: BTreeMap<&EnvKey, &Stored<EnvVar>> = vars.iter().map(|var| (&var.key, var)).collect();
        let mut environment = Vec::with_capacity(strongest.len());
        let mut bytes = 0;
        for (key, var) in strongest {
            let value = self.reveal(scope, var).await?;
            bytes += key.as_str().len() + value.expose_secret().len() + 2;
            if bytes > Self::MOST_ENVIRONMENT {
                let message = format!(
                    "the variables have more than {} bytes together; take some out, up to {key} they fit",
                    Self::MOST_ENVIRONMENT
                );
                return Err(Error::invalid(OPERATION, message));
            }
            let unstorable = |invalid: Invalid| invalid.refused(OPERATION, "variable");
            environment.push(EnvValue::new(key.clone(), value, var.is_secret).map_err(unstorable)?);
        }
        Ok(environment)
    }
}

fn is_overtaken(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound | ErrorKind::AlreadyExists)
}
