//! What operators look at, over all tenants.

use chrono::{DateTime, Utc};
use lime_core::governance::{Approval, TimeZone};
use lime_core::identity::{Slug, Tenant};
use lime_core::runs::{AgentRun, RunAttempt};
use lime_core::{Error, ErrorKind, Id, Result, Scope, Stored};
use sea_orm::{ConnectionTrait, FromQueryResult, QueryResult, Value};
use sea_orm_migration::MigratorTrait;
use tracing::Instrument;

use crate::error::unnamed;
use crate::storage::sql;
use crate::{Migrator, PgStorage};

/// Which migrations a database has had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Migrations {
    /// Those that were applied, in order.
    pub applied: Vec<String>,
    /// Those that this version has and the database has not, in order.
    pub pending: Vec<String>,
    /// Those that were applied and this version does not know: a newer one was here.
    pub unknown: Vec<String>,
}

/// A tenant, and its places in the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantLoad {
    /// The tenant.
    pub tenant: Stored<Tenant>,
    /// Runs that wait for a worker or for their time.
    pub waiting: u64,
    /// Runs that a worker holds.
    pub leased: u64,
    /// Runs that are paused.
    pub paused: u64,
}

/// The lease on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLease {
    /// The attempt that holds it, or held it last.
    pub attempt: Id<RunAttempt>,
    /// When it runs out, on the database's clock.
    pub expires_at: DateTime<Utc>,
    /// Whether it has run out, and nobody has taken the run up yet.
    pub is_overdue: bool,
}

/// What a database server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    /// The version of PostgreSQL, such as `15.20`.
    pub version: String,
    /// The same as a number, such as 150020.
    pub version_number: i32,
    /// The database.
    pub database: String,
    /// Its clock.
    pub now: DateTime<Utc>,
    /// How many connections it has, to all databases.
    pub connections: u64,
    /// How many it takes.
    pub max_connections: u64,
    /// How many bytes the database has on the disk.
    pub bytes: u64,
}

/// What is not as it should be in the line and around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineState {
    /// Leases that have run out, whose runs nobody has taken up yet.
    pub overdue: u64,
    /// How long ago the first of them did, in milliseconds.
    pub longest_overdue_ms: u64,
    /// Queued runs without a place in the line.
    pub unplaced: u64,
    /// Runs that lost worker after worker.
    pub dead_letters: u64,
    /// Questions that wait for a person.
    pub open_questions: u64,
    /// Runs that have ended with a change to the world outside that may be half done; the first 10.
    pub unsettled: Vec<Id<AgentRun>>,
}

/// Where the coming events go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogState {
    /// The end of the last month that has a partition of its own; none if there are no such partitions.
    pub reaches: Option<DateTime<Utc>>,
    /// Whether there are events in the partition for those that fit in no other.
    pub has_strays: bool,
}

#[derive(FromQueryResult)]
struct TenantRow {
    id: i64,
    name: String,
    slug: String,
    max_concurrent_runs: Option<i32>,
    time_zone: String,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

const TENANT: &str = "tenant.id, tenant.name, tenant.slug, tenant.max_concurrent_runs, tenant.time_zone, tenant.version, \
                      tenant.created_at, tenant.updated_at";

impl PgStorage {
    /// Every tenant, the oldest first.
    pub async fn all_tenants(&self) -> Result<Vec<Stored<Tenant>>> {
        const OPERATION: &str = "survey.tenants";
        let rows =
            self.rows(OPERATION, format!("SELECT {TENANT} FROM tenants AS tenant ORDER BY id"), []).await?;
        rows.iter().map(|row| tenant(OPERATION, row)).collect()
    }

    /// Every tenant with its places in the line, the oldest first.
    pub async fn tenant_loads(&self) -> Result<Vec<TenantLoad>> {
        const OPERATION: &str = "survey.tenant_loads";
        let statement = format!(
            "SELECT {TENANT}, coalesce(line.waiting, 0) AS waiting, coalesce(line.leased, 0) AS leased,
                    coalesce(line.paused, 0) AS paused
             FROM tenants AS tenant LEFT JOIN (
                 SELECT tenant_id, count(*) FILTER (WHERE state IN (0, 1)) AS waiting,
                        count(*) FILTER (WHERE state = 2) AS paused, count(*) FILTER (WHERE state = 3) AS leased
                 FROM (
                     SELECT tenant_id, state FROM run_queue UNION ALL SELECT tenant_id, 3 FROM run_leases
                 ) AS place GROUP BY tenant_id
             ) AS line ON line.tenant_id = tenant.id ORDER BY tenant.id"
        );
        let rows = self.rows(OPERATION, statement, []).await?;
        let load = |row: &QueryResult| {
            Ok(TenantLoad {
                tenant: tenant(OPERATION, row)?,
                waiting: count(OPERATION, row, "waiting")?,
                leased: count(OPERATION, row, "leased")?,
                paused: count(OPERATION, row, "paused")?,
            })
        };
        rows.iter().map(load).collect()
    }

