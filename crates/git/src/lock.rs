//! Locks between processes.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lime_core::{Error, ErrorKind, Result};

use crate::failure;

/// The longest wait for a lock, a little more than what its holder may do: 35 min.
const LOCK_LIMIT: Duration = Duration::from_secs(2_100);

/// How often a lock that is held is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// A lock on a file, held until it is dropped; the operating system frees it when its process dies.
///
/// - The file also keeps a time, for what was last done under the lock.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Waits for the lock, without blocking a thread.
    pub(crate) async fn take(operation: &'static str, path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| failure::io(operation, "the lock cannot be opened", path, error))?;
        let wait = async {
            loop {
                match file.try_lock() {
                    Ok(()) => return Ok(()),
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
                    Err(TryLockError::Error(error)) => {
                        return Err(failure::io(operation, "the lock cannot be taken", path, error));
                    }
                }
            }
        };
        tokio::time::timeout(LOCK_LIMIT, wait).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, operation, "another worker holds the lock for too long")
                .with("path", path.display())
        })??;
        Ok(Self(file))
    }

    /// The time that was written last; none, if there is none that can be read.
    pub(crate) fn time(&mut self) -> Option<SystemTime> {
        let mut text = String::new();
        self.0.rewind().ok()?;
        (&self.0).take(32).read_to_string(&mut text).ok()?;
        UNIX_EPOCH.checked_add(Duration::from_nanos(text.parse().ok()?))
    }

    /// Writes a time.
    pub(crate) fn set_time(&mut self, time: SystemTime) -> std::io::Result<()> {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.0.set_len(0)?;
        self.0.rewind()?;
        write!(self.0, "{nanos}")
    }
}
