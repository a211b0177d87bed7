use async_trait::async_trait;

use super::{Sealed, TenantKey};
use crate::{Editable, Field, Id, Result, Scope, Store, Stored};

/// An entity with sealed columns.
///
/// - Its id is part of what its values are bound to, so it is [drawn](SealedStore::draw_id) before they are sealed.
pub trait Sealing: Editable {
    /// The data key that its values are sealed with, all with the same one.
    const SEALED_WITH: Field<Self, Id<TenantKey>>;

    /// Each sealed column that has a value, by its name.
    fn sealed_mut(&mut self) -> Vec<(&'static str, &mut Sealed)>;
}

/// Stores entities with sealed columns, as they are: it has no key, and opens nothing.
///
/// - What is sealed with a data key holds that key back: a key in use cannot be deleted, and what is sealed with one that
///   is gone is refused with [`Invalid`](crate::ErrorKind::Invalid).
#[async_trait]
pub trait SealedStore<E: Sealing>: Store<E> {
    /// An id for a row to come, which no other row of the table gets.
    async fn draw_id(&self, scope: &Scope) -> Result<Id<E>>;

    /// Stores a value under an id that was drawn for it.
    ///
    /// - Fails as `insert` does, and with [`AlreadyExists`](crate::ErrorKind::AlreadyExists) if the id was used.
    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>>;
}
