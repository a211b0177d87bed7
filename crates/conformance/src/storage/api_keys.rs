//! API keys: made, found, used and revoked.

#![allow(missing_docs, reason = "each name says the whole of it")]

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use lime_core::identity::{
    ApiKey, ApiKeySecret, BuiltInRole, Grant, Pepper, Peppers, Permission, Permissions, Role, UserRole,
};
use lime_core::ports::{Entropy, Renewal};
use lime_core::{ErrorKind, Id, Lookup, LookupExt, Query, Result, Scope, Store, Stored};
use secrecy::ExposeSecret;

use super::entities::time;
use crate::scene::{Scene, Subject};

/// Bytes that are the same for the same seed.
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let mut state = self.0;
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = state.to_be_bytes()[0] & 0x7F;
        }
        Ok(())
    }
}

pub(super) fn pepper(id: i32) -> Pepper {
    Pepper::new(id, vec![7; 32].into()).unwrap()
}

fn peppers() -> Peppers {
    Peppers::new(pepper(1), []).unwrap()
}

pub(super) fn read_runs() -> Permissions {
    [Permission::parse("runs:read").unwrap()].into_iter().collect()
}

/// A secret that nobody else has.
fn secret() -> ApiKeySecret {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let seed = u64::try_from(since.as_nanos() % u128::from(u64::MAX)).unwrap() ^ count.rotate_left(32);
    ApiKeySecret::generate(&Seeded(seed ^ u64::from(std::process::id()).rotate_left(48))).unwrap()
}

/// A stored key that the test has made otherwise, whatever it is called.
pub(super) async fn key(
    storage: &Subject,
    scene: &Scene,
    number: u32,
    otherwise: impl FnOnce(ApiKey) -> ApiKey,
) -> Stored<ApiKey> {
    let key = otherwise(ApiKey::new(format!("key {number}"), read_runs(), &secret(), &peppers()));
    storage.create_key(&scene.scope, key).await.unwrap()
}

/// `ApiKeys::create_key`: it comes back as it was, full and empty.
pub async fn a_key_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = scene.person(&storage, "ada@example.com").await.id;
    let empty = ApiKey::new("ci", read_runs(), &secret(), &peppers());
    let full = ApiKey {
        user_id: Some(ada),
        project_id: Some(scene.project.id),
        scopes: Permission::all().collect(),
        last_used_at: Some(time()),
        expires_at: Some(time()),
        revoked_at: Some(time()),
        ..ApiKey::new("all of it", read_runs(), &secret(), &peppers())
    };
    for value in [empty, full] {
        let stored = storage.create_key(&scene.scope, value.clone()).await.unwrap();
        assert_eq!((&stored.value, stored.version), (&value, 1));
        assert_eq!(Lookup::get(&*storage, &scene.scope, stored.id).await.unwrap(), stored);
        assert_eq!(storage.find_key(&value.prefix).await.unwrap().unwrap().key, stored);
    }
    let keys = (*storage).all(&scene.scope, Query::<ApiKey>::all()).await.unwrap();
    assert_eq!(keys.len(), 2);
}

