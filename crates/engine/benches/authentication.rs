//! How long it takes to let a caller in whose key was looked up a moment ago, and to ask whether they may: the part of
//! a request that every request has.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement panics where something is wrong, and tells"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lime_core::identity::{
    Action, BuiltInRole, Caller, Pepper, Peppers, Resource, Role, Slug, Tenant, Tenants, User, UserRole,
    UserStatus,
};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::{LookupExt, Query, Scope, Store};
use lime_engine::{Authenticator, IssuedKey, NewKey};
use secrecy::ExposeSecret;

/// What it may take.
const TARGET: Duration = Duration::from_micros(5);
const ROUNDS: usize = 21;
const CALLS: u32 = 20_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let storage = Arc::new(MemoryStorage::default());
    let tenant = storage.create_tenant(Tenant::new("T", Slug::parse("t").unwrap())).await.unwrap();
    let scope = Scope::system(tenant.id, "a measurement");
    let ada = User {
        email: "ada@example.com".into(),
        name: None,
        github_user_id: None,
        status: UserStatus::Active,
    };
    let ada = storage.insert(&scope, ada).await.unwrap();
    let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
    let admin = Query::all().filter(Role::NAME.eq(BuiltInRole::Admin.as_str()));
    let admin = storage.find(&scope, admin).await.unwrap().unwrap();
    let given = UserRole { user_id: ada.id, role_id: admin.id, project_id: None };
    storage.insert(&scope, given).await.unwrap();
    let peppers = Peppers::new(Pepper::new(1, vec![7; 32].into()).unwrap(), []).unwrap();
    let authenticator = Authenticator::new(storage, peppers);
    let new = NewKey {
        name: "bench".into(),
        scopes: BuiltInRole::Admin.permissions(),
        user_id: Some(ada.id),
        project_id: None,
        expires_at: None,
    };
    let IssuedKey { secret, .. } = authenticator.create_key(&Caller::system(scope), new).await.unwrap();
    let key = secret.reveal();

    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..CALLS {
            let caller = authenticator.key(black_box(key.expose_secret())).await.unwrap();
            caller.authorize("bench", Action::Cancel, Resource::Run.within(project.id)).unwrap();
            black_box(caller);
        }
        rounds.push(begun.elapsed() / CALLS);
    }
    rounds.sort_unstable();
    let median = rounds[ROUNDS / 2];
    println!(
        "authentication and authorization: {median:?} a request ({:?} to {:?})",
        rounds[0],
        rounds[ROUNDS - 1]
    );
    assert!(cfg!(debug_assertions) || median < TARGET, "more than {TARGET:?}");
}
