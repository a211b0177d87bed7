//! What runs leave behind at the head of the line.

use std::sync::atomic::{AtomicUsize, Ordering};

use sea_orm::ConnectionTrait;

use crate::error::unnamed;
use crate::storage::Base;

/// How many runs have been taken since the line was last swept of what they leave.
///
/// - Each leaves a dead entry at the head of the index that a take begins with, and a dead lease, and each take passes
///   over all of them. The server's own vacuum comes every minute at best, in which a fleet may take a million.
#[derive(Debug, Default)]
pub(super) struct Dust(AtomicUsize);

impl Dust {
    /// So many dead entries are passed over in well under a ms, and taken away in about twenty.
    const MOST: usize = 20_000;

    /// Counts runs that were taken; has the line swept now and then, in a task of its own.
    pub(super) fn settle(&self, base: &Base, taken: usize) {
        if self.0.fetch_add(taken, Ordering::Relaxed) + taken < Self::MOST {
            return;
        }
        self.0.store(0, Ordering::Relaxed);
        let db = base.login();
        tokio::spawn(async move {
            // If another process is at it, that will do. Only who owns the tables may; for others the server warns.
            let vacuum = "VACUUM (SKIP_LOCKED, INDEX_CLEANUP ON, TRUNCATE OFF) run_queue, run_leases";
            if let Err(error) = db.execute_unprepared(vacuum).await {
                let error = unnamed("queue.vacuum", &error);
                tracing::debug!(%error, "the line is left to the server's own vacuum");
            }
        });
    }
}
