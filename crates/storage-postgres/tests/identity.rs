//! Roles and keys as rows: what a new version finds, and what it leaves.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use lime_core::identity::{
    ApiKey, ApiKeySecret, BuiltInRole, Pepper, Peppers, Permission, Permissions, Role, Tenants,
};
use lime_core::ports::{ApiKeys, Entropy};
use lime_core::{ErrorKind, Id, LookupExt, Query, Scope, Store};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{Migrator, PgStorage, TestDatabase};
use sea_orm_migration::MigratorTrait;

use crate::support::{as_owner, database, open, scene, statement, texts};

/// Bytes that are all the same.
struct Same(u8);

impl Entropy for Same {
    fn fill(&self, bytes: &mut [u8]) -> lime_core::Result<()> {
        bytes.fill(self.0);
        Ok(())
    }
}

async fn run(storage: &PgStorage, sql: &str) {
    storage.connection().execute_raw(statement(sql)).await.unwrap();
}

async fn roles(storage: &PgStorage, scope: &Scope) -> Vec<Role> {
    let roles = storage.all(scope, Query::<Role>::all()).await.unwrap();
    roles.into_iter().map(|role| role.value).collect()
}

#[tokio::test]
async fn a_tenant_of_an_older_version_gets_its_roles() {
    let Some(fresh) = lime_conformance::or_skip(TestDatabase::empty().await) else { return };
    let storage = open(&fresh).await;
    storage.owner(async |owner| Migrator::up(owner, Some(7)).await).await.unwrap();
    as_owner(&storage, "INSERT INTO tenants (name, slug) VALUES ('Old', 'old')").await;
    storage.migrate().await.unwrap();
    let scope = Scope::system(Id::new(1), "a test");
    let built_in: Vec<_> = BuiltInRole::ALL.iter().map(|role| Role::built_in(*role)).collect();
    assert_eq!(roles(&storage, &scope).await, built_in);
    assert_eq!(storage.tenant(scope.tenant()).await.unwrap().settings, Default::default());
}

#[tokio::test]
async fn a_new_version_brings_the_built_in_roles_up_to_date() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, _) = scene(&storage).await;
    let own = Role::new("Reader", [Permission::parse("runs:read").unwrap()].into_iter().collect());
    storage.insert(&scope, own.clone()).await.unwrap();
    // As another version wrote them: with a permission that went, and without one that came.
    let written =
        r#"UPDATE roles SET permissions_json = '["runs:read", "sagas:fly"]' WHERE name IN ('dev', 'Reader')"#;
    run(&storage, written).await;
    let dev = Query::all().filter(Role::NAME.eq("dev"));
    let before = storage.find(&scope, dev.clone()).await.unwrap().unwrap();
    assert_eq!(
        before.permissions, own.permissions,
        "what nobody knows allows nothing, and the rest goes on working"
    );

    storage.migrate().await.unwrap();
    let after = storage.find(&scope, dev).await.unwrap().unwrap();
    assert_eq!(after.value, Role::built_in(BuiltInRole::Dev));
    assert_eq!((after.id, after.version), (before.id, before.version + 1));
    let kept = "SELECT permissions_json::text FROM roles WHERE name = 'Reader'";
    assert_eq!(texts(storage.connection(), kept).await, [r#"["runs:read", "sagas:fly"]"#]);
    assert_eq!(storage.seed_roles().await.unwrap(), 0);
}

#[tokio::test]
async fn no_row_has_the_text_of_a_key() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let (scope, _) = scene(&storage).await;
    let secret = ApiKeySecret::generate(&Same(4)).unwrap();
    let peppers = Peppers::new(Pepper::new(1, vec![7; 32].into()).unwrap(), []).unwrap();
    let scopes: Permissions = Permission::all().collect();
    let key = storage.create_key(&scope, ApiKey::new("ci", scopes, &secret, &peppers)).await.unwrap();
    let row = "SELECT row_to_json(k)::text || k.status FROM api_keys AS k";
    let row = texts(storage.connection(), row).await.pop().unwrap();
    assert!(row.contains("11111111") && !row.contains("111111111"), "the prefix and no more: {row}");
    assert!(row.ends_with('1'), "active");
    storage.revoke_key(&scope, key.id).await.unwrap();
    assert_eq!(texts(storage.connection(), "SELECT status::text FROM api_keys").await, ["0"]);
    let unlike = "UPDATE api_keys SET status = 1";
    assert!(storage.connection().execute_raw(statement(unlike)).await.is_err(), "it follows from revoked_at");
    let again = storage.create_key(&scope, key.value).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert!(again.to_string().contains("prefix") && !again.to_string().contains("1111"), "{again}");
}
