use std::any::Any;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::identity::Tenant;
use crate::{Column, Entity, Id, OnDelete, Page, Query, Stored, Value};

/// The rows of one entity, of all tenants.
pub(super) struct Table<E> {
    pub(super) rows: BTreeMap<Id<E>, Row<E>>,
    last_id: i64,
}

/// A value and whose it is.
pub(super) struct Row<E> {
    pub(super) tenant: Id<Tenant>,
    pub(super) stored: Stored<E>,
}

impl<E> Default for Table<E> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), last_id: 0 }
    }
}

impl<E: Entity> Table<E> {
    /// An id for a row to come.
    pub(super) fn reserve(&mut self) -> Id<E> {
        self.last_id += 1;
        Id::new(self.last_id)
    }

    pub(super) fn push(&mut self, tenant: Id<Tenant>, now: DateTime<Utc>, value: E) -> Stored<E> {
        let id = self.reserve();
        self.push_as(id, tenant, now, value)
    }

    pub(super) fn push_as(
        &mut self,
        id: Id<E>,
        tenant: Id<Tenant>,
        now: DateTime<Utc>,
        value: E,
    ) -> Stored<E> {
        let stored = Stored { id, version: 1, created_at: now, updated_at: now, value };
        self.rows.insert(stored.id, Row { tenant, stored: stored.clone() });
        stored
    }

    pub(super) fn page(&self, tenant: Id<Tenant>, query: &Query<E>) -> Page<E> {
        let matching = |row: &&Row<E>| {
            row.tenant == tenant
                && query.ids().is_none_or(|ids| ids.contains(&row.stored.id))
                && query.conditions().iter().all(|condition| condition.holds(&row.stored.value))
        };
        let take = query.page_size() + 1;
        let newest_first = query.is_newest_first();
        let beyond =
            |id: &Id<E>| query.cursor().is_none_or(|at| if newest_first { *id < at } else { *id > at });
        let rows = self.rows.iter().filter(|(id, _)| beyond(id)).map(|(_, row)| row).filter(matching);
        let found = |row: &Row<E>| row.stored.clone();
        let items = if newest_first {
            rows.rev().take(take).map(found).collect()
        } else {
            rows.take(take).map(found).collect()
        };
        Page::of(query, items)
    }

    /// The names of the columns whose values another row of the tenant has too.
    pub(super) fn clash(&self, tenant: Id<Tenant>, this: Option<Id<E>>, value: &E) -> Option<String> {
        let others = || self.rows.values().filter(|row| row.tenant == tenant && Some(row.stored.id) != this);
        E::UNIQUE.iter().find_map(|group| {
            let wanted: Vec<Value> = group.iter().map(|column| (column.value)(value)).collect();
            let same = |row: &Row<E>| {
                group.iter().zip(&wanted).all(|(column, value)| (column.value)(&row.stored.value) == *value)
            };
            let can_clash = E::NULLS_EQUAL || !wanted.contains(&Value::Null);
            let clashes = can_clash && others().any(same);
            clashes.then(|| group.iter().map(|column| column.name).collect::<Vec<_>>().join(", "))
        })
    }

    fn referring(
        &self,
        tenant: Id<Tenant>,
        target: &'static str,
        id: i64,
        how: fn(&OnDelete<E>) -> bool,
    ) -> Box<dyn Iterator<Item = i64> + '_> {
        let columns: Vec<Column<E>> = E::REFERENCES
            .iter()
            .filter(|reference| reference.target == target && how(&reference.on_delete))
            .map(|reference| reference.column)
            .collect();
        Box::new(
            self.rows
                .values()
                .filter(move |row| {
                    let points = |column: &Column<E>| (column.value)(&row.stored.value) == Value::Int(id);
                    row.tenant == tenant && columns.iter().any(points)
                })
                .map(|row| row.stored.id.raw()),
        )
    }
}

/// A table whose entity is not known, for references across tables.
pub(super) trait AnyTable: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn as_any_ref(&self) -> &dyn Any;
    fn holds(&self, tenant: Id<Tenant>, id: i64) -> bool;
    /// The rows that go with this row of another table.
    fn cascading(
        &self,
        tenant: Id<Tenant>,
        target: &'static str,
        id: i64,
    ) -> Box<dyn Iterator<Item = i64> + '_>;
    /// The rows that hold this row of another table back.
    fn restricting(
        &self,
        tenant: Id<Tenant>,
        target: &'static str,
        id: i64,
    ) -> Box<dyn Iterator<Item = i64> + '_>;
    /// Nulls the columns that point to this row of another table and may.
    fn clear(&mut self, tenant: Id<Tenant>, target: &'static str, id: i64);
    fn remove(&mut self, id: i64);
}

impl<E: Entity> AnyTable for Table<E> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn as_any_ref(&self) -> &dyn Any {
        self
    }

    fn holds(&self, tenant: Id<Tenant>, id: i64) -> bool {
        self.rows.get(&Id::new(id)).is_some_and(|row| row.tenant == tenant)
    }

    fn cascading(
        &self,
        tenant: Id<Tenant>,
        target: &'static str,
        id: i64,
    ) -> Box<dyn Iterator<Item = i64> + '_> {
        self.referring(tenant, target, id, |on_delete| matches!(on_delete, OnDelete::Cascade))
    }

    fn restricting(
        &self,
        tenant: Id<Tenant>,
        target: &'static str,
        id: i64,
    ) -> Box<dyn Iterator<Item = i64> + '_> {
        self.referring(tenant, target, id, |on_delete| matches!(on_delete, OnDelete::Restrict))
    }

    fn clear(&mut self, tenant: Id<Tenant>, target: &'static str, id: i64) {
        for reference in E::REFERENCES.iter().filter(|reference| reference.target == target) {
            if let OnDelete::SetNull(clear) = reference.on_delete {
                for row in self.rows.values_mut().filter(|row| row.tenant == tenant) {
                    if (reference.column.value)(&row.stored.value) == Value::Int(id) {
                        clear(&mut row.stored.value);
                    }
                }
            }
        }
    }

    fn remove(&mut self, id: i64) {
        self.rows.remove(&Id::new(id));
    }
}
