//! What the line costs, counted in pages and not in time.

use lime_core::planning::Project;
use lime_core::{Scope, Store, Stored};
use lime_storage_postgres::sea_orm::{ConnectionTrait, JsonValue};
use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

use crate::support::{as_owner, database, open, options, scene, statement};

/// With one connection, so that all takes but the first have their plans.
async fn one_connection(fresh: &TestDatabase) -> PgStorage {
    open(fresh).await.close().await;
    let options = PoolOptions { max_connections: 1, notify: false, ..options() };
    PgStorage::connect(fresh.url(), &options).await.unwrap()
}

/// Places without runs, which a take does not look at; nothing is analyzed after it.
async fn fill(storage: &PgStorage, scope: &Scope, project: &Stored<Project>, count: usize, more: &str) {
    let fill = format!(
        "SET session_replication_role = replica;
         INSERT INTO run_queue (run_id, tenant_id, project_id, provider, state, due_at)
         SELECT 1000000 + row.n, {}, {}, 'replay', {more} FROM generate_series(1, {count}) AS row (n)",
        scope.tenant(),
        project.id
    );
    as_owner(storage, &fill).await;
}

/// How many pages a take of so many looked at, how many rows it gave, and how much it wrote.
async fn take(storage: &PgStorage, max: i32) -> (u64, u64, u64) {
    let explain = format!(
        "EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING OFF, FORMAT JSON)
         SELECT unnest(runs) FROM run_queue_take(ARRAY['replay'], {max}, 60000, 0, false)"
    );
    let row = storage.connection().query_one_raw(statement(&explain)).await.unwrap().unwrap();
    let plan: JsonValue = row.try_get_by_index(0).unwrap();
    let number = |name: &str| plan[0]["Plan"][name].as_u64().unwrap();
    (number("Shared Hit Blocks") + number("Shared Read Blocks"), number("Actual Rows"), number("WAL Records"))
}

async fn pages(storage: &PgStorage) -> u64 {
    let size = "SELECT (pg_total_relation_size('run_queue') / 8192)::text";
    let row = storage.connection().query_one_raw(statement(size)).await.unwrap().unwrap();
    row.try_get_by_index::<String>(0).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_take_from_a_hundred_thousand_looks_at_a_few_pages_for_each_run() {
    let Some(fresh) = database().await else { return };
    let storage = one_connection(&fresh).await;
    let (scope, project) = scene(&storage).await;
    let wide = Project { max_concurrent_agents: 10, ..project.value.clone() };
    let project = storage.update(&scope, &Stored { value: wide, ..project }).await.unwrap();
    // The first take makes plans while there is nothing in the tables, and the second one may make them anew.
    fill(&storage, &scope, &project, 1, "0, NULL").await;
    assert_eq!(take(&storage, 1).await.1, 1);
    storage.connection().execute_unprepared("DELETE FROM run_leases").await.unwrap();
    fill(&storage, &scope, &project, 100_000, "0, NULL").await;
    assert_eq!(take(&storage, 1).await.1, 1);
    let all = pages(&storage).await;
    let (looked_at, taken, _) = take(&storage, 32).await;
    assert_eq!(taken, 9, "as many as the project may have at once");
    assert!(all > 2_000 && looked_at < 300, "a take of {taken} looked at {looked_at} of {all} pages");
    // At its limit, the tenant's whole line is one lane that is passed over.
    let (looked_at, taken, _) = take(&storage, 32).await;
    assert_eq!(taken, 0);
    assert!(looked_at < 60, "a take of none looked at {looked_at} of {all} pages");
}

#[tokio::test]
async fn a_look_at_a_line_in_which_nobody_is_ready_is_next_to_free() {
    let Some(fresh) = database().await else { return };
    let storage = one_connection(&fresh).await;
    let (scope, project) = scene(&storage).await;
    fill(&storage, &scope, &project, 10_000, "1, now() + row.n * interval '1 hour'").await;
    let again = "run_id + 100000";
    let paused = format!(
        "SET session_replication_role = replica;
         INSERT INTO run_queue (run_id, tenant_id, project_id, provider, state)
         SELECT {again}, tenant_id, project_id, provider, 2 FROM run_queue"
    );
    as_owner(&storage, &paused).await;
    let all = pages(&storage).await;
    take(&storage, 32).await;
    let (looked_at, taken, written) = take(&storage, 32).await;
    assert_eq!((taken, written), (0, 0), "it wrote something");
    assert!(looked_at <= 20, "it looked at {looked_at} of {all} pages");
}
