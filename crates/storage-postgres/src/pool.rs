//! Connections that belong to somebody: each serves one tenant, or all of them, and says so to the database before it is
//! lent. What belongs to another tenant is not there for it, whatever a statement asks (row-level security).
//!
//! - sqlx's own pool cannot do that: it lends any connection to anybody, and has no place to note whom one serves. Who it
//!   serves is told once and kept, so a tenant whose calls follow each other pays nothing for it, and one round trip where
//!   the tenant changes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lime_core::Id;
use lime_core::identity::Tenant;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgDatabaseError, PgSeverity};
use sea_orm::sqlx::{self, ConnectOptions, Connection, PgConnection};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Whom a connection serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// One tenant: it sees no other's rows.
    Tenant(Id<Tenant>),
    /// All tenants: the line, the log, authentication and operators.
    All,
    /// Nobody but whoever logged in, before there are roles to serve in.
    Login,
}

impl Whom {
    /// The role, and the tenant that the policies of its tables compare with.
    fn settings(self) -> (&'static str, String) {
        match self {
            Self::Tenant(tenant) => ("lime_app", tenant.to_string()),
            Self::All => ("lime_system", String::new()),
            Self::Login => ("none", String::new()),
        }
    }
}

/// How connections are opened and kept.
#[derive(Clone)]
pub(crate) struct PoolSettings {
    pub(crate) connect: PgConnectOptions,
    pub(crate) max_connections: u32,
    pub(crate) acquire_timeout: Duration,
    /// Whether they are kept for good, and never tested: opening another one is dear.
    pub(crate) for_good: bool,
}

/// Connections, which are lent for as long as a statement or a transaction lasts.
///
/// - Who waits for one is served in turn.
/// - One that was let go in the middle of something is brought in order first, in a task; nobody else ever sees an
///   unfinished transaction.
pub(crate) struct Pool {
    settings: PoolSettings,
    places: Arc<Semaphore>,
    /// Those that nobody uses, the last used at the end.
    idle: Mutex<Vec<Live>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size())
            .field("idle", &self.idle_len())
            .finish_non_exhaustive()
    }
}

/// An open connection.
struct Live {
    connection: PgConnection,
    /// Whom it is known to serve; unknown, while it is being told.
    whom: Option<Whom>,
    opened: Instant,
    used: Instant,
}

impl Pool {
    /// One that has been idle for longer is tested before it is lent.
    const TEST_AFTER_IDLE: Duration = Duration::from_secs(30);
    /// One that has been idle for longer is closed, and so is one
    const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
    /// that is older than this: it may have grown, or a server behind the address may be gone.
    const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
    /// How long one may take to be brought in order; then it is closed.
    const MEND: Duration = Duration::from_secs(5);
    /// How long to wait before a server that refuses connections is tried again, at first.
    const FIRST_PAUSE: Duration = Duration::from_millis(10);

