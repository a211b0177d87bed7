//! The behaviour that every storage has, on a server and embedded; each test has a database of its own.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

mod server {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;
    use lime_storage_postgres::TestDatabase;

    use crate::support::{database, open};

    thread_local! {
        /// The database of the test that runs on this thread; it is dropped with it.
        static KEPT: RefCell<Option<TestDatabase>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let fresh = database().await?;
        let subject = Arc::new(open(&fresh).await);
        KEPT.set(Some(fresh));
        Some(subject)
    }

    lime_conformance::storage_suite!(subject());
}

#[cfg(feature = "embedded")]
mod embedded {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;

    use crate::support::copies::Copy;

    thread_local! {
        static KEPT: RefCell<Option<Copy>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let copy = Copy::open().await;
        let subject = Arc::new(copy.embedded.storage());
        KEPT.set(Some(copy));
        Some(subject)
    }

    lime_conformance::storage_suite!(subject());
}
