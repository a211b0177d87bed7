//! That no tenant sees another's rows, whatever a statement asks.

#![allow(clippy::unwrap_used, reason = "a test panics where things are not as it says")]

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use lime_core::identity::{User, UserStatus};
use lime_core::planning::Project;
use lime_core::ports::Queue;
use lime_core::runs::{AgentRun, Outcome};
use lime_core::{ErrorKind, Id, Lookup, Query, Scope, Store, Stored};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

use crate::support::{
    LONG, as_owner, claim, log, open, options, scene, settlement, submit, texts, texts_of_owner,
};

/// The tables that belong to no tenant: who works for one sees nothing of them.
const OF_NOBODY: &[&str] = &["identities", "login_sessions", "seaql_migrations"];

const TABLES: &str = "SELECT relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1";

async fn every_table_is_isolated(storage: &PgStorage) {
    let open = "SELECT relname::text FROM pg_class AS it
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
          AND NOT (relrowsecurity AND relforcerowsecurity AND ARRAY['of_all', 'of_tenant'] = ARRAY(
              SELECT polname::text FROM pg_policy WHERE polrelid = it.oid AND polpermissive AND polcmd = '*' ORDER BY 1))
        ORDER BY 1";
    assert_eq!(texts_of_owner(storage, open).await, OF_NOBODY);
    let of_system = "SELECT relname::text FROM pg_class AS it
        WHERE relnamespace = 'public'::regnamespace AND relrowsecurity AND relforcerowsecurity
          AND 'of_all' = ALL (SELECT polname::text FROM pg_policy WHERE polrelid = it.oid) ORDER BY 1";
    assert_eq!(texts_of_owner(storage, of_system).await, ["identities", "login_sessions"]);
    let reached = "SELECT DISTINCT table_name::text FROM information_schema.role_table_grants
        WHERE grantee = 'lime_app' AND table_name = ANY ('{identities, login_sessions}')";
    assert_eq!(texts_of_owner(storage, reached).await, [""; 0]);
    let rule = "SELECT DISTINCT pg_get_expr(polqual, polrelid) FROM pg_policy
        WHERE polname = 'of_tenant' AND polrelid <> 'tenants'::regclass";
    assert_eq!(
        texts_of_owner(storage, rule).await,
        ["(tenant_id = (NULLIF(current_setting('lime.tenant'::text, true), ''::text))::bigint)"]
    );
    let whom = "SELECT DISTINCT polname || ' ' || polroles::regrole[]::text FROM pg_policy ORDER BY 1";
    assert_eq!(texts_of_owner(storage, whom).await, ["of_all {lime_system}", "of_tenant {lime_app}"]);
    let owned = "SELECT relname::text FROM pg_class WHERE relowner::regrole::text LIKE 'lime%'";
    assert_eq!(texts_of_owner(storage, owned).await, [""; 0]);
    let powers = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'lime\\_%'
        AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin)";
    assert_eq!(texts_of_owner(storage, powers).await, [""; 0]);
    let definers = "SELECT proname::text FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace ORDER BY 1";
    let months = ["agent_events_add_month", "agent_events_drop_month"];
    assert_eq!(texts_of_owner(storage, definers).await, months);
    assert_eq!(texts(storage.connection(), "SELECT current_user::text").await, ["lime_system"]);
}

/// A tenant with a row in every table that a run leaves rows in.
async fn busy_tenant(storage: &PgStorage) -> (Scope, Stored<Project>) {
    let (scope, project) = scene(storage).await;
    let user = User { email: "a@b.c".into(), name: None, github_user_id: None, status: UserStatus::Active };
    storage.insert(&scope, user).await.unwrap();
    submit(storage, &scope, &project).await;
    let done = claim(storage, LONG).await;
    lime_core::ports::EventLog::append(storage, &done.lease, vec![log("one")].into()).await.unwrap();
    storage.settle(&done.lease, settlement(Outcome::Succeeded { summary: None })).await.unwrap();
    submit(storage, &scope, &project).await;
    (scope, project)
}

