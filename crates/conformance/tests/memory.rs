//! The in-memory storage passes the suite that the database passes.

use std::sync::Arc;

use lime_conformance::scene::Subject;
use lime_core::memory::MemoryStorage;

async fn fresh() -> Option<Subject> {
    Some(Arc::new(MemoryStorage::default()))
}

lime_conformance::storage_suite!(crate::fresh());
