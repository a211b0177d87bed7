//! A storage whose calls are counted, and can be made to fail.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use lime_core::agents::InstructionLayer;
use lime_core::governance::{Approval, Decision, SealedStore, Sealing};
use lime_core::identity::{
    ApiKey, FoundKey, Identity, KeyPrefix, LoginSession, Membership, NewSession, SignedIn, Slug, Tenant,
    Tenants, TokenHash, User,
};
use lime_core::memory::MemoryStorage;
use lime_core::ports::{
    Admission, ApiKeys, Approvals, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce, Claim, Claimant,
    EventLog, EventStream, Handback, Identities, InstructionSource, Question, Queue, QueueDepth, Record,
    Renewal, Request, RunTarget, Settlement, Signals,
};
use lime_core::runs::{AgentRun, Lease, RunEvent, RunInput, Seq};
use lime_core::{Editable, Entity, Error, ErrorKind, Id, Lookup, Page, Query, Result, Scope, Store, Stored};

/// A storage in memory whose calls are written down; clones share it.
#[derive(Clone)]
pub struct Watched(MemoryStorage, Arc<Mutex<Notes>>);

type Errand = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    faults: VecDeque<(&'static str, Fault)>,
    errands: Vec<(&'static str, Errand)>,
}

/// How a call goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done.
    Before,
    /// It is done, and nobody learns of it.
    After,
    /// It is done, and then the whole process stands still for so long.
    Stall(Duration),
}

impl Watched {
    pub fn new(storage: MemoryStorage) -> Self {
        Self(storage, Arc::default())
    }

    /// The calls since the last time, without those that only wait.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.1.lock().unwrap().calls)
    }

    /// The next call of this name fails as if the database were gone; several are used up one by one.
    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.1.lock().unwrap().faults.push_back((call, fault));
    }

    /// Before each call of this name, something else happens.
    pub fn before(
        &self,
        call: &'static str,
        errand: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.1.lock().unwrap().errands.push((call, Arc::new(errand)));
    }

    async fn watch<T>(&self, call: String, work: impl Future<Output = Result<T>>) -> Result<T> {
        let errand = {
            let notes = self.1.lock().unwrap();
            notes.errands.iter().find(|(name, _)| *name == call).map(|(_, errand)| errand.clone())
        };
        if let Some(errand) = errand {
            errand().await;
        }
        let fault = {
            let mut notes = self.1.lock().unwrap();
            let at = notes.faults.iter().position(|(name, _)| *name == call);
            let fault = at.and_then(|at| notes.faults.remove(at)).map(|(_, fault)| fault);
            notes.calls.push(call);
            fault
        };
        let gone = || Error::new(ErrorKind::Unavailable, "test.storage", "the database is gone");
        if fault == Some(Fault::Before) {
            return Err(gone());
        }
        let done = work.await;
        match fault {
            Some(Fault::After) => Err(gone()),
            Some(Fault::Stall(length)) => {
                std::thread::sleep(length);
                done
            }
            Some(Fault::Before) | None => done,
        }
    }
}

#[async_trait]
impl<E: Entity> Lookup<E> for Watched {
    async fn get(&self, scope: &Scope, id: Id<E>) -> Result<Stored<E>> {
        self.watch(format!("get {}", E::NAME), self.0.get(scope, id)).await
    }

    async fn list(&self, scope: &Scope, query: &Query<E>) -> Result<Page<E>> {
        self.watch(format!("list {}", E::NAME), self.0.list(scope, query)).await
    }
}

#[async_trait]
impl<E: Editable> Store<E> for Watched {
    async fn insert(&self, scope: &Scope, value: E) -> Result<Stored<E>> {
        self.watch(format!("insert {}", E::NAME), self.0.insert(scope, value)).await
    }

    async fn update(&self, scope: &Scope, stored: &Stored<E>) -> Result<Stored<E>> {
        self.watch(format!("update {}", E::NAME), self.0.update(scope, stored)).await
    }

