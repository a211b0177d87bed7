//! Secrets: sealed for their place, opened where they are used, and sealed anew.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]

mod support;

use std::sync::Arc;

use lime_core::agents::Agent;
use lime_core::governance::{EnvKey, EnvScope, EnvValue, EnvVar, EnvVarSet, MasterKeys, TenantKey};
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::ports::MockEntropy;
use lime_core::runs::RunStatus;
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Scope, Store, Stored};
use lime_engine::{Factory, Rotated, SystemEntropy, Vault, Worker, WorkerConfig};
use secrecy::{ExposeSecret, SecretString};

use crate::support::{Play, Scene};

const MASTER: &str = "one:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Place {
    storage: MemoryStorage,
    vault: Vault,
    scope: Scope,
    project: Id<Project>,
}

fn masters() -> MasterKeys {
    MasterKeys::parse(&SecretString::from(MASTER), Arc::new(SystemEntropy)).unwrap()
}

impl Place {
    async fn new() -> Self {
        let storage = MemoryStorage::default();
        let (scope, project) = tenant(&storage, "a").await;
        let vault = Vault::new(storage.clone(), masters());
        Self { storage, vault, scope, project }
    }

    async fn set(&self, of: EnvScope, name: &str) -> Id<EnvVarSet> {
        let set = EnvVarSet { scope: of, name: name.into() };
        self.storage.insert(&self.scope, set).await.unwrap().id
    }

    async fn put(&self, set: Id<EnvVarSet>, key: &str, value: &str) -> Stored<EnvVar> {
        let (key, value) = (EnvKey::parse(key).unwrap(), SecretString::from(value));
        self.vault.set_env_var(&self.scope, set, key, &value, true).await.unwrap()
    }

    async fn environment(&self, things: &[EnvScope]) -> Vec<(String, String)> {
        let environment = self.vault.environment(&self.scope, things).await.unwrap();
        let text = |var: &EnvValue| (var.key().to_string(), var.value().expose_secret().to_owned());
        environment.iter().map(text).collect()
    }

    async fn keys(&self) -> Vec<Stored<TenantKey>> {
        self.storage.all(&self.scope, Query::all()).await.unwrap()
    }
}

async fn tenant(storage: &MemoryStorage, slug: &str) -> (Scope, Id<Project>) {
    let tenant = Tenant::new(slug, Slug::parse(slug).unwrap());
    let scope = Scope::system(storage.create_tenant(tenant).await.unwrap().id, "a test");
    let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap().id;
    (scope, project)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn the_stronger_variable_wins() {
    let place = Place::new().await;
    let (project, agent) =
        (EnvScope::Project(place.project), EnvScope::Agent(Id::<Agent>::new(place.project.raw())));
    let (a, b, its) =
        (place.set(project, "a").await, place.set(project, "b").await, place.set(agent, "its own").await);
    place.put(b, "X", "of b").await;
    place.put(a, "X", "of a").await;
    place.put(a, "ONLY_A", "1").await;
    place.put(its, "Y", "of the agent").await;
    place.put(b, "Y", "of b").await;
    assert_eq!(
        place.environment(&[project, agent]).await,
        pairs(&[("ONLY_A", "1"), ("X", "of b"), ("Y", "of the agent")])
    );
    assert_eq!(place.environment(&[agent]).await, pairs(&[("Y", "of the agent")]));
    assert_eq!(place.environment(&[EnvScope::Hook(Id::new(place.project.raw()))]).await, pairs(&[]));
    let changed = place.put(its, "Y", "").await;
    assert_eq!(changed.version, 2);
    assert_eq!(place.environment(&[agent]).await, pairs(&[("Y", "")]));
}

#[tokio::test]
async fn a_value_opens_in_its_own_place_only() {
    let place = Place::new().await;
    let set = place.set(EnvScope::Project(place.project), "s").await;
    let (one, other) = (place.put(set, "ONE", "1").await, place.put(set, "OTHER", "2").await);
    let mut moved = other.clone();
    moved.value.value = one.value.value.clone();
    let moved = place.storage.update(&place.scope, &moved).await.unwrap();
    let refused = place.vault.reveal(&place.scope, &moved).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    // A second tenant has keys with other ids, and no row with that of the first.
    let (theirs, _) = tenant(&place.storage, "b").await;
    let foreign = place.vault.reveal(&theirs, &one).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::Missing);
    assert!(!format!("{refused:?} {foreign:?} {one:?} {:?}", place.vault).contains("\"1\""));
}

#[tokio::test]
async fn what_cannot_be_a_variable_is_refused() {
    let place = Place::new().await;
    let set = place.set(EnvScope::Project(place.project), "s").await;
    let try_to = async |set, value: &str| {
        let key = EnvKey::parse("K").unwrap();
        place.vault.set_env_var(&place.scope, set, key, &SecretString::from(value), true).await.unwrap_err()
    };
    for bad in ["a\0b", &"x".repeat((64 << 10) + 1)] {
        assert_eq!(try_to(set, bad).await.kind(), ErrorKind::Invalid);
    }
    assert_eq!(try_to(Id::new(99), "v").await.kind(), ErrorKind::Invalid);
    for number in 0..Vault::MOST_VARS {
        place.put(set, &format!("V{number}"), "v").await;
    }
    let full = try_to(set, "v").await;
    assert!(full.message().contains("at most 200"), "{full}");
    place.put(set, "V7", "may change").await;
}

