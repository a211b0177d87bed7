//! A storage under test, and what a bystander with the same clock knows about it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use lime_core::governance::{ActionScope, Approval, ApprovalStatus, Decision};
use lime_core::identity::{Slug, Tenant, Tenants};
use lime_core::memory::MemoryStorage;
use lime_core::planning::Project;
use lime_core::ports::{
    Approvals, Claimant, Clock, EventLog, Handback, HandbackReason, Question, Queue, Request, Settlement,
    WorkerName,
};
use lime_core::runs::{
    AgentEvent, AgentMode, AgentRun, Failure, FailureKind, Lease, Limit, Outcome, ProviderId, RunEvent,
    RunStatus,
};
use lime_core::{Error, ErrorKind, Id, Lookup, Scope, Store, Stored};
use proptest::sample::Index;

use crate::check;
use crate::op::Op;

const PROVIDER: ProviderId = ProviderId::from_static("replay");

/// A clock that is set, in milliseconds.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicI64>);

impl Clock for SetClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(self.0.load(Ordering::Relaxed))
    }
}

/// What comes of a call in memory, which never waits.
pub(crate) fn get<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("a call in memory does not wait")
}

/// A lease that was given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    pub(crate) until: DateTime<Utc>,
    pub(crate) started: bool,
    /// Its run has another place in the line by now, or none.
    pub(crate) gone: bool,
}

pub(crate) struct World {
    pub(crate) storage: MemoryStorage,
    clock: SetClock,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) projects: Vec<Vec<Stored<Project>>>,
    pub(crate) limits: Vec<Option<i32>>,
    pub(crate) runs: Vec<(usize, Id<AgentRun>)>,
    pub(crate) held: Vec<Held>,
    /// Queued runs whose places were finished.
    pub(crate) placeless: HashSet<Id<AgentRun>>,
    approvals: Vec<(usize, Id<Approval>)>,
}

fn worker() -> Claimant {
    Claimant { worker: WorkerName::parse("test").unwrap(), providers: vec![PROVIDER] }
}

