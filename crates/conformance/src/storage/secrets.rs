//! What is sealed is stored as it is, and holds its key.

#![allow(missing_docs, reason = "each name says the whole of it")]

use lime_core::agents::Agent;
use lime_core::governance::{
    Cell, DataKey, DataKeyBytes, EnvKey, EnvScope, EnvVar, EnvVarSet, MasterKeyId, Sealed, SealedStore,
    TenantKey, WrappedKey,
};
use lime_core::ports::Entropy;
use lime_core::{ErrorKind, Id, Lookup, Result, Scope, Store, Stored};
use secrecy::{ExposeSecret, SecretString};

use super::entities::round_trip;
use crate::scene::{Scene, Subject};

/// Not random at all, which a test of storage need not be.
struct Sevens;

impl Entropy for Sevens {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(7);
        Ok(())
    }
}

fn wrapped(bytes: Vec<u8>) -> TenantKey {
    TenantKey { wrapped: WrappedKey { master_key: MasterKeyId::parse("2026-a_1").unwrap(), bytes } }
}

async fn key(storage: &Subject, scope: &Scope) -> DataKey {
    let stored: Stored<TenantKey> = storage.insert(scope, wrapped(vec![0, 1, 255])).await.unwrap();
    DataKey::new(stored.id, &DataKeyBytes::generate(&Sevens).unwrap())
}

fn cell(scope: &Scope, row: Id<EnvVar>) -> Cell {
    Cell { tenant: scope.tenant(), table: "env_vars", column: EnvVar::VALUE, row: row.raw() }
}

fn sealed(scope: &Scope, key: &DataKey, row: Id<EnvVar>, text: &str) -> Sealed {
    key.seal(cell(scope, row), &SecretString::from(text), &Sevens).unwrap()
}

async fn set(storage: &Subject, scene: &Scene) -> Id<EnvVarSet> {
    let set = EnvVarSet { scope: EnvScope::Project(scene.project.id), name: "s".into() };
    storage.insert(&scene.scope, set).await.unwrap().id
}

fn var(set_id: Id<EnvVarSet>, key: &str, value: Sealed) -> EnvVar {
    EnvVar { set_id, key: EnvKey::parse(key).unwrap(), value, is_secret: true }
}

pub async fn a_data_key_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    round_trip(&storage, &scene.scope, [wrapped(vec![0; 4096]), wrapped((0..=255).collect())]).await;
}

pub async fn a_set_of_variables_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let of = |scope, name: &str| EnvVarSet { scope, name: name.into() };
    let sets = [
        of(EnvScope::Project(scene.project.id), "é"),
        of(EnvScope::Pipeline(Id::new(1)), "a"),
        of(EnvScope::DeploymentTarget(Id::new(1)), "a"),
        of(EnvScope::Hook(Id::new(1)), "a"),
        of(EnvScope::Agent(Id::<Agent>::new(1)), "a"),
    ];
    round_trip(&storage, &scene.scope, sets).await;
}

pub async fn a_sealed_value_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (key, set) = (key(&storage, &scene.scope).await, set(&storage, &scene).await);
    let id = SealedStore::<EnvVar>::draw_id(&*storage, &scene.scope).await.unwrap();
    let value = var(set, "TOKEN", sealed(&scene.scope, &key, id, "hunter2"));
    let stored = storage.insert_as(&scene.scope, id, value.clone()).await.unwrap();
    assert_eq!((stored.id, &stored.value, stored.version), (id, &value, 1));
    let read: Stored<EnvVar> = Lookup::get(&*storage, &scene.scope, id).await.unwrap();
    assert_eq!(read, stored);
    let opened = key.open(cell(&scene.scope, id), &read.value.value).unwrap();
    assert_eq!(opened.expose_secret(), "hunter2");
    assert_eq!(read.value.value.key(), key.id());
    let empty = EnvVar { value: sealed(&scene.scope, &key, id, ""), is_secret: false, ..value };
    let updated = storage.update(&scene.scope, &Stored { value: empty.clone(), ..stored }).await.unwrap();
    assert_eq!(updated.value, empty);
}

/// `SealedStore::draw_id`: no id comes twice, and one that is used is refused.
pub async fn an_id_is_drawn_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (key, set) = (key(&storage, &scene.scope).await, set(&storage, &scene).await);
    let first = SealedStore::<EnvVar>::draw_id(&*storage, &scene.scope).await.unwrap();
    let second = SealedStore::<EnvVar>::draw_id(&*storage, &scene.scope).await.unwrap();
    assert_ne!(first, second);
    let value = |name: &str| var(set, name, sealed(&scene.scope, &key, first, "v"));
    storage.insert_as(&scene.scope, first, value("A")).await.unwrap();
    let used = storage.insert_as(&scene.scope, first, value("B")).await.unwrap_err();
    assert_eq!(used.kind(), ErrorKind::AlreadyExists);
    let named = storage.insert_as(&scene.scope, second, value("A")).await.unwrap_err();
    assert_eq!(named.kind(), ErrorKind::AlreadyExists);
}

pub async fn a_key_in_use_is_held(storage: Subject) {
    let (scene, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let (key, set) = (key(&storage, &scene.scope).await, set(&storage, &scene).await);
    let id = SealedStore::<EnvVar>::draw_id(&*storage, &scene.scope).await.unwrap();
    let value = var(set, "A", sealed(&scene.scope, &key, id, "v"));
    let stored = storage.insert_as(&scene.scope, id, value.clone()).await.unwrap();
    let row: Stored<TenantKey> = Lookup::get(&*storage, &scene.scope, key.id()).await.unwrap();
    let held = Store::delete(&*storage, &scene.scope, &row).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict);
    // A set goes with its variables, and what they held is free.
    let its: Stored<EnvVarSet> = Lookup::get(&*storage, &scene.scope, set).await.unwrap();
    Store::delete(&*storage, &scene.scope, &its).await.unwrap();
    let gone = Lookup::<EnvVar>::get(&*storage, &scene.scope, stored.id).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    Store::delete(&*storage, &scene.scope, &row).await.unwrap();
    // What is sealed with a key that is gone, or another tenant's, is refused.
    let again = self::set(&storage, &theirs).await;
    for (scope, set) in [(&scene.scope, self::set(&storage, &scene).await), (&theirs.scope, again)] {
        let id = SealedStore::<EnvVar>::draw_id(&*storage, scope).await.unwrap();
        let refused =
            storage.insert_as(scope, id, EnvVar { set_id: set, ..value.clone() }).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
    }
}
