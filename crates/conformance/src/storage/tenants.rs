//! Tenants: what is changed of them, how they go, and the roles that each has from its beginning.

#![allow(missing_docs, reason = "each name says the whole of it")]

use lime_core::governance::TimeZone;
use lime_core::identity::{
    ApiKey, BuiltInRole, Identity, Permission, Permissions, Role, Slug, Tenant, TenantSettings, User,
    UserRole,
};
use lime_core::runs::{AgentMode, AgentRun, Outcome, RunStatus};
use lime_core::{Entity, ErrorKind, Id, Lookup, LookupExt, Query, Scope, Store, Stored};

use super::entities::round_trip;
use crate::scene::{LONG, PROVIDER, Scene, Subject, claim, settlement, take_when_there, worker};

async fn tenant(storage: &Subject, scene: &Scene) -> Stored<Tenant> {
    storage.tenant(scene.scope.tenant()).await.unwrap()
}

async fn roles(storage: &Subject, scope: &Scope) -> Vec<Stored<Role>> {
    (**storage).all(scope, Query::<Role>::all()).await.unwrap()
}

/// `Tenants::update_tenant`: the whole value, compare-and-set.
pub async fn a_tenant_is_updated(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let before = tenant(&storage, &scene).await;
    let value = Tenant {
        name: "Another name".into(),
        slug: Slug::parse(format!("{}-new", before.slug.as_str())).unwrap(),
        max_concurrent_runs: Some(3),
        time_zone: TimeZone::parse("Pacific/Apia").unwrap(),
        logo_url: Some("https://example.com/logo.svg".into()),
        settings: TenantSettings { max_key_days: Some(90) },
    };
    let changed = storage.update_tenant(&Stored { value: value.clone(), ..before.clone() }).await.unwrap();
    assert_eq!((&changed.value, changed.version), (&value, before.version + 1));
    assert_eq!(tenant(&storage, &scene).await, changed);
    assert_eq!(storage.tenant_by_slug(&before.slug).await.unwrap(), None);

    let stale = storage.update_tenant(&before).await.unwrap_err();
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let taken = Tenant { slug: tenant(&storage, &other).await.value.slug, ..value.clone() };
    let taken = storage.update_tenant(&Stored { value: taken, ..changed.clone() }).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    for bad in [
        Tenant { name: " ".into(), ..value.clone() },
        Tenant { logo_url: Some(String::new()), ..value.clone() },
        Tenant { settings: TenantSettings { max_key_days: Some(0) }, ..value.clone() },
    ] {
        let error = storage.update_tenant(&Stored { value: bad, ..changed.clone() }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let missing = Stored { id: Id::new(i64::MAX), ..changed.clone() };
    assert_eq!(storage.update_tenant(&missing).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(tenant(&storage, &scene).await, changed);
}

/// `Tenants::delete_tenant`: gone for whoever looks, and its slug is not given out again.
pub async fn a_deleted_tenant_is_gone(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let before = tenant(&storage, &scene).await;
    for _ in 0..2 {
        storage.delete_tenant(before.id).await.unwrap();
    }
    let missing = storage.delete_tenant(Id::new(i64::MAX)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(storage.tenant_by_slug(&before.slug).await.unwrap(), None);
    for error in [
        storage.tenant(before.id).await.unwrap_err(),
        storage.update_tenant(&before).await.unwrap_err(),
        storage.limit_runs(before.id, None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let again = storage.create_tenant(before.value).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    let kept: Stored<_> = Lookup::get(&*storage, &scene.scope, scene.project.id).await.unwrap();
    assert_eq!(kept, scene.project, "what belongs to it stays");
}

/// `Tenants::delete_tenant`: new runs are refused, those that wait are neither taken nor counted, those at work end.
pub async fn the_runs_of_a_deleted_tenant_are_left_alone(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let working = scene.running(&storage).await;
    scene.queued(&storage).await;
    let taken = take_when_there(&storage, 1, LONG).await;
    scene.queued(&storage).await;
    let theirs = other.queued(&storage).await;
    storage.delete_tenant(scene.scope.tenant()).await.unwrap();
    for refused in [
        storage.submit(&scene.scope, scene.a_run()).await.unwrap_err(),
        storage.submit_all(&scene.scope, vec![scene.a_run(); 2]).await.unwrap_err(),
        storage
            .submit(&scene.scope, AgentRun { unique_key: Some("key".into()), ..scene.a_run() })
            .await
            .unwrap_err(),
    ] {
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
        assert!(refused.message().contains("deleted"), "{refused}");
    }
    let depth = storage.depth().await.unwrap();
    assert_eq!(depth.ready + depth.leased, 2, "one is at work, and one is another tenant's");
    let begun = storage.start(&worker(), &taken, LONG).await.unwrap();
    assert!(begun.is_empty(), "it was taken before, and not begun");
    let next = claim(&storage, theirs.id, LONG).await;
    assert_eq!(next.run.id, theirs.id);
    assert!(storage.claim(&worker(), 10, LONG).await.unwrap().is_empty());
    let ended = storage.settle(&working.lease, settlement(Outcome::Cancelled)).await.unwrap();
    assert_eq!(ended.status, RunStatus::Cancelled);
}

/// One of many submissions that come together is refused, and the others are not.
pub async fn a_deleted_tenant_disturbs_no_other(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    storage.delete_tenant(scene.scope.tenant()).await.unwrap();
    let submit = |scene: &Scene| {
        let (storage, scope, run) = (storage.clone(), scene.scope.clone(), scene.a_run());
        tokio::spawn(async move { storage.submit(&scope, run).await })
    };
    let both: Vec<_> = (0..8).flat_map(|_| [submit(&scene), submit(&other)]).collect();
    for (at, submitted) in both.into_iter().enumerate() {
        assert_eq!(submitted.await.unwrap().is_ok(), at % 2 == 1);
    }
}

/// `Tenants::create_tenant`, `seed_roles`: the built-in roles are there, and seeding again changes nothing.
pub async fn a_tenant_has_the_built_in_roles(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let seeded = roles(&storage, &scene.scope).await;
    let expected: Vec<_> = BuiltInRole::ALL.iter().map(|role| Role::built_in(*role)).collect();
    assert_eq!(seeded.iter().map(|role| role.value.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(storage.seed_roles().await.unwrap(), 0);
    assert_eq!(roles(&storage, &scene.scope).await, seeded);
}

/// `Tenants::seed_roles`: what is missing comes back, in every tenant; the tenants' own roles stay as they are.
pub async fn seeding_leaves_a_tenants_own_roles_alone(storage: Subject) {
    let (scene, other) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let read: Permissions = [Permission::parse("runs:read").unwrap()].into_iter().collect();
    let own = storage.insert(&scene.scope, Role::new("Reader", read)).await.unwrap();
    for scope in [&scene.scope, &other.scope] {
        let qa = Query::all().filter(Role::NAME.eq(BuiltInRole::Qa.as_str()));
        let qa = (*storage).find(scope, qa).await.unwrap().unwrap();
        Store::delete(&*storage, scope, &qa).await.unwrap();
    }
    assert_eq!(storage.seed_roles().await.unwrap(), 2);
    assert_eq!(roles(&storage, &scene.scope).await.len(), 5);
    assert_eq!(roles(&storage, &other.scope).await.len(), 4);
    assert_eq!(Lookup::get(&*storage, &scene.scope, own.id).await.unwrap(), own);
}

pub async fn a_role_comes_back_as_it_was(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let all: Permissions = Permission::all().collect();
    let roles = [Role::new("Everything", all.clone()), Role::new("Nothing", Permissions::default())];
    round_trip(&storage, &scene.scope, roles).await;
    for bad in [
        Role::new("admin", all.clone()),
        Role::new(" QA", all.clone()),
        Role::new("", all.clone()),
        Role { permissions: all, ..Role::built_in(BuiltInRole::Dev) },
    ] {
        assert_eq!(storage.insert(&scene.scope, bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let twice = storage.insert(&scene.scope, Role::new("Nothing", Permissions::default())).await;
    assert_eq!(twice.unwrap_err().kind(), ErrorKind::AlreadyExists);
}

/// An assignment is there once, with and without a project; it goes with the person and holds its role.
pub async fn a_role_is_assigned_once(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let ada = scene.person(&storage, "ada@example.com").await;
    let role = roles(&storage, &scene.scope).await.remove(0);
    let everywhere = UserRole { user_id: ada.id, role_id: role.id, project_id: None };
    let here = UserRole { project_id: Some(scene.project.id), ..everywhere.clone() };
    round_trip(&storage, &scene.scope, [everywhere.clone(), here.clone()]).await;
    for again in [everywhere, here.clone()] {
        let error = storage.insert(&scene.scope, again).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
    let foreign = Scene::new(&storage).await;
    let theirs = roles(&storage, &foreign.scope).await.remove(0).id;
    let stranger = foreign.person(&storage, "eve@example.com").await.id;
    for bad in [
        UserRole { role_id: theirs, ..here.clone() },
        UserRole { user_id: stranger, ..here.clone() },
        UserRole { project_id: Some(foreign.project.id), ..here },
    ] {
        assert_eq!(storage.insert(&scene.scope, bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    let held = Store::delete(&*storage, &scene.scope, &role).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict);
    Store::delete(&*storage, &scene.scope, &ada).await.unwrap();
    assert_eq!((*storage).all(&scene.scope, Query::<UserRole>::all()).await.unwrap(), []);
    Store::delete(&*storage, &scene.scope, &role).await.unwrap();
}

/// `Queue::submit`: who starts a run is written down by the store, whatever the request says, and is held by it.
pub async fn a_run_knows_who_started_it(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let tenant = scene.scope.tenant();
    let ada = scene.person(&storage, "ada@example.com").await;
    let key = super::api_keys::key(&storage, &scene, 1, |key| ApiKey { user_id: Some(ada.id), ..key }).await;
    let by_agent = Scope::of_agent(tenant, Id::new(1), Some(ada.id), Some(key.id));
    for (scope, created_by, created_by_key) in [
        (scene.scope.clone(), None, None),
        (Scope::authenticated(tenant, ada.id), Some(ada.id), None),
        (Scope::of_key(tenant, key.id, Some(ada.id)), Some(ada.id), Some(key.id)),
        (Scope::of_key(tenant, key.id, None), None, Some(key.id)),
        (by_agent, Some(ada.id), Some(key.id)),
    ] {
        let forged = AgentRun { created_by: Some(Id::new(99)), ..scene.a_run() };
        let run = storage.submit(&scope, forged).await.unwrap();
        assert_eq!((run.created_by, run.created_by_key), (created_by, created_by_key), "{scope:?}");
        assert_eq!(scene.run(&storage, run.id).await, run);
    }
    let nobody = Scope::authenticated(tenant, Id::new(i64::MAX));
    let run = AgentRun::new(scene.project.id, PROVIDER, AgentMode::Plan, "do it");
    assert_eq!(storage.submit(&nobody, run).await.unwrap_err().kind(), ErrorKind::Invalid);
    let held = Store::delete(&*storage, &scene.scope, &ada).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Conflict, "{} is who started a run", User::NAME);
    let theirs = Query::<AgentRun>::all().filter(AgentRun::CREATED_BY.eq(Some(ada.id)));
    assert_eq!((*storage).all(&scene.scope, theirs).await.unwrap().len(), 3);
}

/// `Identities::memberships`: those in tenants that were deleted are not among them.
pub async fn nobody_is_a_member_of_a_deleted_tenant(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let email = format!("{}@example.com", scene.scope.tenant());
    let person = storage.identify(Identity::new(format!("gone-{email}"))).await.unwrap();
    let user = scene.person(&storage, &email).await;
    storage.link_user(&scene.scope, user.id, person.id).await.unwrap();
    assert_eq!(storage.memberships(person.id).await.unwrap().len(), 1);
    storage.delete_tenant(scene.scope.tenant()).await.unwrap();
    assert_eq!(storage.memberships(person.id).await.unwrap(), []);
}
