//! What goes wrong says what to do, and gives nothing away.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::time::Duration;

use lime_core::identity::{Slug, Tenant, Tenants, User, UserStatus};
use lime_core::planning::{Project, Ticket};
use lime_core::repos::{RepoKind, Repository};
use lime_core::{Error, ErrorKind, Id, Lookup, Query, Scope, Store};
use lime_storage_postgres::sea_orm::{ConnectionTrait, Value};
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

use crate::support::{as_owner, database, open};

const SECRET: &str = "s3cret-p4ssword";

async fn scope(storage: &PgStorage, slug: &str) -> Scope {
    let tenant = Tenant::new("T", Slug::parse(slug).unwrap());
    Scope::system(storage.create_tenant(tenant).await.unwrap().id, "a test")
}

fn gives_nothing_away(error: &Error) {
    assert!(!error.report().contains(SECRET), "{error:?}");
}

#[tokio::test]
async fn constraints_are_told_in_words() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let scope = scope(&storage, "a").await;
    let repository = Repository {
        connector_id: None,
        provider: RepoKind::Local,
        external_repo_id: None,
        owner: "o".into(),
        name: "n".into(),
        full_name: SECRET.into(),
        clone_url: "/r".into(),
        default_branch: "main".into(),
        is_enabled: true,
    };
    storage.insert(&scope, repository.clone()).await.unwrap();
    let again = storage.insert(&scope, repository).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert_eq!(again.message(), "a repository with the same provider, full_name exists");
    gives_nothing_away(&again);

    let ticket = Ticket::new(Id::new(77), Id::new(88), "todo", SECRET);
    let nowhere = storage.insert(&scope, ticket).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Invalid);
    assert!(nowhere.message().contains("board_id") || nowhere.message().contains("project_id"), "{nowhere}");
    gives_nothing_away(&nowhere);

    let user = User {
        email: "a@b".into(),
        name: Some(SECRET.into()),
        github_user_id: None,
        status: UserStatus::Active,
    };
    let user = storage.insert(&scope, user).await.unwrap();
    let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
    let board = lime_core::planning::Board {
        project_id: project.id,
        name: "B".into(),
        workflow: lime_core::planning::Workflow::delivery(),
    };
    let board = storage.insert(&scope, board).await.unwrap();
    let ticket = Ticket { created_by: Some(user.id), ..Ticket::new(project.id, board.id, "todo", "T") };
    storage.insert(&scope, ticket).await.unwrap();
    let used = Store::delete(&storage, &scope, &user).await.unwrap_err();
    assert_eq!(used.kind(), ErrorKind::Conflict);
    assert!(used.message().contains("still used by tickets"), "{used}");
    gives_nothing_away(&used);
}

/// The server's answer to a statement, through a row type of our own that calls a function.
async fn answer(storage: &PgStorage, function: &str) -> Error {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {function}; END $$;
         DROP TRIGGER IF EXISTS answer ON projects;
         CREATE TRIGGER answer BEFORE INSERT ON projects FOR EACH ROW EXECUTE FUNCTION answer();"
    );
    as_owner(storage, &sql).await;
    let scope = Scope::system(Id::new(1), "a test");
    storage.insert(&scope, Project::new("P", "P")).await.unwrap_err()
}

#[tokio::test]
async fn kinds_follow_the_state_that_the_server_gives() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    for (state, kind, again) in [
        ("23514", ErrorKind::Invalid, false),
        ("22001", ErrorKind::Invalid, false),
        ("22P05", ErrorKind::Invalid, false),
        ("23502", ErrorKind::Invalid, false),
        ("54000", ErrorKind::Invalid, false),
        ("40001", ErrorKind::Conflict, true),
        ("40P01", ErrorKind::Conflict, true),
        ("57014", ErrorKind::Timeout, true),
        ("57P01", ErrorKind::Unavailable, true),
        ("53300", ErrorKind::Unavailable, true),
        ("42P01", ErrorKind::Missing, false),
        ("42501", ErrorKind::PermissionDenied, false),
        ("XX000", ErrorKind::Unexpected, false),
    ] {
        let raise = format!("RAISE EXCEPTION 'no' USING ERRCODE = '{state}', DETAIL = '{SECRET}'");
        let error = answer(&storage, &raise).await;
        assert_eq!((error.kind(), error.is_retryable()), (kind, again), "{state}: {error}");
        assert!(error.to_string().contains(state), "{error}");
        gives_nothing_away(&error);
    }
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_stopped() {
    let Some(fresh) = database().await else { return };
    let options =
        PoolOptions { statement_timeout: Some(Duration::from_millis(50)), ..PoolOptions::default() };
    let storage = PgStorage::connect(fresh.url(), &options).await.unwrap();
    let slow = answer(&storage, "PERFORM pg_sleep(5); RETURN NEW").await;
    assert_eq!((slow.kind(), slow.is_retryable()), (ErrorKind::Timeout, true));
}

#[tokio::test]
async fn a_database_without_tables_says_so() {
    let Some(fresh) = lime_conformance::or_skip(TestDatabase::empty().await) else { return };
    let storage = open(&fresh).await;
    let scope = Scope::system(Id::new(1), "a test");
    let error = storage.list(&scope, &Query::<Project>::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing);
    assert!(error.message().contains("migrate"), "{error}");
}

#[tokio::test]
async fn a_connection_that_fails_does_not_show_its_password() {
    let nobody = format!("postgres://someone:{SECRET}@127.0.0.1:1/none");
    let impatient = PoolOptions { acquire_timeout: Duration::from_millis(300), ..PoolOptions::default() };
    let error = PgStorage::connect(&nobody, &impatient).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    gives_nothing_away(&error);
    for bad in [
        format!("not a url {SECRET}"),
        format!("mysql://{SECRET}@localhost/x"),
        format!("postgres://a:{SECRET}@h:port/x"),
    ] {
        let error = PgStorage::connect(&bad, &PoolOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        gives_nothing_away(&error);
    }
    let Some(fresh) = database().await else { return };
    let missing = format!("{}_gone", fresh.url());
    let error = PgStorage::connect(&missing, &PoolOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Missing, "{error}");
}

#[tokio::test]
async fn a_row_from_another_version_is_corrupt_and_not_a_panic() {
    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    let scope = scope(&storage, "a").await;
    let project = storage.insert(&scope, Project::new("P", "P")).await.unwrap();
    let broken: Value = serde_json::json!({ "maxTurns": SECRET }).into();
    let sql = lime_storage_postgres::sea_orm::Statement::from_sql_and_values(
        lime_storage_postgres::sea_orm::DbBackend::Postgres,
        "UPDATE projects SET config = $1",
        [broken],
    );
    storage.connection().execute_raw(sql).await.unwrap();
    let error = Lookup::get(&storage, &scope, project.id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.message().contains("config"), "{error}");
    gives_nothing_away(&error);
}