    pub(crate) fn new(settings: PoolSettings) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(most(&settings)));
        Arc::new(Self { settings, places, idle: Mutex::default() })
    }

    /// How many connections may be open.
    pub(crate) fn most(&self) -> usize {
        most(&self.settings)
    }

    pub(crate) fn connect_options(&self) -> &PgConnectOptions {
        &self.settings.connect
    }

    pub(crate) fn acquire_timeout(&self) -> Duration {
        self.settings.acquire_timeout
    }

    /// How many connections are lent or idle.
    pub(crate) fn size(&self) -> usize {
        self.most().saturating_sub(self.places.available_permits()) + self.idle_len()
    }

    /// How many connections are idle.
    pub(crate) fn idle_len(&self) -> usize {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Lends a connection that serves somebody.
    pub(crate) async fn lend(self: &Arc<Self>, whom: Whom) -> Result<Lent, DbErr> {
        let patience = self.settings.acquire_timeout;
        match timeout(patience, self.find(whom, Instant::now() + patience)).await {
            Ok(found) => found,
            Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)),
        }
    }

    async fn find(self: &Arc<Self>, whom: Whom, until: Instant) -> Result<Lent, DbErr> {
        let place = self.places.clone().acquire_owned().await;
        let mut place = place.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))?;
        while let Some(live) = self.pick(whom) {
            let is_old = !self.settings.for_good && live.opened.elapsed() > Self::MAX_LIFETIME;
            let mut lent = Lent::new(self.clone(), live, place);
            if is_old {
                place = lent.give_up().await;
                continue;
            }
            match lent.serve(whom).await {
                Ok(()) => return Ok(lent),
                // What the server refuses to one, it refuses to the next.
                Err(error) if lent.state != State::IsBroken => return Err(refused(error)),
                Err(error) => {
                    tracing::debug!(%error, "an idle connection was lost");
                    place = lent.give_up().await;
                }
            }
        }
        let mut lent = Lent::new(self.clone(), self.open(until).await?, place);
        lent.serve(whom).await.map_err(refused)?;
        Ok(lent)
    }

    /// The idle one that serves them already; otherwise the one that nobody has used for the longest time.
    fn pick(&self, whom: Whom) -> Option<Live> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let at = idle.iter().rposition(|live| live.whom == Some(whom)).or((!idle.is_empty()).then_some(0))?;
        Some(idle.remove(at))
    }

    async fn open(&self, until: Instant) -> Result<Live, DbErr> {
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let error = match self.settings.connect.connect().await {
                Ok(connection) => return Ok(Live::new(connection)),
                Err(error) => error,
            };
            if !self.is_starting(&error) {
                return Err(DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error))));
            }
            let left = until.saturating_duration_since(Instant::now());
            sleep(pause).await;
            pause = (pause * 2).min(left / 5);
        }
    }

    /// Whether a server that could not be connected to is about to be there.
    ///
    /// - An engine of one connection resets the next one for as long as it is ending the one before.
    pub(crate) fn is_starting(&self, error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Io(io) => match io.kind() {
                std::io::ErrorKind::ConnectionRefused => true,
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof => self.settings.for_good,
                _ => false,
            },
            sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
            _ => false,
        }
    }

    fn give_back(&self, mut live: Live, place: OwnedSemaphorePermit) {
        live.used = Instant::now();
        if self.places.is_closed() {
            return live.close(None);
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(live);
        if !self.settings.for_good && idle[0].used.elapsed() > Self::IDLE_TIMEOUT {
            idle.remove(0).close(None);
        }
        drop((idle, place));
    }

    /// A place for a connection that somebody else opens; one of those that nobody uses makes room for it.
    pub(crate) async fn spare(&self) -> Result<OwnedSemaphorePermit, DbErr> {
        let place = timeout(self.settings.acquire_timeout, self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        let place = place.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))?;
        if let Some(live) = self.pick(Whom::Login) {
            _ = timeout(Self::MEND, live.connection.close()).await;
        }
        Ok(place)
    }

    /// Lends nothing more, and waits until all that was lent has come back and is closed.
    pub(crate) async fn close(&self) {
        let all = self.places.acquire_many(u32::try_from(self.most()).unwrap_or(u32::MAX)).await;
        self.places.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for live in idle {
            if let Err(error) = live.connection.close().await {
                tracing::debug!(%error, "a connection was not closed in order");
            }
        }
    }
}

fn most(settings: &PoolSettings) -> usize {
    usize::try_from(settings.max_connections)
        .unwrap_or(Semaphore::MAX_PERMITS)
        .clamp(1, Semaphore::MAX_PERMITS)
}

/// The error of a connection that could not be made to serve somebody.
fn refused(error: sqlx::Error) -> DbErr {
    DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
}

impl Live {
    fn new(connection: PgConnection) -> Self {
        let now = Instant::now();
        Self { connection, whom: None, opened: now, used: now }
    }

