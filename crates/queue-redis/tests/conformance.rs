//! A Redis before a storage changes nothing of what the storage promises; with a relay, and without.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

mod with_a_relay {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;
    use lime_core::memory::MemoryStorage;

    use crate::support::Place;

    thread_local! {
        /// The place of the test that runs on this thread; it is cleared away with it.
        static KEPT: RefCell<Option<Place>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let mut place = Place::new().await?;
        let queue = place.queue(&Arc::new(MemoryStorage::default()));
        place.relay(&queue).await;
        KEPT.set(Some(place));
        Some(Arc::new(queue))
    }

    lime_conformance::storage_suite!(subject());
}

mod without_a_relay {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;
    use lime_core::memory::MemoryStorage;
    use lime_core::ports::Storage;

    use crate::support::Place;

    thread_local! {
        static KEPT: RefCell<Option<Place>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let place = Place::new().await?;
        let inner: Arc<dyn Storage> = Arc::new(MemoryStorage::default());
        let queue = place.queue(&inner);
        KEPT.set(Some(place));
        Some(Arc::new(queue))
    }

    lime_conformance::storage_suite!(subject());
}

mod before_a_database {
    use std::cell::RefCell;
    use std::sync::Arc;

    use lime_conformance::scene::Subject;

    use crate::support::Place;
    use lime_storage_postgres::{PgStorage, PoolOptions, TestDatabase};

    thread_local! {
        static KEPT: RefCell<Option<(Place, TestDatabase)>> = const { RefCell::new(None) };
    }

    async fn subject() -> Option<Subject> {
        let (mut place, fresh) =
            (Place::new().await?, lime_conformance::or_skip(TestDatabase::migrated().await)?);
        let storage = PgStorage::connect(fresh.url(), &PoolOptions::default()).await.unwrap();
        let queue = place.queue(&Arc::new(storage));
        place.relay(&queue).await;
        KEPT.set(Some((place, fresh)));
        Some(Arc::new(queue))
    }

    lime_conformance::storage_suite!(subject());
}
