//! People over all tenants, and their login sessions.

#![allow(missing_docs, reason = "each name says the whole of it")]

use std::time::Duration;

use lime_core::identity::{
    Identity, LoginSession, NewSession, Role, SessionRefused, SessionToken, TokenHash, User, UserRole,
    UserStatus,
};
use lime_core::{ErrorKind, Id, LookupExt, Query, Scope, Store, Stored};

use crate::scene::{Scene, Subject};

const HOUR: Duration = Duration::from_secs(3_600);

/// An address that nobody else has.
fn email(scene: &Scene, name: &str) -> String {
    format!("{name}.{}.{}@Example.com", std::process::id(), scene.scope.tenant())
}

async fn person(storage: &Subject, scene: &Scene, name: &str) -> Stored<Identity> {
    storage.identify(Identity::new(email(scene, name))).await.unwrap()
}

/// The hash of a token that nobody else has: of this person, with this number.
fn token(person: &Stored<Identity>, number: u8) -> TokenHash {
    let id = u64::try_from(person.id.raw()).unwrap() ^ (u64::from(std::process::id()) << 32);
    let nanos = person.created_at.timestamp_micros().unsigned_abs();
    let text = format!("{}{id:016x}{nanos:016x}{:030x}{number:02x}", SessionToken::PREFIX, 0);
    SessionToken::parse(&text).unwrap().hash()
}

fn a_session(person: &Stored<Identity>, number: u8) -> NewSession {
    NewSession {
        identity_id: person.id,
        token: token(person, number),
        lasts: HOUR,
        ip_address: None,
        user_agent: None,
    }
}