    /// Closes it in a task, and frees its place then.
    fn close(self, place: Option<OwnedSemaphorePermit>) {
        let closing = async move {
            _ = timeout(Pool::MEND, self.connection.close()).await;
            drop(place);
        };
        // Without a runtime there is nobody left to lend it to.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(closing);
        }
    }
}

/// A connection that is lent; dropped, it goes back.
pub(crate) struct Lent {
    pool: Arc<Pool>,
    /// There until it is dropped.
    live: Option<(Live, OwnedSemaphorePermit)>,
    state: State,
}

/// What a lent connection is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing.
    Rests,
    /// A statement whose answer is not read, or a transaction.
    IsBusy,
    /// It is lost.
    IsBroken,
}

const THERE: &str = "it is there until it is dropped";

impl Lent {
    fn new(pool: Arc<Pool>, live: Live, place: OwnedSemaphorePermit) -> Self {
        Self { pool, live: Some((live, place)), state: State::Rests }
    }

    /// Sees to it that the coming statements are for somebody, and that it is still there.
    async fn serve(&mut self, whom: Whom) -> Result<(), sqlx::Error> {
        const SERVE: &str = "SELECT set_config('role', $1, false), set_config('lime.tenant', $2, false)";
        let (live, _) = self.live.as_mut().expect(THERE);
        if !self.pool.settings.for_good && live.used.elapsed() > Pool::TEST_AFTER_IDLE {
            self.statement(async |connection| connection.ping().await).await?;
        }
        let (live, _) = self.live.as_mut().expect(THERE);
        // Until it has answered nobody knows whom it serves: who is cut off here leaves it unknown.
        if live.whom.take() == Some(whom) {
            live.whom = Some(whom);
            return Ok(());
        }
        let (role, tenant) = whom.settings();
        let told = sqlx::query(SERVE).bind(role).bind(tenant);
        self.statement(async |connection| told.execute(connection).await).await?;
        self.live.as_mut().expect(THERE).0.whom = Some(whom);
        Ok(())
    }

    /// Closes it; gives its place.
    async fn give_up(mut self) -> OwnedSemaphorePermit {
        let (live, place) = self.live.take().expect(THERE);
        _ = timeout(Pool::MEND, live.connection.close()).await;
        place
    }

    /// Does something with it that leaves it as it was.
    pub(crate) async fn statement<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let before = self.state;
        let done = self.begin(work).await;
        if self.state == State::IsBusy {
            self.state = before;
        }
        done
    }

    /// Does something with it after which it is in the middle of something.
    pub(crate) async fn begin<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let (live, _) = self.live.as_mut().expect(THERE);
        self.state = State::IsBusy;
        let done = work(&mut live.connection).await;
        if done.as_ref().is_err_and(ends_the_connection) {
            self.state = State::IsBroken;
        }
        done
    }

    /// Says that it is in the middle of nothing any more.
    pub(crate) fn rest(&mut self) {
        if self.state == State::IsBusy {
            self.state = State::Rests;
        }
    }
}

/// Whether a connection cannot be used any more after an error: it broke, or the server has ended it.
fn ends_the_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        // About what was given or read.
        sqlx::Error::RowNotFound
        | sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. } => false,
        _ => true,
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some((mut live, place)) = self.live.take() else { return };
        match self.state {
            State::Rests => self.pool.give_back(live, place),
            State::IsBusy => {
                let pool = self.pool.clone();
                let mend = async move {
                    // What it was in the middle of is read to its end by the driver first. Outside of a transaction it
                    // does nothing.
                    let mending = sqlx::raw_sql("ROLLBACK").execute(&mut live.connection);
                    let patience = if pool.settings.for_good { Duration::MAX } else { Pool::MEND };
                    match timeout(patience, mending).await {
                        Ok(Ok(_)) => pool.give_back(live, place),
                        _ => live.close(Some(place)),
                    }
                };
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(mend);
                }
            }
            State::IsBroken => live.close(Some(place)),
        }
    }
}