    async fn delete(&self, scope: &Scope, stored: &Stored<E>) -> Result<()> {
        self.watch(format!("delete {}", E::NAME), self.0.delete(scope, stored)).await
    }
}

#[async_trait]
impl<E: Sealing> SealedStore<E> for Watched {
    async fn draw_id(&self, scope: &Scope) -> Result<Id<E>> {
        self.watch(format!("draw {}", E::NAME), self.0.draw_id(scope)).await
    }

    async fn insert_as(&self, scope: &Scope, id: Id<E>, value: E) -> Result<Stored<E>> {
        self.watch(format!("insert {}", E::NAME), self.0.insert_as(scope, id, value)).await
    }
}

#[async_trait]
impl Tenants for Watched {
    async fn create_tenant(&self, tenant: Tenant) -> Result<Stored<Tenant>> {
        self.0.create_tenant(tenant).await
    }

    async fn limit_runs(&self, tenant: Id<Tenant>, most: Option<i32>) -> Result<Stored<Tenant>> {
        self.0.limit_runs(tenant, most).await
    }

    async fn update_tenant(&self, tenant: &Stored<Tenant>) -> Result<Stored<Tenant>> {
        self.0.update_tenant(tenant).await
    }

    async fn delete_tenant(&self, tenant: Id<Tenant>) -> Result<()> {
        self.0.delete_tenant(tenant).await
    }

    async fn seed_roles(&self) -> Result<usize> {
        self.0.seed_roles().await
    }

    async fn tenant(&self, tenant: Id<Tenant>) -> Result<Stored<Tenant>> {
        self.0.tenant(tenant).await
    }

    async fn tenant_by_slug(&self, slug: &Slug) -> Result<Option<Stored<Tenant>>> {
        self.0.tenant_by_slug(slug).await
    }
}

#[async_trait]
impl EventLog for Watched {
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        self.watch("append".into(), self.0.append(lease, record)).await
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        self.watch("read".into(), self.0.read(scope, run, after, limit)).await
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        self.0.subscribe(scope, run, after)
    }
}

#[async_trait]
impl InstructionSource for Watched {
    async fn layers(&self, scope: &Scope, target: RunTarget) -> Result<Vec<InstructionLayer>> {
        self.watch("layers".into(), self.0.layers(scope, target)).await
    }
}

#[async_trait]
impl Approvals for Watched {
    async fn ask(&self, lease: &Lease, question: Question) -> Result<Stored<Approval>> {
        self.watch("ask".into(), self.0.ask(lease, question)).await
    }

    async fn decide(
        &self,
        scope: &Scope,
        approval: Id<Approval>,
        decision: Decision,
        note: Option<String>,
    ) -> Result<Stored<Approval>> {
        self.watch("decide".into(), self.0.decide(scope, approval, decision, note)).await
    }

    async fn answer(&self, lease: &Lease, approval: Id<Approval>) -> Result<Stored<Approval>> {
        self.watch("answer".into(), self.0.answer(lease, approval)).await
    }
}

#[async_trait]
impl Budgets for Watched {
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce> {
        self.watch("budgets_in_force".into(), self.0.budgets_in_force(scope)).await
    }

    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission> {
        self.watch("hold".into(), self.0.hold(lease, demands)).await
    }

    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>> {
        self.0.standings(scope).await
    }
}

#[async_trait]
impl Queue for Watched {
    async fn submit(&self, scope: &Scope, run: AgentRun) -> Result<Stored<AgentRun>> {
        self.watch("submit".into(), self.0.submit(scope, run)).await
    }

    async fn submit_all(&self, scope: &Scope, runs: Vec<AgentRun>) -> Result<Vec<Stored<AgentRun>>> {
        self.watch("submit".into(), self.0.submit_all(scope, runs)).await
    }

    async fn take(&self, claimant: &Claimant, max: usize, lease: Duration) -> Result<Vec<Lease>> {
        self.watch("take".into(), self.0.take(claimant, max, lease)).await
    }

