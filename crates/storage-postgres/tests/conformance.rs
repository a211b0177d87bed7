//! The behaviour that every storage has, on a server and embedded; each test has a database of its own.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

mod server {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;

    use crate::support::Fresh;

    thread_local! {
        /// The database of the test that runs on this thread; it is dropped with it.
        static KEPT: RefCell<Option<Fresh>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let fresh = Fresh::create().await?;
        let subject = Arc::new(fresh.migrated().await);
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
    use lime_storage_postgres::Embedded;

    thread_local! {
        static KEPT: RefCell<Option<Embedded>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let embedded = Embedded::temporary().await.unwrap();
        let subject = Arc::new(embedded.storage());
        KEPT.set(Some(embedded));
        Some(subject)
    }

    lime_conformance::storage_suite!(subject());
}