/// `ApiKeys::create_key`: a prefix is there once over all tenants; a broken rule and a foreign reference are refused.
pub async fn a_prefix_is_one_key_of_all_tenants(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let value = ApiKey::new("ci", read_runs(), &secret(), &peppers());
    storage.create_key(&scene.scope, value.clone()).await.unwrap();
    for scope in [&scene.scope, &other.scope] {
        let error = storage.create_key(scope, value.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    let stranger = other.person(&storage, "eve@example.com").await.id;
    let fresh = || ApiKey::new("ci", read_runs(), &secret(), &peppers());
    for bad in [
        ApiKey { name: " ".into(), ..fresh() },
        ApiKey { scopes: Permissions::default(), ..fresh() },
        ApiKey { user_id: Some(stranger), ..fresh() },
        ApiKey { user_id: Some(Id::new(i64::MAX)), ..fresh() },
        ApiKey { project_id: Some(other.project.id), ..fresh() },
    ] {
        let error = storage.create_key(&scene.scope, bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

/// `ApiKeys::find_key`: with its tenant, its owner and what their roles permit; none where there is none.
pub async fn a_key_is_found_with_its_owner(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = scene.person(&storage, "ada@example.com").await;
    let roles = (*storage).all(&scene.scope, Query::<Role>::all()).await.unwrap();
    for (role, project_id) in [(0, Some(scene.project.id)), (3, None)] {
        let given = UserRole { user_id: ada.id, role_id: roles[role].id, project_id };
        storage.insert(&scene.scope, given).await.unwrap();
    }
    let hers = key(&storage, &scene, 1, |key| ApiKey { user_id: Some(ada.id), ..key }).await;
    let found = storage.find_key(&hers.prefix).await.unwrap().unwrap();
    assert_eq!((found.tenant_id, &found.key), (scene.scope.tenant(), &hers));
    let owner = found.owner.clone().unwrap();
    assert_eq!(owner.user, ada);
    let grants = [
        Grant { permissions: BuiltInRole::Admin.permissions(), project_id: Some(scene.project.id) },
        Grant { permissions: BuiltInRole::Qa.permissions(), project_id: None },
    ];
    assert_eq!(owner.grants, grants);
    assert_eq!(found.caller().scope(), &Scope::of_key(scene.scope.tenant(), hers.id, Some(ada.id)));

    let tenants = key(&storage, &scene, 2, |key| key).await;
    assert_eq!(storage.find_key(&tenants.prefix).await.unwrap().unwrap().owner, None);
    assert_eq!(storage.find_key(&secret().prefix()).await.unwrap(), None);
    storage.delete_tenant(scene.scope.tenant()).await.unwrap();
    assert_eq!(storage.find_key(&tenants.prefix).await.unwrap(), None, "its tenant is gone");
}

/// `ApiKeys::note_use`: one of many uses at once is written, and then none for a while; it is no update.
pub async fn a_use_is_noted_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let fresh = key(&storage, &scene, 1, |key| key).await;
    let uses = (0..8).map(|_| storage.note_use(&scene.scope, fresh.id, None));
    let noted = join_all(uses).await.into_iter().filter(|noted| *noted.as_ref().unwrap()).count();
    assert_eq!(noted, 1);
    let used = Lookup::get(&*storage, &scene.scope, fresh.id).await.unwrap();
    assert!(used.last_used_at.is_some());
    assert_eq!((used.version, used.updated_at), (fresh.version, fresh.updated_at));
    let long_ago = key(&storage, &scene, 2, |key| ApiKey {
        last_used_at: Some(fresh.created_at - ApiKey::LAST_USED_STEP),
        ..key
    })
    .await;
    assert!(storage.note_use(&scene.scope, long_ago.id, None).await.unwrap());
    let foreign = Scene::new(&storage).await;
    let theirs = key(&storage, &scene, 3, |key| key).await;
    assert!(!storage.note_use(&foreign.scope, theirs.id, None).await.unwrap());
    assert_eq!(Lookup::get(&*storage, &scene.scope, theirs.id).await.unwrap(), theirs);
}

/// `ApiKeys::note_use`: a renewed hash takes the place of the one that was checked, and of no other.
pub async fn a_hash_is_renewed(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let secret = secret();
    let old = peppers();
    let stored =
        storage.create_key(&scene.scope, ApiKey::new("ci", read_runs(), &secret, &old)).await.unwrap();
    let newer = Peppers::new(pepper(2), [pepper(1)]).unwrap();
    let renewal = || Renewal { from: stored.hash.clone(), to: newer.renewed(&secret, &stored.hash).unwrap() };
    storage.note_use(&scene.scope, stored.id, None).await.unwrap();
    assert!(storage.note_use(&scene.scope, stored.id, Some(renewal())).await.unwrap());
    let renewed = Lookup::get(&*storage, &scene.scope, stored.id).await.unwrap();
    assert_eq!(renewed.hash.pepper_id(), 2);
    assert_eq!(newer.verify(&secret, &renewed.hash), Ok(()));
    assert!(
        !storage.note_use(&scene.scope, stored.id, Some(renewal())).await.unwrap(),
        "it is renewed already"
    );
    assert_eq!(Lookup::get(&*storage, &scene.scope, stored.id).await.unwrap(), renewed);
}

/// `ApiKeys::revoke_key`: for good, once; nothing of a revoked key is written; a foreign one is as a missing one.
pub async fn a_key_is_revoked_for_good(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let fresh = key(&storage, &scene, 1, |key| key).await;
    let foreign = Scene::new(&storage).await;
    let foreign_error = storage.revoke_key(&foreign.scope, fresh.id).await.unwrap_err();
    let missing_id = Id::new(fresh.id.raw() + 1_000_000);
    let missing_error = storage.revoke_key(&scene.scope, missing_id).await.unwrap_err();
    assert_eq!((foreign_error.kind(), missing_error.kind()), (ErrorKind::NotFound, ErrorKind::NotFound));
    let told = |error: &str, id: Id<ApiKey>| error.replace(&id.to_string(), "");
    assert_eq!(
        told(&foreign_error.to_string(), fresh.id),
        told(&missing_error.to_string(), missing_id),
        "what is another tenant's looks like what is not there"
    );
    let revoked = storage.revoke_key(&scene.scope, fresh.id).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(revoked.version, fresh.version + 1);
    assert_eq!(storage.revoke_key(&scene.scope, fresh.id).await.unwrap(), revoked);
    assert!(!storage.note_use(&scene.scope, fresh.id, None).await.unwrap());
    assert_eq!(Lookup::get(&*storage, &scene.scope, fresh.id).await.unwrap(), revoked);
    assert_eq!(
        storage.find_key(&fresh.prefix).await.unwrap().unwrap().key,
        revoked,
        "so that it can be told"
    );
}

/// A key goes with its person and with its project, rather than become the whole tenant's.
pub async fn a_key_goes_with_whom_it_belongs_to(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = scene.person(&storage, "ada@example.com").await;
    key(&storage, &scene, 1, |key| ApiKey { user_id: Some(ada.id), ..key }).await;
    key(&storage, &scene, 2, |key| ApiKey { project_id: Some(scene.project.id), ..key }).await;
    let kept = key(&storage, &scene, 3, |key| key).await;
    Store::delete(&*storage, &scene.scope, &ada).await.unwrap();
    Store::delete(&*storage, &scene.scope, &scene.project).await.unwrap();
    assert_eq!((*storage).all(&scene.scope, Query::<ApiKey>::all()).await.unwrap(), [kept]);
}

/// The text of a key is in nothing that is stored or shown of it.
pub async fn nothing_shows_a_key(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let secret = secret();
    let stored =
        storage.create_key(&scene.scope, ApiKey::new("ci", read_runs(), &secret, &peppers())).await.unwrap();
    let again = storage.create_key(&scene.scope, stored.value.clone()).await.unwrap_err();
    let shown =
        format!("{secret:?} {stored:?} {again:?} {again} {:?}", storage.find_key(&stored.prefix).await);
    let text = secret.reveal();
    let random = &text.expose_secret()[ApiKeySecret::PREFIX.len() + 8..];
    assert!(!shown.contains(random), "{shown}");
}