/// Each row of each table, by its tenant.
async fn tenants_of(storage: &PgStorage, db: &impl ConnectionTrait) -> Vec<String> {
    let mut seen = Vec::new();
    for table in texts_of_owner(storage, TABLES).await {
        if OF_NOBODY.contains(&table.as_str()) {
            continue;
        }
        let column = if table == "tenants" { "id" } else { "tenant_id" };
        let rows = format!("SELECT DISTINCT '{table} ' || {column} FROM {table} ORDER BY 1");
        seen.extend(texts(db, &rows).await);
    }
    seen
}

async fn a_statement_without_a_where_sees_no_foreign_row(storage: &PgStorage) {
    let (a, project) = busy_tenant(storage).await;
    let (b, _) = busy_tenant(storage).await;
    let of_all = tenants_of(storage, storage.connection()).await;
    for scope in [&a, &b] {
        let its = format!(" {}", scope.tenant());
        let expected: Vec<_> = of_all.iter().filter(|row| row.ends_with(&its)).cloned().collect();
        assert!(expected.len() > 6, "{expected:?}");
        assert_eq!(tenants_of(storage, &storage.connection_of(scope)).await, expected);
    }
    let nobody = Scope::system(Id::new(i64::MAX), "a tenant that is not there");
    assert_eq!(tenants_of(storage, &storage.connection_of(&nobody)).await, [""; 0]);
    // Nor does it change one, or make one.
    let db = storage.connection_of(&b);
    for write in ["UPDATE projects SET name = 'theirs'", "DELETE FROM agent_runs"] {
        db.execute_unprepared(write).await.unwrap();
    }
    assert_eq!(Lookup::get(storage, &a, project.id).await.unwrap().value, project.value);
    assert_eq!(storage.list(&a, &Query::<AgentRun>::all()).await.unwrap().items.len(), 2);
    let foreign = format!("INSERT INTO users (tenant_id, email) VALUES ({}, 'x@y.z')", a.tenant());
    let refused = db.execute_unprepared(&foreign).await.unwrap_err().to_string();
    assert!(refused.contains("row-level security"), "{refused}");
    let away = format!("UPDATE users SET tenant_id = {}", a.tenant());
    let refused = db.execute_unprepared(&away).await.unwrap_err().to_string();
    assert!(refused.contains("row-level security"), "{refused}");
}

async fn who_says_no_tenant_sees_nothing(storage: &PgStorage) {
    busy_tenant(storage).await;
    for unset in ["", "SET lime.tenant = '7'; RESET lime.tenant;", "SET lime.tenant = '';"] {
        let seen = storage.owner(async |owner| {
            let tx = lime_storage_postgres::sea_orm::TransactionTrait::begin(owner).await?;
            tx.execute_unprepared(&format!("{unset} SET LOCAL ROLE lime_app")).await?;
            let mut seen = tenants_of_project(&tx).await;
            seen.extend(texts(&tx, "SELECT 'run ' || id FROM agent_runs").await);
            seen.extend(texts(&tx, "SELECT 'event ' || id FROM agent_events").await);
            tx.rollback().await?;
            Ok(seen)
        });
        assert_eq!(seen.await.unwrap(), [""; 0], "{unset}");
    }
}

async fn tenants_of_project(db: &impl ConnectionTrait) -> Vec<String> {
    texts(db, "SELECT tenant_id::text FROM projects").await
}

async fn a_foreign_id_and_a_missing_one_give_the_same_answer(storage: &PgStorage) {
    let (a, project) = busy_tenant(storage).await;
    let (b, _) = busy_tenant(storage).await;
    let missing: Id<Project> = Id::new(i64::MAX);
    let one = Lookup::get(storage, &b, project.id).await.unwrap_err();
    let other = Lookup::get(storage, &b, missing).await.unwrap_err();
    assert_eq!((one.kind(), other.kind()), (ErrorKind::NotFound, ErrorKind::NotFound));
    let words = |error: &lime_core::Error, id: Id<Project>| error.to_string().replace(&id.to_string(), "?");
    assert_eq!(words(&one, project.id), words(&other, missing));
    assert_eq!(Lookup::get(storage, &a, project.id).await.unwrap().id, project.id);
}

