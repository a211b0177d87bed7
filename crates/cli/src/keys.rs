//! `lime keys`: the keys that secrets are sealed with.

use std::sync::Arc;

use lime_core::Scope;
use lime_core::governance::MasterKeys;
use lime_engine::{Rotated, SystemEntropy, Vault};
use secrecy::SecretString;
use serde::Serialize;

use crate::args::KeysCommand;
use crate::desk::Desk;
use crate::environment;
use crate::exit::Failure;
use crate::out::Table;
use crate::whose::Whose;

const MASTER_KEY: &str = "ENCRYPTION_MASTER_KEY";

pub(crate) async fn run(desk: &Desk, command: KeysCommand) -> Result<(), Failure> {
    match command {
        KeysCommand::Rotate { data_keys } => rotate(desk, data_keys).await,
    }
}

#[derive(Debug, Serialize)]
struct Document {
    tenants: Vec<TenantView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TenantView {
    tenant: String,
    wrapped_keys: u64,
    sealed_rows: u64,
    dropped_keys: u64,
}

/// Every tenant, or the one that is named; a tenant whose keys fail does not keep the others from theirs.
async fn rotate(desk: &Desk, data_keys: bool) -> Result<(), Failure> {
    let vault = vault(desk)?;
    let mut document = Document { tenants: Vec::new() };
    let mut failed = Vec::new();
    for Whose { slug, scope } in
        Whose::list(&desk.storage, desk.tenant.as_ref(), desk.tenant.is_none()).await?
    {
        let slug = slug.as_str().to_owned();
        match rotate_one(&vault, &scope, data_keys).await {
            Ok(Rotated { wrapped, sealed, dropped }) => document.tenants.push(TenantView {
                tenant: slug,
                wrapped_keys: wrapped,
                sealed_rows: sealed,
                dropped_keys: dropped,
            }),
            Err(error) => failed.push(format!("{slug}: {}", error.report())),
        }
    }
    desk.out.answer(&document, || {
        let mut table = Table::new(["TENANT", "KEYS WRAPPED", "SECRETS SEALED", "KEYS DROPPED"]);
        for row in &document.tenants {
            let numbers =
                [row.wrapped_keys, row.sealed_rows, row.dropped_keys].map(|number| number.to_string());
            let [wrapped, sealed, dropped] = numbers;
            table.row([row.tenant.clone(), wrapped, sealed, dropped]);
        }
        table.text()
    })?;
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure::failed(format!(
            "these are not rotated; mend what is wrong and say it again:\n  {}",
            failed.join("\n  ")
        ))),
    }
}

async fn rotate_one(vault: &Vault, scope: &Scope, data_keys: bool) -> lime_core::Result<Rotated> {
    let wrapped = vault.rewrap(scope).await?;
    if !data_keys {
        return Ok(wrapped);
    }
    Ok(Rotated { wrapped: wrapped.wrapped, ..vault.rotate(scope).await? })
}

/// What opens and seals secrets, by the master keys of the environment.
fn vault(desk: &Desk) -> Result<Vault, Failure> {
    let keys = environment::variable(MASTER_KEY).ok_or_else(|| {
        Failure::usage(format!(
            "{MASTER_KEY} is not set; give the new master key and the older ones as `id:key,id:key`, the new one first"
        ))
    })?;
    let keys = MasterKeys::parse(&SecretString::from(keys), Arc::new(SystemEntropy))?;
    Ok(Vault::new(desk.storage.clone(), keys))
}