    /// The tenant that a run belongs to.
    ///
    /// - For operators only, who see every tenant. Fails with `NotFound`.
    pub async fn tenant_of_run(&self, run: Id<AgentRun>) -> Result<Stored<Tenant>> {
        self.tenant_of("survey.tenant_of_run", "agent_runs", "run", run.raw()).await
    }

    /// The tenant that a question belongs to.
    ///
    /// - For operators only, who see every tenant. Fails with `NotFound`.
    pub async fn tenant_of_approval(&self, approval: Id<Approval>) -> Result<Stored<Tenant>> {
        self.tenant_of("survey.tenant_of_approval", "approvals", "question", approval.raw()).await
    }

    async fn tenant_of(
        &self,
        operation: &'static str,
        table: &'static str,
        noun: &'static str,
        id: i64,
    ) -> Result<Stored<Tenant>> {
        let statement = format!(
            "SELECT {TENANT} FROM {table} AS it JOIN tenants AS tenant ON tenant.id = it.tenant_id WHERE it.id = $1"
        );
        match self.rows(operation, statement, [id.into()]).await?.first() {
            Some(row) => tenant(operation, row),
            None => Err(Error::not_found(operation, noun, id)),
        }
    }

    /// The lease on a run, if a worker holds it or has lost it and nobody has taken it up yet.
    pub async fn lease_of(&self, scope: &Scope, run: Id<AgentRun>) -> Result<Option<HeldLease>> {
        const OPERATION: &str = "survey.lease_of";
        let statement = "SELECT token, expires_at, expires_at <= clock_timestamp() AS overdue
             FROM run_leases WHERE tenant_id = $1 AND run_id = $2";
        let values = [scope.tenant().raw().into(), run.raw().into()];
        let rows = self.rows(OPERATION, statement.to_owned(), values).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(HeldLease {
            attempt: Id::new(field(OPERATION, row, "token")?),
            expires_at: field(OPERATION, row, "expires_at")?,
            is_overdue: field(OPERATION, row, "overdue")?,
        }))
    }

    /// Which migrations were applied, and which are to come.
    pub async fn migrations(&self) -> Result<Migrations> {
        const OPERATION: &str = "survey.migrations";
        let table = "SELECT to_regclass('seaql_migrations') IS NOT NULL AS there";
        let there: bool = match self.rows(OPERATION, table.to_owned(), []).await?.first() {
            Some(row) => field(OPERATION, row, "there")?,
            None => false,
        };
        let mut applied = Vec::<String>::new();
        if there {
            let names = "SELECT version FROM seaql_migrations ORDER BY version";
            for row in self.rows(OPERATION, names.to_owned(), []).await? {
                applied.push(field(OPERATION, &row, "version")?);
            }
        }
        let known: Vec<String> = Migrator::migrations().iter().map(|it| it.name().to_owned()).collect();
        let pending = known.iter().filter(|name| !applied.contains(name)).cloned().collect();
        let unknown = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
        Ok(Migrations { applied, pending, unknown })
    }

    /// What the server says of itself; needs no tables.
    pub async fn server_state(&self) -> Result<ServerState> {
        const OPERATION: &str = "survey.server";
        let statement = "SELECT split_part(current_setting('server_version'), ' ', 1) AS version,
                current_setting('server_version_num')::int AS number, current_database()::text AS database,
                clock_timestamp() AS now, pg_database_size(current_database()) AS bytes,
                (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database) AS connections,
                current_setting('max_connections')::bigint AS most";
        let row = self.row(OPERATION, statement).await?;
        Ok(ServerState {
            version: field(OPERATION, &row, "version")?,
            version_number: field(OPERATION, &row, "number")?,
            database: field(OPERATION, &row, "database")?,
            now: field(OPERATION, &row, "now")?,
            connections: count(OPERATION, &row, "connections")?,
            max_connections: count(OPERATION, &row, "most")?,
            bytes: count(OPERATION, &row, "bytes")?,
        })
    }