/// `Identities::identify`: one person for one address, whatever its case; verified once it was.
pub async fn an_address_is_one_person(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = Identity {
        name: Some("Ada".into()),
        avatar_url: Some("https://example.com/ada.png".into()),
        ..Identity::new(email(&scene, "ada"))
    };
    let made = storage.identify(ada.clone()).await.unwrap();
    assert_eq!((&made.value, made.version), (&ada, 1));
    let other = Identity { email: ada.email.to_uppercase(), name: Some("Eve".into()), ..ada.clone() };
    assert_eq!(storage.identify(other).await.unwrap(), made);
    let verified = storage.identify(Identity { email_verified: true, ..ada.clone() }).await.unwrap();
    assert_eq!((verified.id, &verified.value), (made.id, &Identity { email_verified: true, ..ada.clone() }));
    assert_eq!(storage.identify(ada.clone()).await.unwrap(), verified, "it stays verified");
    for bad in
        [Identity::new("nobody"), Identity::new("a\0@b"), Identity { name: Some("n".repeat(2_001)), ..ada }]
    {
        assert_eq!(storage.identify(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// `Identities::link_user`, `memberships`: a person is one user of a tenant, and a user is one person.
pub async fn a_person_is_a_user_of_each_of_their_tenants(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let (ada, eve) = (person(&storage, &scene, "ada").await, person(&storage, &scene, "eve").await);
    let mut users = Vec::new();
    for scene in [&scene, &other] {
        let user = scene.person(&storage, "ada@example.com").await;
        for _ in 0..2 {
            storage.link_user(&scene.scope, user.id, ada.id).await.unwrap();
        }
        users.push(user.id);
    }
    let found = storage.memberships(ada.id).await.unwrap();
    let of: Vec<_> = found.iter().map(|it| (it.tenant.id, it.user.id)).collect();
    assert_eq!(of, [(scene.scope.tenant(), users[0]), (other.scope.tenant(), users[1])]);
    assert_eq!(found[0].user.email, "ada@example.com");
    assert_eq!(storage.memberships(eve.id).await.unwrap(), []);

    let second = scene.person(&storage, "second@example.com").await.id;
    for (scope, user, person, kind) in [
        (&scene.scope, users[0], eve.id, ErrorKind::Conflict),
        (&scene.scope, second, ada.id, ErrorKind::AlreadyExists),
        (&scene.scope, second, Id::new(i64::MAX), ErrorKind::Invalid),
        (&scene.scope, users[1], eve.id, ErrorKind::NotFound),
        (&other.scope, second, eve.id, ErrorKind::NotFound),
        (&scene.scope, Id::new(i64::MAX), eve.id, ErrorKind::NotFound),
    ] {
        let error = storage.link_user(scope, user, person).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let user: Stored<User> = found.into_iter().next().unwrap().user;
    Store::delete(&*storage, &scene.scope, &user).await.unwrap();
    assert_eq!(storage.memberships(ada.id).await.unwrap().len(), 1);
    storage.link_user(&scene.scope, second, ada.id).await.unwrap();
}

/// `Identities::open_session`, `find_session`: it comes back as it was, by its token only.
pub async fn a_session_is_found_by_its_token(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = person(&storage, &scene, "ada").await;
    let full = NewSession {
        ip_address: Some("2001:db8::1".parse().unwrap()),
        user_agent: Some("a\0".repeat(600)),
        ..a_session(&ada, 1)
    };
    let opened = storage.open_session(full.clone()).await.unwrap();
    let expected = LoginSession {
        identity_id: ada.id,
        expires_at: opened.expires_at,
        ip_address: full.ip_address,
        user_agent: Some("a".repeat(500)),
    };
    assert_eq!((&opened.value, opened.version), (&expected, 1));
    let lasts = (opened.expires_at - opened.created_at).num_seconds();
    assert!((3_599..=3_601).contains(&lasts), "{lasts}");
    assert_eq!(storage.find_session(&full.token).await.unwrap(), Some(opened));
    assert_eq!(storage.find_session(&token(&ada, 2)).await.unwrap(), None);
    let empty = storage.open_session(a_session(&ada, 3)).await.unwrap();
    assert_eq!((empty.ip_address, &empty.user_agent), (None, &None));

    let nobody = NewSession { identity_id: Id::new(i64::MAX), ..a_session(&ada, 4) };
    let short = NewSession { lasts: Duration::from_millis(999), ..a_session(&ada, 4) };
    let long = NewSession { lasts: LoginSession::MAX_LENGTH + Duration::from_secs(1), ..a_session(&ada, 4) };
    for bad in [nobody, short, long] {
        assert_eq!(storage.open_session(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

/// `Identities::find_member`: who the person is in the tenant, and what their roles permit; nobody in another tenant.
pub async fn a_session_lets_into_the_tenants_of_its_person(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let tenant = scene.scope.tenant();
    let ada = person(&storage, &scene, "ada").await;
    let user = scene.person(&storage, "ada@example.com").await;
    storage.link_user(&scene.scope, user.id, ada.id).await.unwrap();
    let role = (*storage).all(&scene.scope, Query::<Role>::all()).await.unwrap().remove(0);
    let given = UserRole { user_id: user.id, role_id: role.id, project_id: None };
    storage.insert(&scene.scope, given).await.unwrap();
    let session = storage.open_session(a_session(&ada, 1)).await.unwrap();
    let hash = token(&ada, 1);
    let found = storage.find_member(&hash, tenant).await.unwrap().unwrap();
    assert_eq!(found.session, session);
    let member = found.member.as_ref().unwrap();
    assert_eq!((member.user.id, member.grants.len()), (user.id, 1));
    assert_eq!(member.grants[0].permissions, role.permissions);
    assert_eq!(found.caller(tenant).unwrap().scope(), &Scope::authenticated(tenant, user.id));

    for stranger in [other.scope.tenant(), Id::new(i64::MAX)] {
        let found = storage.find_member(&hash, stranger).await.unwrap().unwrap();
        assert_eq!(found.caller(stranger).unwrap_err(), SessionRefused::NotAMember);
    }
    let mut disabled = member.user.clone();
    disabled.value.status = UserStatus::Disabled;
    storage.update(&scene.scope, &disabled).await.unwrap();
    let found = storage.find_member(&hash, tenant).await.unwrap().unwrap();
    assert_eq!(found.caller(tenant).unwrap_err(), SessionRefused::Disabled);
    storage.delete_tenant(tenant).await.unwrap();
    assert_eq!(storage.find_member(&hash, tenant).await.unwrap().unwrap().member, None);
    assert_eq!(storage.find_member(&token(&ada, 2), tenant).await.unwrap(), None);
}

/// `Identities::extend_session`: it counts from now on; one that has ended cannot be extended, and is not found.
pub async fn a_session_ends_at_its_time(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = person(&storage, &scene, "ada").await;
    let brief = NewSession { lasts: Duration::from_secs(1), ..a_session(&ada, 1) };
    let opened = storage.open_session(brief.clone()).await.unwrap();
    storage.open_session(NewSession { token: token(&ada, 2), ..brief }).await.unwrap();
    let extended = storage.extend_session(&token(&ada, 1), 2 * HOUR).await.unwrap();
    assert_eq!((extended.id, extended.version), (opened.id, 2));
    assert!(extended.expires_at > opened.expires_at + HOUR);
    let bad = storage.extend_session(&token(&ada, 1), 10_000 * HOUR).await.unwrap_err();
    assert_eq!(bad.kind(), ErrorKind::Invalid);

    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(storage.find_session(&token(&ada, 1)).await.unwrap(), Some(extended));
    assert_eq!(storage.find_session(&token(&ada, 2)).await.unwrap(), None);
    assert_eq!(storage.find_member(&token(&ada, 2), scene.scope.tenant()).await.unwrap(), None);
    let late = storage.extend_session(&token(&ada, 2), HOUR).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
    assert_eq!(storage.end_sessions(ada.id).await.unwrap(), 1, "what had ended by itself is not counted");
}

/// `Identities::end_session`, `end_sessions`: those that are meant, at once, and no others.
pub async fn sessions_are_ended(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let (ada, eve) = (person(&storage, &scene, "ada").await, person(&storage, &scene, "eve").await);
    for number in 1..=3 {
        storage.open_session(a_session(&ada, number)).await.unwrap();
    }
    storage.open_session(a_session(&eve, 9)).await.unwrap();
    for _ in 0..2 {
        storage.end_session(&token(&ada, 1)).await.unwrap();
    }
    let is_open = async |hash| storage.find_session(&hash).await.unwrap().is_some();
    assert!(!is_open(token(&ada, 1)).await);
    assert!(is_open(token(&ada, 2)).await);
    assert_eq!(storage.end_sessions(ada.id).await.unwrap(), 2);
    assert_eq!(storage.end_sessions(ada.id).await.unwrap(), 0);
    assert!(!is_open(token(&ada, 2)).await && !is_open(token(&ada, 3)).await);
    assert!(is_open(token(&eve, 9)).await);
    let late = storage.extend_session(&token(&ada, 2), HOUR).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound);
}
