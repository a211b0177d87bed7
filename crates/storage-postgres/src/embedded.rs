//! A whole PostgreSQL in the process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lime_core::{Error, ErrorKind, Result};
use pglite_oxide::{PgliteServer, extensions};
use sea_orm::sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use crate::error::unnamed;
use crate::{PgStorage, PoolOptions};

/// A PostgreSQL 17 in the process (PGlite on WebAssembly, by `pglite-oxide`), with its data in a folder.
///
/// - [`open`](Embedded::open) gives a working, migrated database; the first one on a machine unpacks the program
///   into the user's cache folder.
/// - It is one connection: calls wait for each other, so keep it to one person's work, and give teams a server.
/// - What is committed survives a killed process, not a power cut: `pglite-oxide` 0.5.1 runs without `fsync`, and its
///   file system cannot sync a folder, so `fsync` cannot be turned on. Data that must outlive the machine go to a server.
/// - Use it on the runtime that it was opened on. Its engine has a thread of its own, and never blocks the runtime.
/// - The folder is one process's at a time; it is free again once this is dropped and every clone of its storage too.
/// - The folder's data belong to this version of `pglite-oxide`; another one may ask for a dump and restore.
#[derive(Debug)]
pub struct Embedded {
    storage: PgStorage,
    engine: Option<Engine>,
}

/// What runs the database; dropped in this order, and only where it may block.
#[derive(Debug)]
struct Engine {
    server: PgliteServer,
    _lock: File,
    _folders: Vec<TempDir>,
}

impl Embedded {
    /// How long a call waits for its turn: the first connection starts the engine, and each waits for those before.
    const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(120);
    /// The longest path of a socket that every Unix takes; some take a few bytes more.
    #[cfg(unix)]
    const MAX_SOCKET_PATH: usize = 100;

    /// Opens the database in a folder, and makes both where they are missing.
    ///
    /// - Fails with `Conflict` while another process, or another `Embedded`, has it open; with `PermissionDenied` if
    ///   the folder cannot be written. What a killed process left behind is cleared away.
    pub async fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        Self::start(folder.into(), Vec::new()).await
    }

    /// Opens an empty database in a temporary folder, which goes when it is dropped.
    pub async fn temporary() -> Result<Self> {
        let folder = TempDir::with_prefix("lime-")
            .map_err(|error| refused(Path::new("the temporary folder"), error))?;
        Self::start(folder.path().to_owned(), vec![folder]).await
    }

    /// The storage; clones of it share the one connection.
    pub fn storage(&self) -> PgStorage {
        self.storage.clone()
    }

    /// Stops the engine and waits until the folder is free.
    ///
    /// - Calls on the storage fail as unavailable from then on.
    pub async fn close(mut self) -> Result<()> {
        self.storage.close().await;
        let Some(engine) = self.engine.take() else { return Ok(()) };
        let stopped = tokio::task::spawn_blocking(move || drop(engine)).await;
        stopped.map_err(|_| {
            Error::new(ErrorKind::Unexpected, "embedded.close", "the engine could not be stopped")
        })
    }

    async fn start(folder: PathBuf, folders: Vec<TempDir>) -> Result<Self> {
        const OPERATION: &str = "embedded.open";
        let starting = tokio::task::spawn_blocking(move || Engine::start(&folder, folders)).await;
        let crashed = |_| Error::new(ErrorKind::Unexpected, OPERATION, "the engine crashed while it started");
        let engine = starting.map_err(crashed)??;
        let unread = |_| Error::new(ErrorKind::Unexpected, OPERATION, "the engine's address cannot be read");
        let connect = engine.url().parse::<PgConnectOptions>();
        let options = PoolOptions {
            max_connections: 1,
            acquire_timeout: Self::ACQUIRE_TIMEOUT,
            statement_timeout: None,
            notify: false,
            ..PoolOptions::default()
        };
        // One connection for good: another one would start another engine.
        let opened = connect.map_err(unread).map(|connect| PgStorage::open(connect, &options, true));
        // From here on the engine is dropped off the runtime, whatever happens.
        let this = opened.map(|storage| Self { storage, engine: Some(engine) })?;
        this.storage.migrate().await?;
        // The one connection, which clones of the storage keep.
        this.storage.connection().ping().await.map_err(|error| unnamed(OPERATION, &error))?;
        Ok(this)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            // It ends with its last client, which a clone of the storage may be; that must not block a runtime.
            std::thread::spawn(move || drop(engine));
        }
    }
}

impl Engine {
    fn start(folder: &Path, mut folders: Vec<TempDir>) -> Result<Self> {
        const OPERATION: &str = "embedded.open";
        make_private(folder).map_err(|error| refused(folder, error))?;
        let lock = lock(folder)?;
        let builder = PgliteServer::builder().path(folder).extension(extensions::CITEXT);
        #[cfg(unix)]
        let builder = builder.unix(socket(folder, &mut folders)?);
        let server = builder.start().map_err(|error| {
            let message = "the embedded database could not be started";
            Error::new(ErrorKind::Unavailable, OPERATION, message)
                .with("folder", folder.display())
                .because(error)
        })?;
        Ok(Self { server, _lock: lock, _folders: folders })
    }

    fn url(&self) -> String {
        #[cfg(unix)]
        if let Some(parent) = self.server.socket_path().and_then(Path::parent) {
            let host = percent_encoded(&parent.to_string_lossy());
            return format!("postgres://postgres@localhost/template1?host={host}&sslmode=disable");
        }
        self.server.database_url()
    }
}

/// Takes the folder for this process; the operating system gives it back when the process ends, however it does.
fn lock(folder: &Path) -> Result<File> {
    const OPERATION: &str = "embedded.open";
    let path = folder.join("lime.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| refused(folder, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = "another process has this database open; end it, or use another folder";
            Err(Error::new(ErrorKind::Conflict, OPERATION, message).with("folder", folder.display()))
        }
        Err(TryLockError::Error(error)) => Err(refused(folder, error)),
    }
}

/// Where the engine listens: in the folder, or in a private temporary one if that path is too long for a socket.
#[cfg(unix)]
fn socket(folder: &Path, folders: &mut Vec<TempDir>) -> Result<PathBuf> {
    const NAME: &str = ".s.PGSQL.5432";
    let absolute = std::path::absolute(folder).map_err(|error| refused(folder, error))?;
    let inside = absolute.join("socket").join(NAME);
    if inside.as_os_str().len() <= Embedded::MAX_SOCKET_PATH && inside.to_str().is_some() {
        make_private(&absolute.join("socket")).map_err(|error| refused(folder, error))?;
        return Ok(inside);
    }
    let outside = TempDir::with_prefix("lime-").map_err(|error| refused(&std::env::temp_dir(), error))?;
    let path = outside.path().join(NAME);
    folders.push(outside);
    Ok(path)
}

/// Makes a folder that only its owner can enter: there is no password on the socket in it.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn refused(folder: &Path, error: io::Error) -> Error {
    const OPERATION: &str = "embedded.open";
    let (kind, message) = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            "the folder cannot be written; change its owner, or use another one",
        ),
        _ => (ErrorKind::Invalid, "the folder cannot be used for a database"),
    };
    Error::new(kind, OPERATION, message).with("folder", folder.display()).because(error)
}

#[cfg(unix)]
fn percent_encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~');
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
