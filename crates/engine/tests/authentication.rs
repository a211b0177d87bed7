//! Who is let in, what it costs to see, and how soon it is seen that somebody no longer is.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::identity::{
    Action, ApiKey, ApiKeySecret, BuiltInRole, Caller, Identity, NewSession, Pepper, Peppers, Permission,
    Permissions, Resource, Role, SessionToken, TenantSettings, User, UserRole, UserStatus,
};
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::memory::MemoryStorage;
use lime_core::ports::{ApiKeys, Clock, Entropy, Identities};
use lime_core::{Error, ErrorKind, Id, Lookup, LookupExt, Query, Result, Scope, Store, Stored};
use lime_engine::{Authenticator, IssuedKey, NewKey, SystemClock, SystemEntropy};

use support::Watched;
use support::watched::Fault;

/// Longer than anything that was looked up may be old.
const STALE: Duration = Duration::from_millis(600);
/// How soon a lost right must be noticed.
const SOON: Duration = Duration::from_secs(1);

/// A tenant with a person, and two processes that let callers in.
struct Scene {
    storage: MemoryStorage,
    watched: Watched,
    here: Authenticator,
    elsewhere: Authenticator,
    admin: Caller,
    ada: Stored<User>,
}

fn pepper(id: i32) -> Pepper {
    Pepper::new(id, vec![u8::try_from(id).unwrap(); 32].into()).unwrap()
}

fn authenticator(storage: &Watched, peppers: Peppers) -> Authenticator {
    Authenticator::new(Arc::new(storage.clone()), peppers)
}

fn of(texts: &[&str]) -> Permissions {
    texts.iter().map(|text| Permission::parse(text).unwrap()).collect()
}

impl Scene {
    async fn new() -> Self {
        let storage = MemoryStorage::default();
        let tenant = storage.create_tenant(Tenant::new("T", Slug::parse("t").unwrap())).await.unwrap();
        let scope = Scope::system(tenant.id, "test");
        let ada = User {
            email: "ada@example.com".into(),
            name: None,
            github_user_id: None,
            status: UserStatus::Active,
        };
        let ada = storage.insert(&scope, ada).await.unwrap();
        let watched = Watched::new(storage.clone());
        let peppers = || Peppers::new(pepper(1), []).unwrap();
        let (here, elsewhere) = (authenticator(&watched, peppers()), authenticator(&watched, peppers()));
        Self { storage, watched, here, elsewhere, admin: Caller::system(scope), ada }
    }

    fn scope(&self) -> &Scope {
        self.admin.scope()
    }

    fn tenant(&self) -> Id<Tenant> {
        self.scope().tenant()
    }

    async fn give(&self, role: BuiltInRole) -> Stored<UserRole> {
        let query = Query::all().filter(Role::NAME.eq(role.as_str()));
        let role = self.storage.find(self.scope(), query).await.unwrap().unwrap();
        let given = UserRole { user_id: self.ada.id, role_id: role.id, project_id: None };
        self.storage.insert(self.scope(), given).await.unwrap()
    }

    fn new_key(&self) -> NewKey {
        NewKey {
            name: "ci".into(),
            scopes: of(&["runs:read"]),
            user_id: None,
            project_id: None,
            expires_at: None,
        }
    }

    async fn issue(&self, new: NewKey) -> (Stored<ApiKey>, String) {
        let IssuedKey { key, secret } = self.here.create_key(&self.admin, new).await.unwrap();
        (key, text(secret))
    }

    /// A session of the person, and its token.
    async fn sign_in(&self) -> (Id<Identity>, String) {
        let person = self.storage.identify(Identity::new("ada@example.com")).await.unwrap();
        self.storage.link_user(self.scope(), self.ada.id, person.id).await.unwrap();
        let (_, token) =
            self.here.open_session(person.id, Duration::from_secs(60), None, None).await.unwrap();
        (person.id, secret_text(&token.reveal()))
    }
}

fn secret_text(secret: &secrecy::SecretString) -> String {
    secrecy::ExposeSecret::expose_secret(secret).to_owned()
}

fn text(secret: ApiKeySecret) -> String {
    secret_text(&secret.reveal())
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map(drop).unwrap_err().kind()
}

async fn may(authenticator: &Authenticator, key: &str, action: Action) -> Result<()> {
    authenticator.key(key).await?.authorize("test", action, Resource::Run)
}

