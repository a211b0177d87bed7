use std::sync::Arc;
use std::time::{Duration, Instant};

use lime_core::identity::Tenant;
use lime_core::{Error, ErrorKind, Id, LiveHub, Result, Scope};
use sea_orm::sqlx::ConnectOptions as _;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, SqlxError, SqlxPostgresConnector,
    Statement, TransactionTrait, Value,
};
use sea_orm_migration::MigratorTrait;
use tokio::time::sleep;
use tracing::{Instrument, Span};

use crate::budgets::{self, Holder};
use crate::connections::{Connections, Transaction};
use crate::error::{connecting, unnamed};
use crate::events::Appender;
use crate::listen::Listener;
use crate::news::News;
use crate::pool::{Pool, PoolSettings, Whom};
use crate::queue::Lines;
use crate::{Migrator, tenants};

/// Everything that is stored, in a PostgreSQL database; clones share their connections.
///
/// - Safe to cancel: a call whose future is dropped has happened as a whole or not at all, and the connection goes
///   back to the pool in order.
/// - Needs a tokio runtime; use it on the one that it was opened on.
#[derive(Clone)]
pub struct PgStorage(Arc<Shared>);

struct Shared {
    base: Base,
    queue: Lines,
    appender: Appender,
    budgets: Holder,
    listener: Listener,
}

/// The connections, and whom to tell of news: what tasks and batches hold on to, which the storage may not be, since
/// it holds on to them.
#[derive(Clone)]
pub(crate) struct Base {
    /// They serve all tenants.
    pub(crate) db: Connections,
    pub(crate) news: News,
    pub(crate) live_poll: Duration,
    /// How many transactions of one kind may be under way at once.
    pub(crate) in_flight: usize,
}

/// How many connections, and how patiently.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The most connections at once.
    pub max_connections: u32,
    /// How long a call waits for a free connection before it fails as unavailable.
    pub acquire_timeout: Duration,
    /// How long one statement may take before the server stops it; no limit, if none. Migrations have no limit.
    pub statement_timeout: Option<Duration>,
    /// How often a subscriber looks for events that another process has recorded, while it is not told of them.
    pub live_poll: Duration,
    /// Whether processes tell each other of news, by `LISTEN` and `NOTIFY`, which takes one connection more; otherwise
    /// they find it when they look.
    pub notify: bool,
}

impl Default for PoolOptions {
    /// 10 connections, 10 seconds for one to be free, 30 seconds a statement, a look for events each 500 ms, and news
    /// is told.
    fn default() -> Self {
        Self {
            max_connections: 10,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Some(Duration::from_secs(30)),
            live_poll: Duration::from_millis(500),
            notify: true,
        }
    }
}

impl std::fmt::Debug for PgStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PgStorage")
    }
}

impl AsRef<LiveHub> for PgStorage {
    fn as_ref(&self) -> &LiveHub {
        self.news().as_ref()
    }
}

impl Base {
    /// Begins a transaction that sees all tenants.
    pub(crate) async fn begin(&self, operation: &'static str) -> Result<Transaction> {
        self.db.begin().await.map_err(|error| unnamed(operation, &error))
    }

    /// The connections of one tenant.
    pub(crate) fn of(&self, tenant: Id<Tenant>) -> Connections {
        self.db.serving(Whom::Tenant(tenant))
    }

    /// Those of whoever logged in, who may lack what the roles have, and whom there need be no roles for.
    pub(crate) fn login(&self) -> Connections {
        self.db.serving(Whom::Login)
    }

    /// Begins a transaction of one tenant.
    pub(crate) async fn begin_as(&self, tenant: Id<Tenant>, operation: &'static str) -> Result<Transaction> {
        self.of(tenant).begin().await.map_err(|error| unnamed(operation, &error))
    }
}

impl PgStorage {
    /// Lets one migrator at a time through: "lime" in ASCII, as good as any other number.
    pub(crate) const MIGRATION_LOCK: i64 = 0x6c69_6d65;

    /// Connects to a server, such as `postgres://user:password@host/database`.
    ///
    /// - What is done through it is done in the roles `lime_app` and `lime_system`, which [`migrate`](Self::migrate) makes:
    ///   the user of the URL must be a member of both, and need not own the tables.
    /// - Fails with `Invalid` for a URL that is none, `Unauthenticated` for a wrong password, `Missing` for a
    ///   missing database, `Unavailable` if nobody answers. The URL is in no error and no log.
    pub async fn connect(url: &str, options: &PoolOptions) -> Result<Self> {
        let schemes = ["postgres://", "postgresql://"];
        let connect =
            if schemes.iter().any(|scheme| url.starts_with(scheme)) { url.parse() } else { Err(unread()) };
        let connect = connect.map_err(|error| connecting(&failed(error)))?;
        let this = Self::open(connect, options, false);
        this.base().login().ping().await.map_err(|error| connecting(&error))?;
        Ok(this)
    }

    /// Connections that are opened when they are needed, and kept for good where that is dear.
    pub(crate) fn open(connect: PgConnectOptions, options: &PoolOptions, for_good: bool) -> Self {
        let mut connect = connect.application_name("assembly-lime").disable_statement_logging();
        if let Some(limit) = options.statement_timeout {
            connect = connect.options([("statement_timeout", limit.as_millis().to_string())]);
        }
        let PoolOptions { max_connections, acquire_timeout, .. } = *options;
        let pool = Pool::new(PoolSettings { connect, max_connections, acquire_timeout, for_good });
        let db = Connections::new(pool, Whom::All);
        // Some are left for those who only look.
        let in_flight = usize::try_from(max_connections / 2).unwrap_or(usize::MAX).clamp(1, 4);
        let news = News::new(options.notify.then(|| db.clone()));
        let base = Base { db, news, live_poll: options.live_poll, in_flight };
        let (queue, appender) = (Lines::new(&base), Appender::new(&base));
        let (budgets, listener) = (budgets::holder(&base), Listener::default());
        Self(Arc::new(Shared { queue, appender, budgets, listener, base }))
    }

