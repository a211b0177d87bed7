//! Everything that is stored, in memory: for unit tests, and as the model that the database is held against.
//!
//! - One generic table for all entities, with their unique groups and references; the same conformance suite
//!   that the database passes.
//! - Nothing survives the process.

mod api_keys;
mod approvals;
mod budgets;
mod identities;
mod instructions;
mod life;
mod line;
mod log;
mod queue;
mod request;
mod table;
mod tenants;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use self::budgets::Accounts;
use self::identities::People;
use self::line::{At, Line, Place};
use self::table::{AnyTable, Row, Table};
use crate::governance::{Budget, SealedStore, Sealing};
use crate::identity::{Slug, Tenant, Tenants};
use crate::ports::Clock;
use crate::runs::{AgentRun, Lease, RunEvent};
use crate::{
    Editable, Entity, Error, ErrorKind, Id, Invalid, LiveHub, Lookup, Page, Query, Result, Scope, Store,
    Stored, Topic,
};

/// All stores, the queue and the event log, in memory; clones share what they hold.
#[derive(Clone)]
pub struct MemoryStorage(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    hub: LiveHub,
    clock: Box<dyn Clock>,
}

#[derive(Default)]
struct State {
    tenants: Vec<Stored<Tenant>>,
    deleted_tenants: HashSet<Id<Tenant>>,
    people: People,
    tables: HashMap<&'static str, Box<dyn AnyTable>>,
    events: HashMap<Id<AgentRun>, Vec<RunEvent>>,
    line: Line,
    accounts: Accounts,
}

struct SystemTimeClock;

impl Clock for SystemTimeClock {
    fn now(&self) -> DateTime<Utc> {
        SystemTime::now().into()
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::with_clock(SystemTimeClock)
    }
}

impl std::fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStorage")
    }
}

impl AsRef<LiveHub> for MemoryStorage {
    fn as_ref(&self) -> &LiveHub {
        &self.0.hub
    }
}

impl MemoryStorage {
    /// An empty one whose leases and recorded times follow this clock.
    pub fn with_clock(clock: impl Clock + 'static) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), hub: LiveHub::default(), clock: Box::new(clock) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> DateTime<Utc> {
        self.0.clock.now()
    }
}

impl State {
    fn table<E: Entity>(&mut self) -> &mut Table<E> {
        self.tables
            .entry(E::NAME)
            .or_insert_with(|| Box::new(Table::<E>::default()))
            .as_any()
            .downcast_mut()
            .expect("a table is only ever made for the entity of its name")
    }

    fn table_ref<E: Entity>(&self) -> Option<&Table<E>> {
        self.tables.get(E::NAME)?.as_any_ref().downcast_ref()
    }

    fn row<E: Entity>(&mut self, scope: &Scope, operation: &'static str, id: Id<E>) -> Result<&mut Row<E>> {
        self.table()
            .rows
            .get_mut(&id)
            .filter(|row| row.tenant == scope.tenant())
            .ok_or_else(|| Error::not_found(operation, E::NAME, id))
    }

    /// Whether the fence of a scope, if it has one, still stands.
    fn check_fence(&mut self, scope: &Scope, operation: &'static str, now: DateTime<Utc>) -> Result<()> {
        match scope.fence() {
            Some(lease) if lease.tenant != scope.tenant() => Err(Error::stale_lease(operation, lease)),
            Some(lease) => self.leased(lease, operation, now).map(|_| ()),
            None => Ok(()),
        }
    }

    fn check<E: Entity>(
        &mut self,
        scope: &Scope,
        operation: &'static str,
        this: Option<Id<E>>,
        value: &E,
    ) -> Result<()> {
        value.validate().map_err(|invalid| invalid.refused(operation, E::NAME))?;
        for reference in E::REFERENCES {
            if let crate::Value::Int(id) = (reference.column.value)(value) {
                let target = self.tables.get(reference.target);
                if !target.is_some_and(|table| table.holds(scope.tenant(), id)) {
                    let rule = format!("there is no {} {id}", reference.target);
                    return Err(Invalid::new(reference.column.name, rule).refused(operation, E::NAME));
                }
            }
        }
        if let Some(group) = self.table::<E>().clash(scope.tenant(), this, value) {
            let message = format!("a {} with the same {group} exists", E::NAME);
            return Err(Error::new(ErrorKind::AlreadyExists, operation, message));
        }
        Ok(())
    }

    /// Frees what a run that is deleted holds of budgets.
    fn free_run(&mut self, tenant: Id<Tenant>, run: Id<AgentRun>, now: DateTime<Utc>) {
        if let Some(Place { at: At::Leased(held), .. }) = self.line.0.get(&run) {
            let lease = Lease { tenant, run, attempt: held.token };
            self.free_budgets(&lease, false, now);
        }
    }