#[tokio::test]
async fn what_is_no_key_costs_no_query() {
    let scene = Scene::new().await;
    let (_, key) = scene.issue(scene.new_key()).await;
    scene.watched.calls();
    let mistyped = key.replace(&key[20..21], if &key[20..21] == "x" { "y" } else { "x" });
    let bad =
        [mistyped.as_str(), "", "Bearer", &key[1..], &key[..40], "ghp_16C7e42F292c6912E7710c838347Ae178B4a"];
    for bad in bad {
        for refused in [scene.here.key(bad).await, scene.here.bearer(bad, scene.tenant()).await] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
            assert!(bad.len() < 10 || !format!("{refused:?}").contains(&bad[4..]), "{refused}");
        }
        let session = format!("{}{bad}", SessionToken::PREFIX);
        assert_eq!(kind(scene.here.bearer(&session, scene.tenant()).await), ErrorKind::Unauthenticated);
    }
    assert_eq!(scene.watched.calls(), [""; 0]);
}

#[tokio::test]
async fn a_key_costs_one_query_however_many_ask() {
    let scene = Scene::new().await;
    let (stored, key) = scene.issue(scene.new_key()).await;
    scene.watched.calls();
    let many = (0..100).map(|_| scene.here.key(&key));
    for caller in futures_util::future::join_all(many).await {
        assert_eq!(caller.unwrap().scope(), &Scope::of_key(scene.tenant(), stored.id, None));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(scene.watched.calls(), ["find_key", "note_use"], "the use is noted behind the calls, once");
    tokio::time::sleep(STALE).await;
    scene.here.key(&key).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(scene.watched.calls(), ["find_key"], "it was noted a moment ago");
    assert_eq!(kind(scene.here.bearer(&key, Id::new(99)).await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn made_up_keys_are_unknown_and_asked_about_once() {
    let scene = Scene::new().await;
    let made_up = text(ApiKeySecret::generate(&SystemEntropy).unwrap());
    for _ in 0..10 {
        let refused = scene.here.key(&made_up).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    }
    assert_eq!(scene.watched.calls(), ["find_key"]);
    // The prefix of a key that is there, which is no secret.
    let (stored, _) = scene.issue(scene.new_key()).await;
    let other = ApiKeySecret::generate(&Guessing(stored.prefix.as_str().to_owned())).unwrap();
    assert_eq!(other.prefix(), stored.prefix);
    let refused = scene.here.key(&text(other)).await.unwrap_err();
    assert_eq!(refused.message(), scene.here.key(&made_up).await.unwrap_err().message());
    assert_eq!(scene.storage.get(scene.scope(), stored.id).await.unwrap(), stored, "no use was noted");
}

/// Random bytes of which a key begins like another.
struct Guessing(String);

impl Entropy for Guessing {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        const DIGITS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let digits = self.0.chars().map(|digit| DIGITS.find(digit).unwrap());
        for (byte, digit) in bytes.iter_mut().zip(digits.chain(std::iter::repeat(7))) {
            *byte = u8::try_from(digit << 2).unwrap();
        }
        Ok(())
    }
}

/// A right that is lost, in another process than the one that was just asked.
async fn is_noticed(scene: &Scene, key: &str, action: Action, lose: impl AsyncFnOnce()) -> ErrorKind {
    for process in [&scene.here, &scene.elsewhere] {
        may(process, key, action).await.unwrap();
    }
    lose().await;
    let lost = tokio::time::Instant::now();
    let mut kinds = Vec::new();
    for process in [&scene.here, &scene.elsewhere] {
        let refused = loop {
            match may(process, key, action).await {
                Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(refused) => break refused,
            }
        };
        assert!(lost.elapsed() < SOON, "it took {:?}", lost.elapsed());
        kinds.push(refused.kind());
    }
    assert_eq!(kinds[0], kinds[1]);
    kinds[0]
}

#[tokio::test]
async fn a_revoked_key_lets_nobody_in_after_a_second() {
    let scene = Scene::new().await;
    let (stored, key) = scene.issue(scene.new_key()).await;
    let revoke = async || drop(scene.here.revoke_key(&scene.admin, stored.id).await.unwrap());
    assert_eq!(is_noticed(&scene, &key, Action::Read, revoke).await, ErrorKind::Unauthenticated);
    let told = scene.here.key(&key).await.unwrap_err();
    assert!(told.message().contains("revoked"), "{told}");
}

#[tokio::test]
async fn an_expired_key_lets_nobody_in() {
    let scene = Scene::new().await;
    let soon = DateTime::<Utc>::from(std::time::SystemTime::now()) + TimeDelta::milliseconds(300);
    let (_, key) = scene.issue(NewKey { expires_at: Some(soon), ..scene.new_key() }).await;
    let wait = async || tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(is_noticed(&scene, &key, Action::Read, wait).await, ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_persons_key_loses_what_the_person_loses() {
    let scene = Scene::new().await;
    let given = scene.give(BuiltInRole::Dev).await;
    let new =
        NewKey { user_id: Some(scene.ada.id), scopes: of(&["runs:read", "runs:cancel"]), ..scene.new_key() };
    let (stored, key) = scene.issue(new).await;
    let caller = scene.here.key(&key).await.unwrap();
    assert_eq!(caller.scope().user(), Some(scene.ada.id));
    assert_eq!(
        kind(may(&scene.here, &key, Action::Create).await),
        ErrorKind::PermissionDenied,
        "no scope of it"
    );

    let take = async || Store::delete(&scene.storage, scene.scope(), &given).await.unwrap();
    assert_eq!(is_noticed(&scene, &key, Action::Cancel, take).await, ErrorKind::PermissionDenied);
    scene.give(BuiltInRole::Dev).await;
    tokio::time::sleep(STALE).await;
    let disable = async || {
        let disabled = User { status: UserStatus::Disabled, ..scene.ada.value.clone() };
        scene
            .storage
            .update(scene.scope(), &Stored { value: disabled, ..scene.ada.clone() })
            .await
            .map(drop)
            .unwrap();
    };
    assert_eq!(is_noticed(&scene, &key, Action::Cancel, disable).await, ErrorKind::Unauthenticated);
    let told = scene.here.key(&key).await.unwrap_err();
    assert!(told.message().contains("disabled"), "{told} {}", stored.id);
}

#[tokio::test]
async fn a_deleted_tenant_lets_nobody_in() {
    let scene = Scene::new().await;
    scene.give(BuiltInRole::Dev).await;
    let (_, key) = scene.issue(scene.new_key()).await;
    let (_, token) = scene.sign_in().await;
    scene.here.session(&token, scene.tenant()).await.unwrap();
    let delete = async || scene.storage.delete_tenant(scene.tenant()).await.unwrap();
    assert_eq!(is_noticed(&scene, &key, Action::Read, delete).await, ErrorKind::Unauthenticated);
    tokio::time::sleep(STALE).await;
    assert_eq!(kind(scene.here.session(&token, scene.tenant()).await), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_session_is_its_person_in_the_tenant_that_is_asked_for() {
    let scene = Scene::new().await;
    scene.give(BuiltInRole::Dev).await;
    let (person, token) = scene.sign_in().await;
    scene.watched.calls();
    let many = (0..50).map(|_| scene.here.bearer(&token, scene.tenant()));
    for caller in futures_util::future::join_all(many).await {
        let caller = caller.unwrap();
        assert_eq!(caller.scope(), &Scope::authenticated(scene.tenant(), scene.ada.id));
        caller.authorize("test", Action::Cancel, Resource::Run).unwrap();
        assert_eq!(
            kind(caller.authorize("test", Action::Create, Resource::User)),
            ErrorKind::PermissionDenied
        );
    }
    assert_eq!(scene.watched.calls(), ["find_member"]);
    let other = Tenant::new("O", Slug::parse("o").unwrap());
    let other = scene.storage.create_tenant(other).await.unwrap().id;
    let (foreign, missing) = (
        scene.here.session(&token, other).await.unwrap_err(),
        scene.here.session(&token, Id::new(99)).await.unwrap_err(),
    );
    assert_eq!(foreign.kind(), ErrorKind::PermissionDenied);
    assert_eq!(foreign.to_string(), missing.to_string(), "another's tenant looks like one that is not there");
    scene.storage.end_sessions(person).await.unwrap();
    tokio::time::sleep(STALE).await;
    assert_eq!(kind(scene.here.session(&token, scene.tenant()).await), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn an_old_hash_is_renewed_behind_the_call() {
    let scene = Scene::new().await;
    let (stored, key) = scene.issue(scene.new_key()).await;
    let renewing = authenticator(&scene.watched, Peppers::new(pepper(2), [pepper(1)]).unwrap());
    renewing.key(&key).await.unwrap();
    support::until("the hash is renewed", async || {
        scene.storage.get(scene.scope(), stored.id).await.unwrap().hash.pepper_id() == 2
    })
    .await;
    renewing.key(&key).await.unwrap();
    let without = authenticator(&scene.watched, Peppers::new(pepper(3), []).unwrap());
    let told = without.key(&key).await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Missing, "{told}");
}

#[tokio::test]
async fn that_a_use_cannot_be_noted_disturbs_nobody() {
    let scene = Scene::new().await;
    let (_, key) = scene.issue(scene.new_key()).await;
    scene.watched.fail("note_use", Fault::Before);
    scene.here.key(&key).await.unwrap();
    scene.watched.fail("find_key", Fault::Before);
    assert_eq!(kind(scene.elsewhere.key(&key).await), ErrorKind::Unavailable, "nobody can tell who it is");
}

#[tokio::test]
async fn who_makes_a_key_gives_no_more_than_they_have() {
    let scene = Scene::new().await;
    scene.give(BuiltInRole::Dev).await;
    let (_, token) = scene.sign_in().await;
    let ada = scene.here.session(&token, scene.tenant()).await.unwrap();
    let own = NewKey { user_id: Some(scene.ada.id), ..scene.new_key() };
    let IssuedKey { key, .. } = scene.here.create_key(&ada, own.clone()).await.unwrap();
    for beyond in [
        scene.new_key(),
        NewKey { scopes: of(&["runs:read", "users:create"]), ..own.clone() },
        NewKey { user_id: Some(Id::new(99)), ..own.clone() },
    ] {
        assert_eq!(kind(scene.here.create_key(&ada, beyond).await), ErrorKind::PermissionDenied);
    }
    let (tenants, _) = scene.issue(scene.new_key()).await;
    assert_eq!(kind(scene.here.revoke_key(&ada, tenants.id).await), ErrorKind::PermissionDenied);
    assert_eq!(kind(scene.here.revoke_key(&ada, Id::new(99)).await), ErrorKind::NotFound);
    assert!(scene.here.revoke_key(&ada, key.id).await.unwrap().revoked_at.is_some());

    let past = DateTime::<Utc>::UNIX_EPOCH;
    assert_eq!(
        kind(scene.here.create_key(&ada, NewKey { expires_at: Some(past), ..own.clone() }).await),
        ErrorKind::Invalid
    );
    let mut tenant = scene.storage.tenant(scene.tenant()).await.unwrap();
    tenant.value.settings = TenantSettings { max_key_days: Some(30) };
    scene.storage.update_tenant(&tenant).await.unwrap();
    let in_days = |days| Some(SystemClock.now() + TimeDelta::days(days));
    assert_eq!(kind(scene.here.create_key(&ada, own.clone()).await), ErrorKind::Invalid);
    let late = NewKey { expires_at: in_days(31), ..own.clone() };
    assert_eq!(kind(scene.here.create_key(&ada, late).await), ErrorKind::Invalid);
    scene.here.create_key(&ada, NewKey { expires_at: in_days(29), ..own }).await.unwrap();
}

/// The same bytes for the first two keys, then others.
#[derive(Default)]
struct Repeating(AtomicU64);

impl Entropy for Repeating {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let number = self.0.fetch_add(1, Ordering::Relaxed).saturating_sub(1);
        bytes.fill(u8::try_from(number * 4).unwrap());
        Ok(())
    }
}

struct Nothing;

impl Entropy for Nothing {
    fn fill(&self, _: &mut [u8]) -> Result<()> {
        Err(Error::new(ErrorKind::Unavailable, "test", "no random bytes"))
    }
}

#[tokio::test]
async fn a_prefix_that_is_taken_is_made_anew_and_no_entropy_is_an_error() {
    let scene = Scene::new().await;
    let with = |entropy: Arc<dyn Entropy>| {
        let peppers = Peppers::new(pepper(1), []).unwrap();
        Authenticator::with(Arc::new(scene.watched.clone()), peppers, entropy, Arc::new(SystemClock))
    };
    let repeating = with(Arc::new(Repeating::default()));
    let first = repeating.create_key(&scene.admin, scene.new_key()).await.unwrap();
    let second = repeating.create_key(&scene.admin, scene.new_key()).await.unwrap();
    assert_ne!(first.key.prefix, second.key.prefix);
    let without = with(Arc::new(Nothing));
    assert_eq!(kind(without.create_key(&scene.admin, scene.new_key()).await), ErrorKind::Unavailable);
    let opened = without.open_session(Id::new(1), Duration::from_secs(60), None, None).await;
    assert_eq!(kind(opened), ErrorKind::Unavailable);
}

#[tokio::test]
async fn nothing_shows_a_key_or_a_token() {
    let scene = Scene::new().await;
    let issued = scene.here.create_key(&scene.admin, scene.new_key()).await.unwrap();
    let shown = format!("{issued:?} {:?}", scene.here);
    let key = text(issued.secret);
    let caller = scene.here.key(&key).await.unwrap();
    scene.storage.revoke_key(scene.scope(), issued.key.id).await.unwrap();
    let refused = scene.elsewhere.key(&key).await.unwrap_err();
    let shown = format!("{shown} {caller:?} {refused:?} {refused}");
    assert!(!shown.contains(&key[ApiKeySecret::PREFIX.len() + 8..]), "{shown}");
    let token = SessionToken::generate(&SystemEntropy).unwrap();
    let new = NewSession {
        identity_id: Id::new(1),
        token: token.hash(),
        lasts: Duration::from_secs(1),
        ip_address: None,
        user_agent: None,
    };
    let shown = format!("{token:?} {new:?}");
    assert!(!shown.contains(&secret_text(&token.reveal())[SessionToken::PREFIX.len()..]), "{shown}");
}