    /// What is not as it should be in the line and around it.
    ///
    /// - Reads each tenant's part of an index, so it is for a person who asks, and not for every few seconds.
    pub async fn line_state(&self) -> Result<LineState> {
        const OPERATION: &str = "survey.line";
        let statement = "SELECT overdue.number AS overdue, overdue.longest AS longest, per_tenant.unplaced AS unplaced,
                per_tenant.dead AS dead, questions.number AS questions
             FROM (
                 SELECT count(*) AS number,
                        coalesce(extract(epoch FROM clock_timestamp() - min(expires_at)) * 1000, 0)::bigint AS longest
                 FROM run_leases WHERE expires_at <= clock_timestamp()
             ) AS overdue, (
                 SELECT coalesce(sum((
                     SELECT count(*) FROM agent_runs AS run
                     WHERE run.tenant_id = tenants.id AND run.status = 'queued'
                       AND NOT EXISTS (SELECT FROM run_queue AS place WHERE place.run_id = run.id)
                       AND NOT EXISTS (SELECT FROM run_leases AS place WHERE place.run_id = run.id)
                 )), 0)::bigint AS unplaced, coalesce(sum((
                     SELECT count(*) FROM agent_runs AS run
                     WHERE run.tenant_id = tenants.id AND run.status = 'failed' AND run.stop_reason = 'worker_lost'
                 )), 0)::bigint AS dead
                 FROM tenants
             ) AS per_tenant, (
                 SELECT count(*) AS number FROM approvals WHERE status = 'pending'
             ) AS questions";
        let row = self.row(OPERATION, statement).await?;
        let unsettled = "SELECT DISTINCT effect.run_id AS run_id FROM effects AS effect
             JOIN agent_runs AS run ON run.tenant_id = effect.tenant_id AND run.id = effect.run_id
             WHERE effect.status = 'pending' AND run.ended_at IS NOT NULL ORDER BY effect.run_id LIMIT 10";
        let unsettled = self.rows(OPERATION, unsettled.to_owned(), []).await?;
        let unsettled = unsettled.iter().map(|row| field(OPERATION, row, "run_id").map(Id::new));
        Ok(LineState {
            overdue: count(OPERATION, &row, "overdue")?,
            longest_overdue_ms: count(OPERATION, &row, "longest")?,
            unplaced: count(OPERATION, &row, "unplaced")?,
            dead_letters: count(OPERATION, &row, "dead")?,
            open_questions: count(OPERATION, &row, "questions")?,
            unsettled: unsettled.collect::<Result<_>>()?,
        })
    }

    /// How many questions wait for a person, of all tenants.
    pub async fn open_questions(&self) -> Result<u64> {
        const OPERATION: &str = "survey.questions";
        let statement = "SELECT count(*) AS number FROM approvals WHERE status = 'pending'";
        let row = self.row(OPERATION, statement).await?;
        count(OPERATION, &row, "number")
    }

    /// Where the coming events go.
    pub async fn log_state(&self) -> Result<LogState> {
        const OPERATION: &str = "survey.log";
        // A partition's bounds are known to the catalogue alone, as text.
        let bounds = "SELECT child.oid::regclass::text AS name,
                substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \\(''([^'']+)''')::timestamptz AS until,
                pg_get_expr(child.relpartbound, child.oid) = 'DEFAULT' AS is_default
             FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid
             WHERE inhparent = 'agent_events'::regclass";
        let mut state = LogState { reaches: None, has_strays: false };
        for row in self.rows(OPERATION, bounds.to_owned(), []).await? {
            let until: Option<DateTime<Utc>> = field(OPERATION, &row, "until")?;
            state.reaches = state.reaches.max(until);
            if field(OPERATION, &row, "is_default")? {
                // As the catalogue writes it, so it is quoted where it must be.
                let name: String = field(OPERATION, &row, "name")?;
                let any = self.row(OPERATION, &format!("SELECT EXISTS (SELECT FROM {name}) AS any")).await?;
                state.has_strays |= field::<bool>(OPERATION, &any, "any")?;
            }
        }
        Ok(state)
    }

    async fn rows<const N: usize>(
        &self,
        operation: &'static str,
        statement: String,
        values: [Value; N],
    ) -> Result<Vec<QueryResult>> {
        self.connection()
            .query_all_raw(sql(statement, values))
            .instrument(tracing::debug_span!("storage", operation))
            .await
            .map_err(|error| unnamed(operation, &error))
    }

    /// The only row of a statement that always gives one.
    async fn row(&self, operation: &'static str, statement: &str) -> Result<QueryResult> {
        self.rows(operation, statement.to_owned(), []).await?.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                operation,
                "the database gave no answer to a question that has one",
            )
        })
    }
}

fn tenant(operation: &'static str, row: &QueryResult) -> Result<Stored<Tenant>> {
    let row = TenantRow::from_query_result(row, "").map_err(|error| unnamed(operation, &error))?;
    let unreadable = |invalid| {
        let message = format!("the stored tenant cannot be read: {invalid}");
        Error::new(ErrorKind::Corrupt, operation, message).with("id", row.id)
    };
    let slug = Slug::parse(row.slug).map_err(unreadable)?;
    let time_zone = TimeZone::parse(&row.time_zone).map_err(unreadable)?;
    let value = Tenant { name: row.name, slug, max_concurrent_runs: row.max_concurrent_runs, time_zone };
    Ok(Stored {
        id: Id::new(row.id),
        version: row.version,
        created_at: row.created_at,
        updated_at: row.updated_at,
        value,
    })
}

fn field<T: sea_orm::TryGetable>(operation: &'static str, row: &QueryResult, name: &str) -> Result<T> {
    row.try_get("", name).map_err(|error| unnamed(operation, &error))
}

fn count(operation: &'static str, row: &QueryResult, name: &str) -> Result<u64> {
    let number: i64 = field(operation, row, name)?;
    // Clocks that are set back can make a difference negative.
    Ok(u64::try_from(number).unwrap_or_default())
}
