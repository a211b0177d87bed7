use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lime_core::governance::{EnvKey, EnvScope, EnvVar, EnvVarSet, MasterKeys, TenantKey};
use lime_core::{Id, Lookup, LookupExt, Query, Scope, Store, Stored};
use lime_engine::{SystemEntropy, Vault};
use lime_storage_postgres::PgStorage;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::process::Command;

use crate::ground::{Ground, Seen, tenant};

const OLD: &str = "old:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "new:Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

fn vault(storage: &PgStorage, keys: &str) -> Vault {
    let keys = MasterKeys::parse(&SecretString::from(keys), Arc::new(SystemEntropy)).unwrap();
    Vault::new(storage.clone(), keys)
}

/// Sets of as many variables as they may have, which have their numbers as their values.
async fn fill(storage: &PgStorage, vault: &Vault, scope: &Scope, of: EnvScope, count: usize) {
    for set in 0..count.div_ceil(Vault::MOST_VARS) {
        let named = EnvVarSet { scope: of, name: format!("set {set}") };
        let set_id = storage.insert(scope, named).await.unwrap().id;
        let first = set * Vault::MOST_VARS;
        for number in first..count.min(first + Vault::MOST_VARS) {
            let make = |sealer: &lime_engine::Sealer<'_>| {
                let value = sealer.seal(EnvVar::VALUE, &SecretString::from(format!("value {number}")))?;
                let key = EnvKey::parse(format!("NUMBER_{number}")).unwrap();
                Ok(EnvVar { set_id, key, value, is_secret: true })
            };
            vault.insert(scope, make).await.unwrap();
        }
    }
}

/// How many variables there are, each of which opens and is what it was.
async fn readable(storage: &PgStorage, vault: &Vault, scope: &Scope) -> usize {
    let all: Vec<Stored<EnvVar>> = storage.all(scope, Query::all()).await.unwrap();
    for var in &all {
        let number = var.key.as_str().strip_prefix("NUMBER_").unwrap();
        let value = vault.reveal(scope, var).await.unwrap();
        assert_eq!(value.expose_secret(), format!("value {number}"));
    }
    all.len()
}

async fn keys(storage: &PgStorage, scope: &Scope) -> Vec<Stored<TenantKey>> {
    storage.all(scope, Query::all()).await.unwrap()
}

fn rotate(ground: &Ground, master: &str, more: &[&str]) -> Command {
    let mut command = ground.command(["keys", "rotate"].iter().chain(more));
    command.env("ENCRYPTION_MASTER_KEY", master);
    command
}

/// Sets some variables to what they are, again and again, as a factory that has kept its keys; gives how often.
async fn write_on(storage: PgStorage, scope: Scope, stop: Arc<AtomicBool>) -> u64 {
    let vault = vault(&storage, OLD);
    let some: Vec<Stored<EnvVar>> = storage.list(&scope, &Query::all().limit(5)).await.unwrap().items;
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        for var in &some {
            let value = vault.reveal(&scope, &storage.get(&scope, var.id).await.unwrap()).await.unwrap();
            vault.set_env_var(&scope, var.set_id, var.key.clone(), &value, true).await.unwrap();
            written += 1;
        }
    }
    written
}

#[tokio::test]
async fn master_keys_are_changed_without_touching_a_secret() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let (other, theirs) = tenant(&storage, "other").await;
    let before = vault(&storage, OLD);
    fill(&storage, &before, &scope, EnvScope::Project(project.id), 3).await;
    fill(&storage, &before, &other, EnvScope::Project(theirs.id), 2).await;
    let sealed: Vec<Stored<EnvVar>> = storage.all(&scope, Query::all()).await.unwrap();

    let missing = Seen::of(ground.command(["keys", "rotate"])).await;
    assert_eq!(missing.code, 2);
    assert!(missing.stderr.contains("ENCRYPTION_MASTER_KEY"), "{}", missing.stderr);
    let broken = Seen::of(rotate(&ground, "new:notbase64!", &[])).await;
    assert_eq!(broken.code, 2);
    assert!(!broken.stderr.contains("notbase64"), "{}", broken.stderr);
    let only_new = Seen::of(rotate(&ground, NEW, &[])).await;
    assert_eq!(only_new.code, 1);
    assert!(only_new.stderr.contains("the master key old is not there"), "{}", only_new.stderr);

    let both = format!("{NEW},{OLD}");
    let done = Seen::of(rotate(&ground, &both, &["--json", "--tenant", "acme"])).await.json();
    let acme = json!({ "tenant": "acme", "wrappedKeys": 1, "sealedRows": 0, "droppedKeys": 0 });
    assert_eq!(done, json!({ "tenants": [acme] }));
    let rest = Seen::of(rotate(&ground, &both, &["--json"])).await.json();
    assert_eq!(rest["tenants"][0]["wrappedKeys"], 0);
    assert_eq!(rest["tenants"][1]["wrappedKeys"], 1);
    for scope in [&scope, &other] {
        let keys = keys(&storage, scope).await;
        assert_eq!(keys.iter().map(|key| key.wrapped.master_key.as_str()).collect::<Vec<_>>(), ["new"]);
    }
    let after = vault(&storage, NEW);
    assert_eq!(readable(&storage, &after, &scope).await, 3);
    assert_eq!(readable(&storage, &after, &other).await, 2);
    assert_eq!(storage.all(&scope, Query::<EnvVar>::all()).await.unwrap(), sealed);
}

/// Each time the command is killed at another moment, while others write; in the end nothing is left on the old key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sealed_anew_however_often_it_is_broken_off() {
    let Some(ground) = Ground::migrated().await else { return };
    let count = std::env::var("LIME_TEST_ROTATED_SECRETS").map_or(1_200, |count| count.parse().unwrap());
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let vault = vault(&storage, OLD);
    fill(&storage, &vault, &scope, EnvScope::Project(project.id), count).await;
    let old: Id<TenantKey> = keys(&storage, &scope).await[0].id;

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write_on(ground.storage().await, scope.clone(), stop.clone()));
    for kill in 0..10_u64 {
        let mut rotating = rotate(&ground, OLD, &["--data-keys"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(40 + kill * 35)).await;
        rotating.kill().await.unwrap();
        assert_eq!(readable(&storage, &vault, &scope).await, count, "after {kill} kills");
    }
    // What another factory has sealed with the old key in between is sealed anew, until it knows the new one.
    let done = Seen::of(rotate(&ground, OLD, &["--data-keys"])).await;
    assert_eq!(done.code, 0);
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();
    assert!(written > 0);

    let left = keys(&storage, &scope).await;
    assert_eq!(left.len(), 1);
    assert!(left[0].id > old);
    let all: Vec<Stored<EnvVar>> = storage.all(&scope, Query::all()).await.unwrap();
    assert!(all.iter().all(|var| var.value.value.key() == left[0].id));
    assert_eq!(readable(&storage, &vault, &scope).await, count);
}
