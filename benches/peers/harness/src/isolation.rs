//! One tenant's calls under row-level security beside the same statements without, on a million rows of a hundred
//! tenants; and calls of which each is another tenant's than the one before.

use std::time::{Duration, Instant};

use lime_core::Scope;
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_storage_postgres::sea_orm::{ConnectionTrait, DbBackend, Statement};
use lime_storage_postgres::{Connections, PgStorage, PoolOptions};
use sqlx::AssertSqlSafe;

use crate::args::Args;
use crate::figures::{Figures, Statistic};
use crate::ground::Ground;
use crate::report::{Column, Section, Table, Unit};
use crate::target::{Against, Target};
use crate::{Outcome, say};

const GET: &str = "get by id";
const PAGE: &str = "page of 100";
const ISOLATED: &str = "isolated";
const OPEN: &str = "not isolated";
const CHANGES: &str = "tenant changes";
const TOLD: &str = "and a round trip";
const TARGETS: [Target; 3] = [
    Target::latency(GET, Statistic::P95, ISOLATED, Against::Peer(OPEN), 1.1),
    Target::latency(PAGE, Statistic::P95, ISOLATED, Against::Peer(OPEN), 1.1),
    Target::latency(GET, Statistic::P95, CHANGES, Against::Peer(TOLD), 1.1),
];
const TENANTS: i64 = 100;
const ROWS: i64 = 10_000;
/// How many calls of each kind follow each other before the next kind.
const TURN: usize = 100;

pub(crate) async fn measure(args: &Args, ground: &Ground) -> Outcome<Section> {
    let mut figures = Figures::default();
    figures.introduce(
        ISOLATED,
        format!("one tenant of {TENANTS}, each with {ROWS} tickets; by the role lime_app"),
    );
    figures.introduce(OPEN, "the same statements by the role lime_system, which sees all".to_owned());
    figures.introduce(CHANGES, "each call is another tenant's, on one connection".to_owned());
    figures.introduce(TOLD, "one tenant's calls, each with a `SELECT` of two settings before it".to_owned());
    let database = ground.database().await?;
    let options = PoolOptions { max_connections: 1, notify: false, ..PoolOptions::default() };
    let storage = PgStorage::connect(&database.url, &options).await?;
    storage.migrate().await?;
    let scopes = tenants(&storage).await?;
    let pool = database.pool(1).await?;
    let fill = format!(
        "SET session_replication_role = replica;
         INSERT INTO tickets (tenant_id, project_id, board_id, column_key, title, description_md)
         SELECT 1 + row.n % {TENANTS}, 1 + row.n % 1000, 1, 'todo', 'Ticket ' || row.n, repeat('what it is about ', 20)
         FROM generate_series(0, {TENANTS} * {ROWS} - 1) AS row (n);
         RESET session_replication_role"
    );
    sqlx::raw_sql(AssertSqlSafe(fill)).execute(&pool).await?;
    database.vacuum(&pool).await?;
    pool.close().await;

    let one = &scopes[0];
    let (isolated, open) = (storage.connection_of(one), storage.connection().clone());
    let told = "SELECT set_config('lime.measured', '1', false), set_config('lime.measured', '2', false)";
    let told = Statement::from_string(DbBackend::Postgres, told);
    for round in 1..=args.rounds {
        ground.calm().await;
        let calls = usize::try_from(args.samples)?.max(TURN) * 20;
        for turn in 0..calls / TURN {
            // Who comes second finds more in the server's memory.
            let mut peers = [(ISOLATED, &isolated), (OPEN, &open)];
            peers.rotate_left(turn % 2);
            for (peer, db) in peers {
                let mut gets = Vec::with_capacity(TURN);
                let mut pages = Vec::new();
                ask(db, &get(1, 0)).await?;
                for call in 0..TURN {
                    gets.push(ask(db, &get(1, turn * TURN + call)).await?);
                    if call % 10 == 0 {
                        pages.push(ask(db, &page(1, turn * TURN + call)).await?);
                    }
                }
                figures.add_latencies(GET, peer, &gets);
                figures.add_latencies(PAGE, peer, &pages);
            }
            let mut gets = Vec::with_capacity(TURN);
            for call in 0..TURN {
                let at = call % scopes.len();
                gets.push(ask(&storage.connection_of(&scopes[at]), &get(at + 1, turn)).await?);
            }
            figures.add_latencies(GET, CHANGES, &gets);
            let mut gets = Vec::with_capacity(TURN);
            for call in 0..TURN {
                let began = Instant::now();
                isolated.query_all_raw(told.clone()).await?;
                ask(&isolated, &get(1, call)).await?;
                gets.push(began.elapsed());
            }
            figures.add_latencies(GET, TOLD, &gets[1..]);
        }
        say::line(&format!("round {round} of {}", args.rounds));
    }
    storage.close().await;
    let column = |title, measure, statistic| Column { title, measure, statistic, unit: Unit::Millis };
    Ok(Section {
        title: "isolation".to_owned(),
        tables: vec![Table {
            title: "how long a call takes".to_owned(),
            columns: vec![
                column("get p50", GET, Statistic::Median),
                column("get p95", GET, Statistic::P95),
                column("page p50", PAGE, Statistic::Median),
                column("page p95", PAGE, Statistic::P95),
            ],
            ours: ISOLATED,
        }],
        targets: TARGETS.to_vec(),
        figures,
        notes: Vec::new(),
    })
}

/// The tenants with the ids 1, 2, 3 and so on, since they are the first in their database.
async fn tenants(storage: &PgStorage) -> Outcome<Vec<Scope>> {
    let mut scopes = Vec::new();
    for number in 1..=TENANTS {
        let tenant = Tenant::new("A tenant", Slug::parse(format!("tenant-{number}"))?);
        scopes.push(Scope::system(storage.create_tenant(tenant).await?.id, "measuring"));
    }
    Ok(scopes)
}

/// One of a tenant's tickets, another with each turn.
fn get(tenant: usize, turn: usize) -> Statement {
    let (tenant, turn) = (number(tenant), number(turn));
    let id = 1 + (tenant - 1) + TENANTS * (turn * 7919 % ROWS);
    let sql = "SELECT * FROM tickets WHERE tenant_id = $1 AND id = $2";
    Statement::from_sql_and_values(DbBackend::Postgres, sql, [tenant.into(), id.into()])
}

fn page(tenant: usize, turn: usize) -> Statement {
    let (tenant, turn) = (number(tenant), number(turn));
    let after = TENANTS * (turn * 7919 % ROWS);
    let sql = "SELECT * FROM tickets WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT 100";
    Statement::from_sql_and_values(DbBackend::Postgres, sql, [tenant.into(), after.into()])
}

fn number(number: usize) -> i64 {
    i64::try_from(number).unwrap_or_default()
}

async fn ask(db: &Connections, statement: &Statement) -> Outcome<Duration> {
    let began = Instant::now();
    let rows = db.query_all_raw(statement.clone()).await?;
    let took = began.elapsed();
    if rows.is_empty() {
        return Err("a ticket that is there was not found".into());
    }
    Ok(took)
}