fn pick<T: Copy>(index: &Index, list: &[T]) -> Option<T> {
    (!list.is_empty()).then(|| *index.get(list))
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = SetClock::default();
        let storage = MemoryStorage::with_clock(clock.clone());
        let mut world = Self {
            storage,
            clock,
            scopes: Vec::new(),
            projects: Vec::new(),
            limits: vec![None, Some(2)],
            runs: Vec::new(),
            held: Vec::new(),
            placeless: HashSet::new(),
            approvals: Vec::new(),
        };
        for (slug, limit) in ["a", "b"].into_iter().zip(world.limits.clone()) {
            let tenant =
                Tenant { max_concurrent_runs: limit, ..Tenant::new(slug, Slug::parse(slug).unwrap()) };
            let tenant = get(world.storage.create_tenant(tenant)).unwrap();
            let scope = Scope::system(tenant.id, "a test");
            let projects = [("ONE", 2), ("TWO", 4)].map(|(key, most)| {
                let project = Project { max_concurrent_agents: most, ..Project::new("A project", key) };
                get(world.storage.insert(&scope, project)).unwrap()
            });
            world.scopes.push(scope);
            world.projects.push(projects.into());
        }
        world
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn run_of(&self, (tenant, run): (usize, Id<AgentRun>)) -> Stored<AgentRun> {
        get(Lookup::get(&self.storage, &self.scopes[tenant], run)).unwrap()
    }

    pub(crate) fn log(&self, (tenant, run): (usize, Id<AgentRun>)) -> Vec<RunEvent> {
        get(self.storage.read(&self.scopes[tenant], run, 0, usize::MAX)).unwrap()
    }

    /// The runs of leases whose runs have no other place.
    pub(crate) fn at_work(&self) -> HashSet<Id<AgentRun>> {
        self.held.iter().filter(|held| !held.gone).map(|held| held.lease.run).collect()
    }

    /// A run that has not been stored.
    pub(crate) fn a_run(&self, tenant: usize) -> AgentRun {
        AgentRun::new(self.projects[tenant][0].id, PROVIDER, AgentMode::Plan, "do it")
    }

    /// Begins to work the only run there is, for ever.
    pub(crate) fn claim(&self) -> Lease {
        let claims = get(self.storage.claim(&worker(), 1, Duration::MAX)).unwrap();
        claims[0].lease
    }

    fn tenant_of(&self, run: Id<AgentRun>) -> usize {
        self.runs.iter().find(|(_, known)| *known == run).unwrap().0
    }

    /// What a write under a lease must come to: just one that has begun and has not run out is a right to write.
    fn written<T>(
        &mut self,
        at: usize,
        ends: bool,
        write: impl FnOnce(&MemoryStorage, &Lease) -> Result<T, Error>,
    ) -> Option<T> {
        let held = self.held[at];
        let holds = held.started && !held.gone && self.now() < held.until;
        let run = (self.tenant_of(held.lease.run), held.lease.run);
        let before = (self.run_of(run), self.log(run));
        match write(&self.storage, &held.lease) {
            Ok(value) => {
                assert!(holds, "{held:?} does not hold, and wrote");
                self.held[at].gone |= ends;
                Some(value)
            }
            Err(error) if error.kind() == ErrorKind::StaleLease => {
                assert!(!holds, "{held:?} holds, and is said to be stale");
                assert_eq!((self.run_of(run), self.log(run)), before, "a stale lease wrote");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn run(&mut self, op: &Op) {
        let now = self.now();
        let secs = Duration::from_secs;
        let until = |s: u64| now + secs(s);
        let held: Vec<usize> = (0..self.held.len()).collect();
        match op {
            Op::Submit { tenant, project, agent, priority, key, in_s } => {
                let project = self.projects[*tenant][*project].id;
                let run = AgentRun {
                    agent_id: agent.map(Id::new),
                    priority: *priority,
                    unique_key: key.map(|key| key.to_string()),
                    run_at: (*in_s != 0).then(|| now + TimeDelta::seconds(*in_s)),
                    ..AgentRun::new(project, PROVIDER, AgentMode::Plan, "do it")
                };
                let run = get(self.storage.submit(&self.scopes[*tenant], run)).unwrap();
                if !self.runs.contains(&(*tenant, run.id)) {
                    self.runs.push((*tenant, run.id));
                }
            }
            Op::Take { max, lease_s } => {
                let taken = get(self.storage.take(&worker(), *max, secs(*lease_s))).unwrap();
                self.held.iter_mut().filter(|held| held.until <= now).for_each(|held| held.gone = true);
                for lease in &taken {
                    assert!(!self.at_work().contains(&lease.run), "{lease:?}: it is held already");
                    assert!(!self.placeless.contains(&lease.run), "{lease:?}: it has no place");
                    let known = self.held.iter().any(|held| held.lease.attempt == lease.attempt);
                    assert!(!known, "{lease:?}: the token was given before");
                    let until = until(*lease_s);
                    self.held.push(Held { lease: *lease, until, started: false, gone: false });
                }
                check::fair(self, &taken, *max);
            }
            Op::Start { lease, lease_s } => {
                let Some(at) = pick(lease, &held) else { return };
                let held = self.held[at];
                let expected = !held.started && !held.gone && now < held.until;
                let claims = get(self.storage.start(&worker(), &[held.lease], secs(*lease_s))).unwrap();
                assert_eq!(claims.len(), usize::from(expected), "{held:?}");
                if expected {
                    self.held[at] = Held { until: until(*lease_s), started: true, ..held };
                    assert_eq!(claims[0].expires_at, until(*lease_s));
                }
            }
            Op::Finish { lease } => {
                let Some(at) = pick(lease, &held) else { return };
                let held = self.held[at];
                let expected = !held.started && !held.gone;
                let finished = get(self.storage.finish(&[held.lease])).unwrap();
                assert_eq!(finished, usize::from(expected), "{held:?}");
                if expected {
                    self.held[at].gone = true;
                    self.placeless.insert(held.lease.run);
                }
            }
            Op::Sweep => {
                assert_eq!(get(self.storage.sweep()).unwrap(), self.placeless.len());
                self.placeless.clear();
            }
            Op::Heartbeat { lease, lease_s } => {
                let Some(at) = pick(lease, &held) else { return };
                let beaten =
                    self.written(at, false, |storage, lease| get(storage.heartbeat(lease, secs(*lease_s))));
                if let Some(signals) = beaten {
                    self.held[at].until = until(*lease_s);
                    let run = self.held[at].lease.run;
                    let run = self.run_of((self.tenant_of(run), run));
                    assert_eq!(signals.cancel, run.cancel_requested_at.is_some());
                    assert_eq!(signals.pause, run.pause_requested_at.is_some());
                }
            }
            Op::Append { lease, events } => {
                let Some(at) = pick(lease, &held) else { return };
                let events = vec![AgentEvent::system("hi"); *events];
                self.written(at, false, |storage, lease| get(storage.append(lease, events.into())));
            }
            Op::Settle { lease, outcome } => {
                let Some(at) = pick(lease, &held) else { return };
                let outcomes = [
                    Outcome::Succeeded { summary: None },
                    Outcome::Failed(Failure::new(FailureKind::Internal, "no")),
                    Outcome::Cancelled,
                    Outcome::Limited(Limit::Cost),
                ];
                let outcome = outcomes[*outcome].clone();
                let end = Settlement::new(outcome.clone());
                let settled = self.written(at, true, |storage, lease| get(storage.settle(lease, end)));
                assert!(settled.is_none_or(|run| run.status == outcome.status()));
            }
            Op::HandBack { lease, pause_s } => {
                let Some(at) = pick(lease, &held) else { return };
                let why = match pause_s {
                    None => HandbackReason::Released,
                    Some(pause) => HandbackReason::Retry {
                        failure: Failure::new(FailureKind::Network, "no"),
                        pause: secs(*pause),
                    },
                };
                let handback = Handback { why, ..Handback::released() };
                let handed = self.written(at, true, |storage, lease| get(storage.hand_back(lease, handback)));
                if let Some(run) = handed {
                    let expected = match (run.cancel_requested_at, run.pause_requested_at) {
                        (Some(_), _) => RunStatus::Cancelled,
                        (None, Some(_)) => RunStatus::Paused,
                        (None, None) => RunStatus::Queued,
                    };
                    assert_eq!(run.status, expected);
                }
            }
            Op::Request { run, request } => self.request(run, *request),
            Op::Say { run } => {
                let Some(run) = pick(run, &self.runs) else { return };
                let said = get(self.storage.say(&self.scopes[run.0], run.1, "Hello".into()));
                assert_eq!(said.is_err(), self.run_of(run).status.is_final());
            }
            Op::Ask { lease, payload } => {
                let Some(at) = pick(lease, &held) else { return };
                let question = Question {
                    scope: ActionScope::tool(),
                    action: "Bash".into(),
                    call_id: None,
                    intent_summary: "May I?".into(),
                    payload: (*payload).into(),
                    approvers: vec![],
                    expires_after_s: 20,
                    on_expiry: Decision::Deny,
                };
                if let Some(asked) =
                    self.written(at, false, |storage, lease| get(storage.ask(lease, question)))
                {
                    let known = (self.tenant_of(asked.run_id), asked.id);
                    if !self.approvals.contains(&known) {
                        self.approvals.push(known);
                    }
                }
            }
            Op::Answer { lease, approval } => {
                let (Some(at), Some((tenant, approval))) =
                    (pick(lease, &held), pick(approval, &self.approvals))
                else {
                    return;
                };
                let asked = self.approval((tenant, approval));
                if asked.run_id == self.held[at].lease.run {
                    let answer =
                        self.written(at, false, |storage, lease| get(storage.answer(lease, approval)));
                    let open = |answer: Stored<Approval>| answer.status == ApprovalStatus::Pending;
                    assert!(!answer.is_some_and(open) || now < asked.expires_at, "its time is up");
                }
            }
            Op::Decide { approval, approve } => {
                let Some((tenant, approval)) = pick(approval, &self.approvals) else { return };
                let before = self.approval((tenant, approval));
                let open = before.status == ApprovalStatus::Pending && now < before.expires_at;
                let decision = if *approve { Decision::Approve } else { Decision::Deny };
                let decided = get(self.storage.decide(&self.scopes[tenant], approval, decision, None));
                assert_eq!(decided.is_ok(), open, "{before:?}");
            }
            Op::Limit { tenant, most } => {
                get(self.storage.limit_runs(self.scopes[*tenant].tenant(), *most)).unwrap();
                self.limits[*tenant] = *most;
            }
            Op::Pass { s } => {
                self.clock.0.fetch_add(s * 1_000, Ordering::Relaxed);
            }
        }
    }

    fn approval(&self, (tenant, approval): (usize, Id<Approval>)) -> Stored<Approval> {
        get(Lookup::get(&self.storage, &self.scopes[tenant], approval)).unwrap()
    }

    fn request(&mut self, run: &Index, request: Request) {
        let Some((tenant, run)) = pick(run, &self.runs) else { return };
        let before = self.run_of((tenant, run));
        let others = self.runs.iter().filter(|(at, other)| *at == tenant && *other != run);
        let key_is_held = before.unique_key.is_some()
            && others
                .map(|other| self.run_of(*other))
                .any(|other| other.unique_key == before.unique_key && !other.status.is_final());
        let refused = match request {
            Request::Cancel => None,
            Request::Pause | Request::Resume => before.status.is_final().then_some(ErrorKind::Conflict),
            Request::Requeue => match before.status {
                RunStatus::Queued => None,
                RunStatus::Failed => key_is_held.then_some(ErrorKind::AlreadyExists),
                RunStatus::Running
                | RunStatus::WaitingApproval
                | RunStatus::Paused
                | RunStatus::Succeeded
                | RunStatus::Cancelled => Some(ErrorKind::Conflict),
            },
        };
        let result = get(self.storage.request(&self.scopes[tenant], run, request));
        assert_eq!(result.as_ref().err().map(Error::kind), refused, "{request:?} of {before:?}");
        let Ok(after) = result else {
            assert_eq!(self.run_of((tenant, run)), before);
            return;
        };
        if after.status != before.status {
            // It was not worked, so who took it has lost it.
            self.placeless.remove(&run);
            self.held.iter_mut().filter(|held| held.lease.run == run).for_each(|held| held.gone = true);
        }
    }

    /// Works everything that can still be worked, to its end.
    pub(crate) fn work_off(&mut self) {
        for (tenant, run) in self.runs.clone() {
            if !self.run_of((tenant, run)).status.is_final() {
                get(self.storage.request(&self.scopes[tenant], run, Request::Resume)).unwrap();
            }
        }
        get(self.storage.sweep()).unwrap();
        for _ in 0..=self.runs.len() {
            self.clock.0.fetch_add(60_000, Ordering::Relaxed);
            for claim in get(self.storage.claim(&worker(), 100, Duration::from_secs(10))).unwrap() {
                let end = Settlement::new(Outcome::Succeeded { summary: None });
                get(self.storage.settle(&claim.lease, end)).unwrap();
            }
        }
    }
}