    /// Brings the tables up to date, all of them or none; of several at once, one works and the others wait.
    ///
    /// - Done as the user of the URL, who becomes the owner of what is made, on a connection of its own. The first time,
    ///   this user must be allowed to make roles (`CREATEROLE`), unless `lime_app` and `lime_system` are there.
    /// - Makes the tables of the next months' events too, as [`maintain`](PgStorage::maintain) does, and brings the
    ///   built-in roles of every tenant up to date.
    pub async fn migrate(&self) -> Result<()> {
        const OPERATION: &str = "storage.migrate";
        let known = self.migrations().await?;
        if !known.pending.is_empty() || !known.unknown.is_empty() {
            self.migrate_tables(OPERATION).await?;
        }
        self.maintain().await?;
        tenants::seed_roles(self.connection(), OPERATION, None).await.map(|_| ())
    }

    async fn migrate_tables(&self, operation: &'static str) -> Result<()> {
        let this = self.clone();
        self.detached(operation, tracing::info_span!("migrate"), async move {
            let work = async |owner: &DatabaseConnection| {
                let tx = owner.begin().await?;
                let lock = format!(
                    "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({})",
                    Self::MIGRATION_LOCK
                );
                tx.execute_unprepared(&lock).await?;
                Migrator::up(&tx, None).await?;
                tx.commit().await
            };
            this.as_owner(operation, work).await
        })
        .await
    }

    /// Does something as the user of the URL, who owns the tables, on a connection of its own.
    async fn as_owner<T>(
        &self,
        operation: &'static str,
        work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, DbErr>,
    ) -> Result<T> {
        let pool = self.connection().pool();
        let _place = pool.spare().await.map_err(|error| unnamed(operation, &error))?;
        let options = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let until = Instant::now() + pool.acquire_timeout();
        let opened = loop {
            match options.clone().connect_with(pool.connect_options().clone()).await {
                Err(error) if pool.is_starting(&error) && Instant::now() < until => {
                    sleep(Duration::from_millis(50)).await;
                }
                opened => break opened.map_err(|error| connecting(&failed(error)))?,
            }
        };
        let owner = SqlxPostgresConnector::from_sqlx_postgres_pool(opened);
        let done = work(&owner).await.map_err(|error| unnamed(operation, &error));
        if let Err(error) = owner.close().await {
            tracing::warn!(%error, "the owner's connection was not closed in order");
        }
        done
    }

    /// Does something as the owner of the tables, for tests that change them.
    #[cfg(feature = "testing")]
    pub async fn owner<T>(
        &self,
        work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, DbErr>,
    ) -> Result<T> {
        self.as_owner("storage.owner", work).await
    }

    /// Closes the connections; a call under way ends first.
    pub async fn close(&self) {
        self.0.listener.stop();
        self.connection().pool().close().await;
    }

    /// The connections, for what this crate does not do; they see every tenant.
    ///
    /// - For one tenant's rows take those of its [scope](PgStorage::connection_of): they cannot see others', whatever is asked.
    pub fn connection(&self) -> &Connections {
        &self.0.base.db
    }

    /// The connections of the scope's tenant: other tenants' rows are not there for them.
    pub fn connection_of(&self, scope: &Scope) -> Connections {
        self.base().of(scope.tenant())
    }

    pub(crate) fn base(&self) -> &Base {
        &self.0.base
    }

    pub(crate) fn queue(&self) -> &Lines {
        &self.0.queue
    }

    pub(crate) fn appender(&self) -> &Appender {
        &self.0.appender
    }

    pub(crate) fn budgets(&self) -> &Holder {
        &self.0.budgets
    }

    pub(crate) fn news(&self) -> &News {
        &self.0.base.news
    }

    /// Begins to hear what other processes tell, unless it does so already.
    pub(crate) fn listen(&self) {
        self.0.listener.start(self.news(), self.connection());
    }

    /// Whether it hears what other processes tell; otherwise look from time to time.
    pub(crate) fn is_listening(&self) -> bool {
        self.0.listener.is_up()
    }

    /// Begins a transaction that sees all tenants.
    pub(crate) async fn begin(&self, operation: &'static str) -> Result<Transaction> {
        self.0.base.begin(operation).await
    }

    /// Begins a transaction of one tenant.
    pub(crate) async fn begin_as(&self, tenant: Id<Tenant>, operation: &'static str) -> Result<Transaction> {
        self.base().begin_as(tenant, operation).await
    }

    /// Runs a transaction to its end even if nobody waits for it any more.
    ///
    /// - So a call is done or not done: whoever is told of a commit that was made is never cut off in between.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        operation: &'static str,
        span: Span,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(work.instrument(span)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                operation,
                "the runtime is shutting down; start it again",
            )),
        }
    }
}

pub(crate) async fn commit(operation: &'static str, tx: Transaction) -> Result<()> {
    tx.commit().await.map_err(|error| unnamed(operation, &error))
}

fn unread() -> SqlxError {
    SqlxError::Configuration("the scheme is not that of PostgreSQL".into())
}

fn failed(error: SqlxError) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

pub(crate) fn sql(text: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, text, values)
}

/// The span of one operation on one table.
pub(crate) fn span(operation: &'static str, tenant: Id<Tenant>, table: &'static str) -> Span {
    tracing::debug_span!("storage", operation, %tenant, table)
}
