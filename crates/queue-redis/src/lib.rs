//! The queue and the live events of Assembly Lime on Redis, for fleets of workers.
//!
//! A [`RedisQueue`] stands before any [`Storage`](lime_core::ports::Storage) and is one itself. What is stored stays
//! in the storage inside, which remains the one truth; Redis changes two things:
//!
//! - **How runs reach workers.** Workers do not ask the database for runs. They ask a [relay](RedisQueue::relay),
//!   which takes for all of them at once and puts what it took into a line in Redis. An attempt begins in the
//!   database, so a run can neither be lost nor begun twice, whatever Redis does.
//! - **How events reach subscribers.** What is appended in one process is seen in every other at once, pieces of
//!   messages in the making too. What is missed is read from the log.
//!
//! Redis holds nothing that cannot be lost: it needs no persistence, and may be emptied or restarted at any time.
//! [`RedisLine`] is the line alone.
//!
//! ```no_run
//! use std::sync::Arc;
//! use lime_core::memory::MemoryStorage;
//! use lime_queue_redis::{RedisOptions, RedisQueue};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> lime_core::Result<()> {
//! let storage = Arc::new(MemoryStorage::default());
//! let storage = RedisQueue::new(storage, "redis://127.0.0.1:6379", RedisOptions::default())?;
//! let relay = storage.clone();
//! tokio::spawn(async move { relay.relay().await });
//! // `storage` is what the engine works on.
//! # Ok(())
//! # }
//! ```

mod backoff;
mod demand;
mod desk;
mod ear;
mod entry;
mod feed;
mod inside;
mod kind;
mod line;
mod link;
mod news;
mod options;
mod queue;
mod relay;
mod storage;
mod voice;
mod words;

pub use line::RedisLine;
pub use options::RedisOptions;
pub use storage::RedisQueue;