/// Calls of two tenants and of all, some of which are given up at any moment; each sees its own tenant alone.
async fn stale_tenants(storage: &PgStorage, calls: usize) -> usize {
    let mut scopes = Vec::new();
    for _ in 0..3 {
        scopes.push(scene(storage).await.0);
    }
    let work = (0..8).map(|lane| {
        let (storage, scopes) = (storage.clone(), scopes.clone());
        tokio::spawn(async move {
            let (mut wrong, mut random) = (0, fastrand::Rng::with_seed(lane));
            for call in 0..calls / 8 {
                let scope = &scopes[random.usize(..scopes.len())];
                let look = async {
                    let seen = if random.u8(..5) == 0 {
                        let tx = storage.connection_of(scope).begin().await.unwrap();
                        let seen = tenants_of_project(&tx).await;
                        if random.bool() {
                            tx.commit().await.unwrap();
                        }
                        seen
                    } else {
                        tenants_of_project(&storage.connection_of(scope)).await
                    };
                    seen != [scope.tenant().to_string()]
                };
                let patience = Duration::from_micros(fastrand::u64(..800));
                let seen = match call % 3 {
                    0 => tokio::time::timeout(patience, look).await.ok(),
                    1 => tokio::task::unconstrained(look).now_or_never(),
                    _ => Some(look.await),
                };
                wrong += usize::from(seen == Some(true));
                if call % 50 == 0 {
                    let all = texts(storage.connection(), "SELECT count(*)::text FROM tenants").await;
                    wrong += usize::from(all[0].parse::<usize>().unwrap() < scopes.len());
                }
            }
            wrong
        })
    });
    let mut wrong = 0;
    for lane in work.collect::<Vec<_>>() {
        wrong += lane.await.unwrap();
    }
    wrong
}

async fn calls_that_are_given_up_leave_no_stale_tenant(storage: &PgStorage) {
    assert_eq!(stale_tenants(storage, 800).await, 0);
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod server {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let Some(fresh) = crate::support::database().await else { return };
                super::$test(&crate::support::open(&fresh).await).await;
            })*
        }

        #[cfg(feature = "embedded")]
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $test() {
                let embedded = lime_storage_postgres::Embedded::temporary().await.unwrap();
                super::$test(&embedded.storage()).await;
                embedded.close().await.unwrap();
            })*
        }
    };
}

on_both!(
    every_table_is_isolated
    a_statement_without_a_where_sees_no_foreign_row
    who_says_no_tenant_sees_nothing
    a_foreign_id_and_a_missing_one_give_the_same_answer
    calls_that_are_given_up_leave_no_stale_tenant
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_leave_no_stale_tenant() {
    let Some(fresh) = support::database().await else { return };
    for max_connections in [1, 3, 10] {
        let options = PoolOptions { max_connections, ..options() };
        let storage = PgStorage::connect(fresh.url(), &options).await.unwrap();
        assert_eq!(stale_tenants(&storage, 10_000).await, 0, "of {max_connections} connections");
        assert!(storage.connection().size() <= usize::try_from(max_connections).unwrap());
        storage.close().await;
    }
}

/// A connection that the server has ended is not lent again, whoever it served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_ends_is_left() {
    let Some(fresh) = support::database().await else { return };
    let storage = PgStorage::connect(fresh.url(), &PoolOptions { notify: false, ..options() }).await.unwrap();
    let (a, b) = (scene(&storage).await.0, scene(&storage).await.0);
    let kill = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'assembly-lime'";
    for scope in [&a, &b, &a] {
        let held =
            futures_util::future::join_all((0..4).map(async |_| storage.connection_of(&a).begin().await))
                .await;
        drop(held);
        let owner = lime_storage_postgres::sea_orm::Database::connect(fresh.url()).await.unwrap();
        assert!(!texts(&owner, kill).await.is_empty());
        owner.close().await.unwrap();
        // One may notice only when it is used; it is the last that does.
        let mut failed = 0;
        while Lookup::<Project>::list(&storage, scope, &Query::all()).await.is_err() {
            failed += 1;
            assert!(failed <= 4, "connections that are gone are lent again and again");
        }
    }
    storage.close().await;
}