#[tokio::test]
async fn an_environment_has_its_limit() {
    let place = Place::new().await;
    let project = EnvScope::Project(place.project);
    let set = place.set(project, "s").await;
    for number in 0..8 {
        place.put(set, &format!("V{number}"), &"x".repeat(64 << 10)).await;
    }
    let error = place.vault.environment(&place.scope, &[project]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("V7"), "{error}");
}

#[tokio::test]
async fn rotation_leaves_nothing_on_the_old_key() {
    let place = Place::new().await;
    assert_eq!(place.vault.rotate(&place.scope).await.unwrap(), Rotated::default(), "no key, no secret");
    let project = EnvScope::Project(place.project);
    let set = place.set(project, "s").await;
    for number in 0..50 {
        place.put(set, &format!("V{number:02}"), &number.to_string()).await;
    }
    let (before, elsewhere) = (place.keys().await, Vault::new(place.storage.clone(), masters()));
    let seen = elsewhere.environment(&place.scope, &[project]).await.unwrap().len();
    let rotated = place.vault.rotate(&place.scope).await.unwrap();
    assert_eq!(rotated, Rotated { wrapped: 0, sealed: 50, dropped: 1 });
    let after = place.keys().await;
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].id, before[0].id);
    // One that has kept the old key opens with the new one, and does not seal with the old one any more.
    assert_eq!(elsewhere.environment(&place.scope, &[project]).await.unwrap().len(), seen);
    let key = EnvKey::parse("LATE").unwrap();
    let late = elsewhere.set_env_var(&place.scope, set, key, &SecretString::from("l"), true).await.unwrap();
    assert_eq!(late.value.value.key(), after[0].id);
}

#[tokio::test]
async fn a_rotation_that_was_broken_off_is_gone_on_with() {
    let place = Place::new().await;
    let set = place.set(EnvScope::Project(place.project), "s").await;
    let one = place.put(set, "ONE", "1").await;
    // As one leaves it that had only made the new key.
    let wrapped = place.keys().await[0].wrapped.clone();
    let second = place.storage.insert(&place.scope, TenantKey { wrapped }).await.unwrap();
    assert_eq!(
        place.vault.rotate(&place.scope).await.unwrap(),
        Rotated { wrapped: 0, sealed: 1, dropped: 1 }
    );
    assert_eq!(place.keys().await.iter().map(|key| key.id).collect::<Vec<_>>(), [second.id]);
    let one: Stored<EnvVar> = place.storage.get(&place.scope, one.id).await.unwrap();
    assert_eq!(place.vault.reveal(&place.scope, &one).await.unwrap().expose_secret(), "1");
}

#[tokio::test]
async fn agents_get_the_variables_of_their_project() {
    let scene = Scene::new([Play::of([])]).await;
    let vault = Vault::new(scene.storage.clone(), masters());
    let set = EnvVarSet { scope: EnvScope::Project(scene.project.id), name: "s".into() };
    let set = scene.storage.insert(&scene.scope, set).await.unwrap().id;
    for (key, value, is_secret) in [("TOKEN", "hunter2-hunter2", true), ("NODE_ENV", "production", false)] {
        let key = EnvKey::parse(key).unwrap();
        vault.set_env_var(&scene.scope, set, key, &SecretString::from(value), is_secret).await.unwrap();
    }
    let factory = Factory::builder(scene.storage.clone())
        .provider(scene.agent.clone())
        .repos(scene.ground.clone())
        .workspaces(scene.ground.clone())
        .vault(vault)
        .build();
    let worker = Worker::new(&factory, WorkerConfig::default()).unwrap().spawn();
    let run = scene.submit_one().await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    support::stop(worker).await;
    let spec = scene.agent.specs().pop().unwrap();
    let text = |var: &EnvValue| {
        (var.key().to_string(), var.value().expose_secret().to_owned(), var.hidden().is_some())
    };
    assert_eq!(
        spec.env.iter().map(text).collect::<Vec<_>>(),
        [
            ("NODE_ENV".to_owned(), "production".to_owned(), false),
            ("TOKEN".to_owned(), "hunter2-hunter2".to_owned(), true),
        ]
    );
    assert!(!format!("{spec:?}").contains("hunter2"));
}

#[tokio::test]
async fn without_randomness_nothing_is_sealed() {
    let storage = MemoryStorage::default();
    let (scope, project) = tenant(&storage, "a").await;
    let mut entropy = MockEntropy::new();
    let dry = || Err(Error::new(ErrorKind::Unavailable, "entropy.fill", "none left"));
    entropy.expect_fill().returning(move |_| dry());
    let vault = Vault::with_entropy(storage.clone(), masters(), entropy);
    let set = EnvVarSet { scope: EnvScope::Project(project), name: "s".into() };
    let set = storage.insert(&scope, set).await.unwrap().id;
    let key = EnvKey::parse("K").unwrap();
    let error = vault.set_env_var(&scope, set, key, &SecretString::from("v"), true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(storage.all(&scope, Query::<EnvVar>::all()).await.unwrap().is_empty());
}
