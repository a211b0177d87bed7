//! The generic stores: look up, insert, update, delete.

use async_trait::async_trait;

use crate::{Condition, Editable, Entity, Id, Result, Scope, Stored};

/// Finds the stored values of one entity.
///
/// - A value of another tenant and a value that is missing are the same [`NotFound`](crate::ErrorKind::NotFound).
#[async_trait]
pub trait Lookup<E: Entity>: Send + Sync {
    /// The one with this id.
    ///
    /// - Fails with `NotFound`.
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>>;

    /// A page of those that meet every condition of the query, in the order of their ids.
    ///
    /// - Pages never skip or repeat a value that is there the whole time.
    /// - A query that matches nothing gives an empty page.
    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>>;
}

/// Keeps the values of one entity.
///
/// - A value that breaks a rule of its entity is refused with [`Invalid`](crate::ErrorKind::Invalid), one that
///   repeats a unique value with [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
/// - A reference to what is missing, or another tenant's, is [`Invalid`](crate::ErrorKind::Invalid) too.
/// - Under a [fenced](Scope::fenced) scope every write fails with
///   [`StaleLease`](crate::ErrorKind::StaleLease), and changes nothing, once the lease is lost.
#[async_trait]
pub trait Store<E: Editable>: Lookup<E> {
    /// Keeps a new value, at version 1.
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>>;

    /// Replaces a value, if nobody has since it was read.
    ///
    /// - Gives the value back with the next version.
    /// - Fails with [`Conflict`](crate::ErrorKind::Conflict) if the version is no longer the newest, with
    ///   `NotFound` if it is gone.
    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>>;

    /// Deletes a value, if nobody has changed it since it was read.
    ///
    /// - What belongs to it goes too, or holds it back with `Conflict`, as its entity's references say.
    /// - Fails as `update` does.
    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()>;
}

/// Conveniences over [`Lookup`].
#[async_trait]
pub trait LookupExt<E: Entity>: Lookup<E> {
    /// The first that meets the conditions, if any.
    async fn find(&self, scope: &Scope, query: Query<E>) -> Result<Option<Stored<E>>> {
        Ok(self.list(scope, &query.limit(1)).await?.items.pop())
    }

    /// All that meet the conditions, page by page.
    ///
    /// - For sets that are small by nature (the steps of a run, the boards of a project); a page at a time
    ///   otherwise.
    async fn all(&self, scope: &Scope, query: Query<E>) -> Result<Vec<Stored<E>>> {
        let mut query = query.limit(Query::<E>::MAX_LIMIT);
        let mut all = Vec::new();
        loop {
            let page = self.list(scope, &query).await?;
            all.extend(page.items);
            match page.next {
                Some(after) => query = query.after(after),
                None => return Ok(all),
            }
        }
    }
}

impl<E: Entity, L: Lookup<E> + ?Sized> LookupExt<E> for L {}

/// Which values to list, in which order, and how many.
#[derive(Debug, Clone)]
pub struct Query<E> {
    conditions: Vec<Condition<E>>,
    among: Option<Vec<Id<E>>>,
    newest_first: bool,
    limit: usize,
    after: Option<Id<E>>,
}

impl<E> Default for Query<E> {
    fn default() -> Self {
        Self {
            conditions: Vec::new(),
            among: None,
            newest_first: false,
            limit: Self::DEFAULT_LIMIT,
            after: None,
        }
    }
}

impl<E> Query<E> {
    /// How many values a page has unless told.
    pub const DEFAULT_LIMIT: usize = 100;
    /// How many values a page has at most; a greater limit is cut to it.
    pub const MAX_LIMIT: usize = 500;

    /// Every value, oldest first.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those that also meet this condition.
    #[must_use]
    pub fn filter(mut self, condition: Condition<E>) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Those that also have one of these ids; called again, those that are in both.
    #[must_use]
    pub fn among(mut self, ids: impl IntoIterator<Item = Id<E>>) -> Self {
        let mut ids: Vec<_> = ids.into_iter().collect();
        if let Some(before) = self.among {
            ids.retain(|id| before.contains(id));
        }
        self.among = Some(ids);
        self
    }

    /// The same, with the newest first.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// The same, with at most this many values a page, between 1 and [`MAX_LIMIT`](Self::MAX_LIMIT).
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, Self::MAX_LIMIT);
        self
    }

    /// The same, going on after this id: the [`next`](Page::next) of the page before.
    #[must_use]
    pub fn after(mut self, id: Id<E>) -> Self {
        self.after = Some(id);
        self
    }

    /// The conditions; all must hold.
    pub fn conditions(&self) -> &[Condition<E>] {
        &self.conditions
    }

    /// The ids, one of which it must be; any, if none are said.
    pub fn ids(&self) -> Option<&[Id<E>]> {
        self.among.as_deref()
    }

    /// Whether ids fall instead of rise.
    pub fn is_newest_first(&self) -> bool {
        self.newest_first
    }

    /// The most values of a page.
    pub fn page_size(&self) -> usize {
        self.limit
    }

    /// The id to go on after.
    pub fn cursor(&self) -> Option<Id<E>> {
        self.after
    }
}

/// Some of the values that a query matches.
#[derive(Debug, Clone)]
pub struct Page<E> {
    /// The values, in the query's order.
    pub items: Vec<Stored<E>>,
    /// Where to go on; `None` on the last page.
    pub next: Option<Id<E>>,
}

impl<E> Page<E> {
    /// A page out of up to `query.page_size() + 1` values; the one too many only says that there are more.
    pub fn of(query: &Query<E>, mut items: Vec<Stored<E>>) -> Self {
        let more = items.len() > query.page_size();
        items.truncate(query.page_size());
        let next = if more { items.last().map(|last| last.id) } else { None };
        Self { items, next }
    }
}