    async fn start(&self, claimant: &Claimant, leases: &[Lease], lease: Duration) -> Result<Vec<Claim>> {
        self.watch("start".into(), self.0.start(claimant, leases, lease)).await
    }

    async fn finish(&self, leases: &[Lease]) -> Result<usize> {
        self.0.finish(leases).await
    }

    async fn sweep(&self) -> Result<usize> {
        self.watch("sweep".into(), self.0.sweep()).await
    }

    async fn reclaim(&self) -> Result<usize> {
        self.watch("reclaim".into(), self.0.reclaim()).await
    }

    async fn queued(&self) {
        self.0.queued().await;
    }

    async fn heartbeat(&self, lease: &Lease, extend: Duration) -> Result<Signals> {
        self.watch("heartbeat".into(), self.0.heartbeat(lease, extend)).await
    }

    async fn signalled(&self, lease: &Lease) {
        self.0.signalled(lease).await;
    }

    async fn settle(&self, lease: &Lease, settlement: Settlement) -> Result<Stored<AgentRun>> {
        self.watch("settle".into(), self.0.settle(lease, settlement)).await
    }

    async fn hand_back(&self, lease: &Lease, handback: Handback) -> Result<Stored<AgentRun>> {
        self.watch("hand_back".into(), self.0.hand_back(lease, handback)).await
    }

    async fn request(&self, scope: &Scope, run: Id<AgentRun>, request: Request) -> Result<Stored<AgentRun>> {
        self.watch("request".into(), self.0.request(scope, run, request)).await
    }

    async fn say(&self, scope: &Scope, run: Id<AgentRun>, text: String) -> Result<Stored<RunInput>> {
        self.watch("say".into(), self.0.say(scope, run, text)).await
    }

    async fn depth(&self) -> Result<QueueDepth> {
        self.0.depth().await
    }
}

#[async_trait]
impl ApiKeys for Watched {
    async fn create_key(&self, scope: &Scope, key: ApiKey) -> Result<Stored<ApiKey>> {
        self.0.create_key(scope, key).await
    }

    async fn find_key(&self, prefix: &KeyPrefix) -> Result<Option<FoundKey>> {
        self.watch("find_key".into(), self.0.find_key(prefix)).await
    }

    async fn note_use(&self, scope: &Scope, key: Id<ApiKey>, renewed: Option<Renewal>) -> Result<bool> {
        self.watch("note_use".into(), self.0.note_use(scope, key, renewed)).await
    }

    async fn revoke_key(&self, scope: &Scope, key: Id<ApiKey>) -> Result<Stored<ApiKey>> {
        self.0.revoke_key(scope, key).await
    }
}

#[async_trait]
impl Identities for Watched {
    async fn identify(&self, identity: Identity) -> Result<Stored<Identity>> {
        self.0.identify(identity).await
    }

    async fn link_user(&self, scope: &Scope, user: Id<User>, identity: Id<Identity>) -> Result<()> {
        self.0.link_user(scope, user, identity).await
    }

    async fn memberships(&self, identity: Id<Identity>) -> Result<Vec<Membership>> {
        self.0.memberships(identity).await
    }

    async fn open_session(&self, session: NewSession) -> Result<Stored<LoginSession>> {
        self.0.open_session(session).await
    }

    async fn find_session(&self, token: &TokenHash) -> Result<Option<Stored<LoginSession>>> {
        self.0.find_session(token).await
    }

    async fn find_member(&self, token: &TokenHash, tenant: Id<Tenant>) -> Result<Option<SignedIn>> {
        self.watch("find_member".into(), self.0.find_member(token, tenant)).await
    }

    async fn extend_session(&self, token: &TokenHash, lasts: Duration) -> Result<Stored<LoginSession>> {
        self.0.extend_session(token, lasts).await
    }

    async fn end_session(&self, token: &TokenHash) -> Result<()> {
        self.0.end_session(token).await
    }

    async fn end_sessions(&self, identity: Id<Identity>) -> Result<usize> {
        self.0.end_sessions(identity).await
    }
}
