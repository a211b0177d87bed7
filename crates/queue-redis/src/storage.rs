use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lime_core::agents::InstructionLayer;
use lime_core::governance::{Approval, Decision, SealedStore, Sealing};
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::ports::{
    Admission, Approvals, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce, InstructionSource, Question,
    RunTarget, WorkerName,
};
use lime_core::runs::Lease;
use lime_core::{Editable, Entity, Id, Lookup, Page, Query, Result, Scope, Store, Stored};

use crate::desk::Desk;
use crate::ear::Ear;
use crate::feed::Feed;
use crate::kind::Kind;
use crate::line::RedisLine;
use crate::link::{self, Link};
use crate::options::RedisOptions;
use crate::voice::Voice;

/// A storage whose runs reach workers over Redis, and whose live events reach subscribers in every process over it.
///
/// - It is a whole [`Storage`](lime_core::ports::Storage), if the one inside is: what is stored stays there, and
///   that one alone decides who may work what.
/// - Somewhere in the fleet, best in two places, a [relay](RedisQueue::relay) must run. While none does, or Redis
///   cannot be reached, workers take from the storage inside, and nothing is lost.
/// - Clones share their connections: one for commands and one to listen, made when they are first needed.
/// - Make it and use it inside a tokio runtime.
pub struct RedisQueue<S: ?Sized> {
    pub(crate) inner: Arc<S>,
    pub(crate) fleet: Arc<Fleet>,
}

/// What the clones of a [`RedisQueue`] share: everything that has to do with Redis.
pub(crate) struct Fleet {
    pub(crate) options: RedisOptions,
    /// The name of this process among those that use this Redis.
    pub(crate) name: String,
    pub(crate) link: Arc<Link>,
    pub(crate) ear: Ear,
    pub(crate) voice: Voice,
    pub(crate) desk: Arc<Desk>,
    pub(crate) feed: Arc<Feed>,
    lines: Mutex<HashMap<(Kind, WorkerName), Arc<RedisLine>>>,
}

impl<S: ?Sized> Clone for RedisQueue<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), fleet: self.fleet.clone() }
    }
}

impl<S: ?Sized> fmt::Debug for RedisQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue").field("options", &self.fleet.options).finish_non_exhaustive()
    }
}

impl<S: ?Sized> RedisQueue<S> {
    /// Puts a Redis before this storage; connects when it is first used.
    ///
    /// - The URL is like `redis://:password@host:6379/0`, or `rediss://` with the feature `tls`.
    /// - Fails with [`Invalid`](lime_core::ErrorKind::Invalid) if it is none of a Redis, or if a time among the options
    ///   is less than a millisecond. That Redis cannot be reached is no error.
    pub fn new(inner: Arc<S>, url: &str, options: RedisOptions) -> Result<Self> {
        const OPERATION: &str = "redis.new";
        options.check(OPERATION)?;
        let client = link::client(url, OPERATION)?;
        let link = Link::new(client.clone());
        let fleet = Fleet {
            name: format!("{:016x}", fastrand::u64(..)),
            ear: Ear::new(client),
            voice: Voice::new(link.clone()),
            desk: Arc::default(),
            feed: Arc::default(),
            lines: Mutex::default(),
            options,
            link,
        };
        Ok(Self { inner, fleet: Arc::new(fleet) })
    }

    /// The storage inside.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }
}

impl Fleet {
    /// The channel of all questions of workers to relays.
    pub(crate) fn asks(&self) -> String {
        format!("{}:asks", self.options.prefix)
    }

    /// The channel of one process.
    pub(crate) fn to(&self, name: &str) -> String {
        format!("{}:to:{name}", self.options.prefix)
    }

    /// The line of a kind of workers, as one worker of it sees it.
    pub(crate) fn line(&self, kind: &Kind, worker: &WorkerName) -> Arc<RedisLine> {
        let line = || Arc::new(self.line_as(kind, worker.as_str()));
        self.lock_lines().entry((kind.clone(), worker.clone())).or_insert_with(line).clone()
    }

    /// The same for one who takes nothing out of it, and so has nothing to remember.
    pub(crate) fn line_as(&self, kind: &Kind, name: &str) -> RedisLine {
        let key = format!("{}:line:{kind}", self.options.prefix);
        RedisLine::on(self.link.clone(), key, name.to_owned())
    }

    pub(crate) fn lines(&self) -> Vec<Arc<RedisLine>> {
        self.lock_lines().values().cloned().collect()
    }

    fn lock_lines(&self) -> MutexGuard<'_, HashMap<(Kind, WorkerName), Arc<RedisLine>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<S: Tenants + ?Sized> Tenants for RedisQueue<S> {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        self.inner.create_tenant(tenant).await
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        self.inner.limit_runs(tenant, most).await
    }

    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        self.inner.update_tenant(tenant).await
    }

    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()> {
        self.inner.delete_tenant(tenant).await
    }

    async fn seed_roles(&self) -> Result<usize> {
        self.inner.seed_roles().await
    }

    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>> {
        self.inner.tenant(tenant).await
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        self.inner.tenant_by_slug(slug).await
    }
}

#[async_trait]
impl<S: Lookup<E> + ?Sized, E: Entity> Lookup<E> for RedisQueue<S> {
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>> {
        self.inner.get(scope, id).await
    }

    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>> {
        self.inner.list(scope, query).await
    }
}

#[async_trait]
impl<S: Store<E> + ?Sized, E: Editable> Store<E> for RedisQueue<S> {
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>> {
        self.inner.insert(scope, value).await
    }

    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>> {
        self.inner.update(scope, stored).await
    }

    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()> {
        self.inner.delete(scope, stored).await
    }
}

#[async_trait]
impl<S: SealedStore<E> + ?Sized, E: Sealing> SealedStore<E> for RedisQueue<S> {
    async fn draw_id(&self, scope: &Scope) -> Result<Id<E>> {
        self.inner.draw_id(scope).await
    }

    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>> {
        self.inner.insert_as(scope, id, value).await
    }
}

#[async_trait]
impl<S: InstructionSource + ?Sized> InstructionSource for RedisQueue<S> {
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>> {
        self.inner.layers(scope, target).await
    }
}

#[async_trait]
impl<S: Approvals + ?Sized> Approvals for RedisQueue<S> {
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        let approval = self.inner.ask(lease, question).await?;
        self.fleet.sign(lease.run);
        Ok(approval)
    }

    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        let decided = self.inner.decide(scope, approval, decision, note).await?;
        self.fleet.sign(decided.run_id);
        Ok(decided)
    }

    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>> {
        let approval = self.inner.answer(lease, approval).await?;
        self.fleet.sign(lease.run);
        Ok(approval)
    }
}

#[async_trait]
impl<S: Budgets + ?Sized> Budgets for RedisQueue<S> {
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce> {
        self.inner.budgets_in_force(scope).await
    }

    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission> {
        self.inner.hold(lease, demands).await
    }

    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>> {
        self.inner.standings(scope).await
    }
}