    /// Deletes a row and all that belongs to it, as references say; all or nothing.
    fn remove(
        &mut self,
        tenant: Id<Tenant>,
        operation: &'static str,
        name: &'static str,
        id: i64,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let mut doomed = vec![(name, id)];
        let mut at = 0;
        while let Some(&(name, id)) = doomed.get(at) {
            at += 1;
            for (other, table) in &self.tables {
                for row in table.cascading(tenant, name, id) {
                    if !doomed.contains(&(other, row)) {
                        doomed.push((other, row));
                    }
                }
            }
        }
        for &(name, id) in &doomed {
            for (other, table) in &self.tables {
                if let Some(row) =
                    table.restricting(tenant, name, id).find(|&row| !doomed.contains(&(other, row)))
                {
                    let message = format!("the {name} {id} is still used by the {other} {row}");
                    return Err(Error::new(ErrorKind::Conflict, operation, message));
                }
            }
        }
        for &(name, id) in &doomed {
            if name == AgentRun::NAME {
                self.free_run(tenant, Id::new(id), now);
            }
            for table in self.tables.values_mut() {
                table.clear(tenant, name, id);
            }
            if name == Budget::NAME {
                self.forget_budget(Id::new(id));
            }
            if name == AgentRun::NAME {
                self.events.remove(&Id::new(id));
                self.line.0.remove(&Id::new(id));
            }
        }
        for (name, id) in doomed {
            if let Some(table) = self.tables.get_mut(name) {
                table.remove(id);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Tenants for MemoryStorage {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.create";
        tenant.validate().map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let now = self.now();
        let mut state = self.lock();
        state.check_slug(OPERATION, None, &tenant.slug)?;
        let id = i64::try_from(state.tenants.len() + 1).expect("tenants in memory are far fewer than 2^63");
        let stored = Stored { id: Id::new(id), version: 1, created_at: now, updated_at: now, value: tenant };
        state.tenants.push(stored.clone());
        state.seed_roles_of(stored.id, now);
        Ok(stored)
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        const OPERATION: &str = "tenants.limit_runs";
        Tenant::check_limit(most).map_err(|invalid| invalid.refused(OPERATION, "tenant"))?;
        let now = self.now();
        let mut state = self.lock();
        let stored = state.tenant_mut(OPERATION, tenant)?;
        stored.value.max_concurrent_runs = most;
        stored.version += 1;
        stored.updated_at = now;
        let stored = stored.clone();
        drop(state);
        self.0.hub.wake(Topic::Queue);
        Ok(stored)
    }

    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        let stored = self.replace_tenant(tenant)?;
        self.0.hub.wake(Topic::Queue);
        Ok(stored)
    }

    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()> {
        let now = self.now();
        let mut state = self.lock();
        if !state.tenants.iter().any(|known| known.id == tenant) {
            return Err(Error::not_found("tenants.delete", "tenant", tenant));
        }
        state.deleted_tenants.insert(tenant);
        state.line.put_back(tenant, now);
        Ok(())
    }

    async fn seed_roles(&self) -> Result<usize> {
        let now = self.now();
        let mut state = self.lock();
        let tenants: Vec<_> = state.tenants.iter().map(|tenant| tenant.id).collect();
        Ok(tenants.into_iter().map(|tenant| state.seed_roles_of(tenant, now)).sum())
    }

    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>> {
        self.lock().tenant_mut("tenants.get", tenant).map(|tenant| tenant.clone())
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        let state = self.lock();
        let found = state.tenants.iter().find(|tenant| tenant.slug == *slug && !state.is_deleted(tenant.id));
        Ok(found.cloned())
    }
}

#[async_trait]
impl<E: Entity> Lookup<E> for MemoryStorage {
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>> {
        self.lock().row(scope, "store.get", id).map(|row| row.stored.clone())
    }

    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>> {
        Ok(self.lock().table::<E>().page(scope.tenant(), query))
    }
}

#[async_trait]
impl<E: Editable> Store<E> for MemoryStorage {
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>> {
        const OPERATION: &str = "store.insert";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.check(scope, OPERATION, None, &value)?;
        Ok(state.table().push(scope.tenant(), now, value))
    }

    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>> {
        const OPERATION: &str = "store.update";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        let version = state.row(scope, OPERATION, stored.id)?.stored.version;
        check_version(OPERATION, stored, version)?;
        state.check(scope, OPERATION, Some(stored.id), &stored.value)?;
        let row = state.row(scope, OPERATION, stored.id)?;
        row.stored.value = stored.value.clone();
        row.stored.version += 1;
        row.stored.updated_at = now;
        Ok(row.stored.clone())
    }

    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()> {
        const OPERATION: &str = "store.delete";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        let version = state.row(scope, OPERATION, stored.id)?.stored.version;
        check_version(OPERATION, stored, version)?;
        state.remove(scope.tenant(), OPERATION, E::NAME, stored.id.raw(), now)
    }
}

#[async_trait]
impl<E: Sealing> SealedStore<E> for MemoryStorage {
    async fn draw_id(&self, _scope: &Scope) -> Result<Id<E>> {
        Ok(self.lock().table().reserve())
    }

    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>> {
        const OPERATION: &str = "store.insert";
        let now = self.now();
        let mut state = self.lock();
        state.check_fence(scope, OPERATION, now)?;
        state.check(scope, OPERATION, None, &value)?;
        if state.table::<E>().rows.contains_key(&id) {
            let message = format!("a {} with the same id exists", E::NAME);
            return Err(Error::new(ErrorKind::AlreadyExists, OPERATION, message));
        }
        Ok(state.table().push_as(id, scope.tenant(), now, value))
    }
}

fn check_version<E: Entity>(operation: &'static str, stored: &Stored<E>, newest: i64) -> Result<()> {
    if stored.version == newest {
        return Ok(());
    }
    let message = format!("the {} {} has been changed meanwhile; read it again", E::NAME, stored.id);
    Err(Error::new(ErrorKind::Conflict, operation, message)
        .with("version", stored.version)
        .with("newest", newest))
}