/// A connection serves one tenant for as long as that tenant's calls follow each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tenant_is_told_when_it_changes_and_not_with_every_call() {
    let Some(fresh) = support::database().await else { return };
    let storage =
        PgStorage::connect(fresh.url(), &PoolOptions { max_connections: 1, ..options() }).await.unwrap();
    let (a, b) = (scene(&storage).await.0, scene(&storage).await.0);
    let (a, b) = (storage.connection_of(&a), storage.connection_of(&b));
    let told = async || {
        // The session counts its own calls by the plans that it keeps.
        let plans = "SELECT (generic_plans + custom_plans)::text FROM pg_prepared_statements WHERE statement LIKE '%set_config%'";
        texts(&a, plans).await.pop().unwrap_or_default().parse::<u32>().unwrap_or_default()
    };
    tenants_of_project(&a).await;
    let before = told().await;
    for _ in 0..20 {
        tenants_of_project(&a).await;
    }
    assert_eq!(told().await, before);
    for _ in 0..5 {
        tenants_of_project(&b).await;
        tenants_of_project(&a).await;
    }
    assert_eq!(told().await, before + 10);
}

/// The user of the application owns nothing and may do nothing but work in the two roles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_owns_nothing_works() {
    let Some(fresh) = support::database().await else { return };
    let owner = open(&fresh).await;
    let name = format!("lime_test_user_{}_{}", std::process::id(), fastrand::u32(..));
    let make = format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'only-a-test'; GRANT lime_app, lime_system TO {name};
         ALTER ROLE {name} NOINHERIT"
    );
    as_owner(&owner, &make).await;
    let url = as_user(&fresh, &name);
    let worked = std::panic::AssertUnwindSafe(async {
        let storage = PgStorage::connect(&url, &options()).await.unwrap();
        storage.migrate().await.unwrap();
        let (scope, _) = busy_tenant(&storage).await;
        assert_eq!(storage.list(&scope, &Query::<Project>::all()).await.unwrap().items.len(), 1);
        storage
            .purge(&lime_storage_postgres::Purge { older_than: Duration::ZERO, dry_run: false })
            .await
            .unwrap();
        let login = "SELECT session_user::text || ' ' || current_user::text";
        assert_eq!(texts(storage.connection(), login).await, [format!("{name} lime_system")]);
        let may_not = storage.connection().execute_unprepared("DROP TABLE tickets").await.unwrap_err();
        assert!(may_not.to_string().contains("must be owner"), "{may_not}");
        storage.close().await;
    });
    let worked = worked.catch_unwind().await;
    as_owner(&owner, &format!("DROP ROLE {name}")).await;
    if let Err(panic) = worked {
        std::panic::resume_unwind(panic);
    }
}

/// Who may not work in the roles is told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_is_no_member_is_told_so() {
    let Some(fresh) = support::database().await else { return };
    let owner = open(&fresh).await;
    let name = format!("lime_test_user_{}_{}", std::process::id(), fastrand::u32(..));
    as_owner(&owner, &format!("CREATE ROLE {name} LOGIN PASSWORD 'only-a-test'")).await;
    let storage = PgStorage::connect(&as_user(&fresh, &name), &options()).await.unwrap();
    let scope = Scope::system(Id::new(1), "a test");
    let refused = storage.list(&scope, &Query::<Project>::all()).await.unwrap_err();
    storage.close().await;
    as_owner(&owner, &format!("DROP ROLE {name}")).await;
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{refused}");
    assert!(refused.message().contains("lime_app"), "{refused}");
}

/// The URL of the same database for another user.
fn as_user(database: &TestDatabase, name: &str) -> String {
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{name}:only-a-test@{host}")
}
