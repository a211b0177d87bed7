//! Connections as SeaORM takes them.

use std::fmt;
use std::sync::Arc;

use sea_orm::sea_query::Values;
use sea_orm::sqlx::postgres::{PgArguments, PgRow};
use sea_orm::sqlx::{self, Connection, Postgres};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, Statement};
use sea_query_sqlx::SqlxValues;
use tokio::sync::Mutex;

use crate::pool::{Lent, Pool, Whom};

/// Connections to the database, one for each statement; clones share them.
///
/// - They serve one tenant and see no other's rows, or they serve all: [`PgStorage::connection`](crate::PgStorage::connection)
///   and [`PgStorage::connection_of`](crate::PgStorage::connection_of) say which.
/// - What the application does is done in the roles `lime_app` and `lime_system`, which own no table.
#[derive(Clone)]
pub struct Connections {
    pool: Arc<Pool>,
    whom: Whom,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({:?})", self.whom)
    }
}

impl Connections {
    pub(crate) fn new(pool: Arc<Pool>, whom: Whom) -> Self {
        Self { pool, whom }
    }

    /// The same connections, serving somebody else.
    pub(crate) fn serving(&self, whom: Whom) -> Self {
        Self { pool: self.pool.clone(), whom }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// How many connections are open.
    pub fn size(&self) -> usize {
        self.pool.size()
    }

    /// How many connections may be open.
    pub fn most(&self) -> usize {
        self.pool.most()
    }

    /// How many of them nobody uses.
    pub fn idle(&self) -> usize {
        self.pool.idle_len()
    }

    /// Asks whether the database answers.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.pool
            .lend(self.whom)
            .await?
            .statement(async |connection| connection.ping().await)
            .await
            .map_err(failed)
    }

    /// Begins a transaction.
    ///
    /// - Dropped without a [`commit`](Transaction::commit), it is rolled back.
    pub async fn begin(&self) -> Result<Transaction, DbErr> {
        let mut lent = self.pool.lend(self.whom).await?;
        lent.begin(async |connection| sqlx::raw_sql("BEGIN").execute(connection).await)
            .await
            .map_err(failed)?;
        Ok(Transaction(Mutex::new(lent)))
    }

    /// All rows of a statement that is put together by hand.
    pub(crate) async fn fetch_all(
        &self,
        query: sqlx::query::Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, DbErr> {
        let mut lent = self.pool.lend(self.whom).await?;
        lent.statement(async |connection| query.fetch_all(connection).await).await.map_err(failed)
    }
}

fn failed(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

fn query(statement: &Statement) -> sqlx::query::Query<'_, Postgres, SqlxValues> {
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    sqlx::query_with(sqlx::AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

async fn execute(lent: &mut Lent, statement: &Statement) -> Result<ExecResult, DbErr> {
    let done = lent.statement(async |connection| query(statement).execute(connection).await).await;
    done.map(ExecResult::from).map_err(failed)
}

async fn execute_unprepared(lent: &mut Lent, sql: &str) -> Result<ExecResult, DbErr> {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    let done = lent.statement(async |connection| sqlx::raw_sql(sql).execute(connection).await).await;
    done.map(ExecResult::from).map_err(failed)
}

async fn query_one(lent: &mut Lent, statement: &Statement) -> Result<Option<QueryResult>, DbErr> {
    let found = lent.statement(async |connection| query(statement).fetch_optional(connection).await).await;
    found.map(|row| row.map(QueryResult::from)).map_err(failed)
}

async fn query_all(lent: &mut Lent, statement: &Statement) -> Result<Vec<QueryResult>, DbErr> {
    let found = lent.statement(async |connection| query(statement).fetch_all(connection).await).await;
    found.map(|rows| rows.into_iter().map(QueryResult::from).collect()).map_err(failed)
}

#[async_trait::async_trait]
impl ConnectionTrait for Connections {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        execute(&mut self.pool.lend(self.whom).await?, &statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        execute_unprepared(&mut self.pool.lend(self.whom).await?, sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        query_one(&mut self.pool.lend(self.whom).await?, &statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        query_all(&mut self.pool.lend(self.whom).await?, &statement).await
    }
}

/// A transaction on one connection, in which statements run one after another.
///
/// - Dropped without a [`commit`](Transaction::commit), it is rolled back before anybody else gets the connection.
pub struct Transaction(Mutex<Lent>);

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transaction")
    }
}

impl Transaction {
    /// Makes all of it last.
    pub async fn commit(self) -> Result<(), DbErr> {
        self.end("COMMIT").await
    }

    /// Takes all of it back, and waits until that is done.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.end("ROLLBACK").await
    }

    async fn end(self, how: &'static str) -> Result<(), DbErr> {
        let mut lent = self.0.into_inner();
        lent.begin(async |connection| sqlx::raw_sql(how).execute(connection).await).await.map_err(failed)?;
        lent.rest();
        Ok(())
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Postgres
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        execute(&mut *self.0.lock().await, &statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        execute_unprepared(&mut *self.0.lock().await, sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        query_one(&mut *self.0.lock().await, &statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        query_all(&mut *self.0.lock().await, &statement).await
    }
}
