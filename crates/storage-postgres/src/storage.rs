use std::sync::Arc;
use std::time::Duration;

use lime_core::identity::Tenant;
use lime_core::{Error, ErrorKind, Id, LiveHub, Result};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, Statement,
    TransactionTrait, Value,
};
use sea_orm_migration::MigratorTrait;
use tracing::{Instrument, Span};

use crate::Migrator;
use crate::budgets::{self, Holder};
use crate::error::connecting;
use crate::events::Appender;
use crate::listen::Listener;
use crate::news::News;
use crate::queue::Lines;
use crate::retention;

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
    pub(crate) db: DatabaseConnection,
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
    /// they find it when they look. Put it off behind a pooler that gives a connection for a transaction only.
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
    pub(crate) async fn begin(&self, operation: &'static str) -> Result<DatabaseTransaction> {
        self.db.begin().await.map_err(|error| crate::error::unnamed(operation, &error))
    }
}

impl PgStorage {
    /// A connection that has been idle for longer than this is tested before it is used again.
    const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);
    /// Lets one migrator at a time through: "lime" in ASCII, as good as any other number.
    pub(crate) const MIGRATION_LOCK: i64 = 0x6c69_6d65;

    /// Connects to a server, such as `postgres://user:password@host/database`.
    ///
    /// - Fails with `Invalid` for a URL that is none, `Unauthenticated` for a wrong password, `Missing` for a
    ///   missing database, `Unavailable` if nobody answers. The URL is in no error and no log.
    pub async fn connect(url: &str, options: &PoolOptions) -> Result<Self> {
        let mut connect = ConnectOptions::new(url);
        if let Some(limit) = options.statement_timeout {
            connect.statement_timeout(limit);
        }
        connect.test_before_acquire_if_idle_for(Self::TEST_AFTER_IDLE);
        Self::open(connect, options).await
    }

    pub(crate) async fn open(mut connect: ConnectOptions, options: &PoolOptions) -> Result<Self> {
        connect
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .sqlx_logging(false)
            .set_application_name("assembly-lime");
        let db = Database::connect(connect).await.map_err(|error| connecting(&error))?;
        // Some are left for those who only look.
        let in_flight = usize::try_from(options.max_connections / 2).unwrap_or(usize::MAX).clamp(1, 4);
        let news = News::new(options.notify.then(|| db.clone()));
        let base = Base { db, news, live_poll: options.live_poll, in_flight };
        let (queue, appender) = (Lines::new(&base), Appender::new(&base));
        let (budgets, listener) = (budgets::holder(&base), Listener::default());
        Ok(Self(Arc::new(Shared { queue, appender, budgets, listener, base })))
    }

    /// Brings the tables up to date, all of them or none; of several at once, one works and the others wait.
    ///
    /// - Makes the tables of the next months' events too, as [`maintain`](PgStorage::maintain) does.
    pub async fn migrate(&self) -> Result<()> {
        const OPERATION: &str = "storage.migrate";
        let this = self.clone();
        self.detached(OPERATION, tracing::info_span!("migrate"), async move {
            let tx = this.begin(OPERATION).await?;
            let run = async {
                let lock = format!(
                    "SET LOCAL statement_timeout = 0; SELECT pg_advisory_xact_lock({})",
                    Self::MIGRATION_LOCK
                );
                tx.execute_unprepared(&lock).await?;
                Migrator::up(&tx, None).await?;
                retention::add_months(&tx).await
            };
            run.await.map_err(|error| crate::error::unnamed(OPERATION, &error))?;
            commit(OPERATION, tx).await
        })
        .await
    }

    /// Closes the connections; a call under way ends first.
    pub async fn close(&self) {
        self.0.listener.stop();
        if let Err(error) = self.connection().close_by_ref().await {
            tracing::warn!(%error, "the connections could not be closed");
        }
    }

    /// The connections, for what this crate does not do.
    ///
    /// - They see every tenant. A future that begins a transaction must not be dropped: spawn it.
    pub fn connection(&self) -> &DatabaseConnection {
        &self.0.base.db
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

    pub(crate) async fn begin(&self, operation: &'static str) -> Result<DatabaseTransaction> {
        self.0.base.begin(operation).await
    }

    /// Runs a transaction to its end even if nobody waits for it any more.
    ///
    /// - A future that is dropped while `BEGIN` is under way would leave its connection inside a transaction that
    ///   nobody knows of (sqlx 0.9.0: the guard in `PgTransactionManager::begin` rolls back only from depth 1), and
    ///   what the next one writes on it would never be committed.
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

pub(crate) async fn commit(operation: &'static str, tx: DatabaseTransaction) -> Result<()> {
    tx.commit().await.map_err(|error| crate::error::unnamed(operation, &error))
}

pub(crate) fn sql(text: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, text, values)
}

/// The span of one operation on one table.
pub(crate) fn span(operation: &'static str, tenant: Id<Tenant>, table: &'static str) -> Span {
    tracing::debug_span!("storage", operation, %tenant, table)
}
