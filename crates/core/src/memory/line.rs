//! The line of runs that wait for workers: who is where in it, and who comes next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::State;
use crate::Id;
use crate::agents::Agent;
use crate::identity::Tenant;
use crate::planning::Project;
use crate::ports::QueueDepth;
use crate::runs::{AgentRun, ProviderId, RunAttempt};

/// The place of a run that has not ended.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) tenant: Id<Tenant>,
    pub(super) at: At,
}

/// Where in the line a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// It waits for a worker since this time, or until it.
    Waiting(DateTime<Utc>),
    /// A worker holds it.
    Leased(Held),
    /// A person has put it on hold.
    Paused,
}

/// A lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) token: Id<RunAttempt>,
    pub(super) until: DateTime<Utc>,
    pub(super) started: bool,
}

/// The line, by the ids of runs.
#[derive(Debug, Default)]
pub(super) struct Line(pub(super) BTreeMap<Id<AgentRun>, Place>);

impl Line {
    pub(super) fn put(&mut self, run: Id<AgentRun>, tenant: Id<Tenant>, at: At) {
        self.0.insert(run, Place { tenant, at });
    }

    pub(super) fn held(&self, run: Id<AgentRun>) -> Option<Held> {
        match self.0.get(&run)?.at {
            At::Leased(held) => Some(held),
            At::Waiting(_) | At::Paused => None,
        }
    }

    pub(super) fn set(&mut self, run: Id<AgentRun>, at: At) {
        if let Some(place) = self.0.get_mut(&run) {
            place.at = at;
        }
    }

    /// Puts the runs of a tenant back that were taken and not begun.
    pub(super) fn put_back(&mut self, tenant: Id<Tenant>, now: DateTime<Utc>) {
        for place in self.0.values_mut().filter(|place| place.tenant == tenant) {
            if matches!(place.at, At::Leased(held) if !held.started) {
                place.at = At::Waiting(now);
            }
        }
    }

    pub(super) fn depth(&self, now: DateTime<Utc>, is_deleted: impl Fn(Id<Tenant>) -> bool) -> QueueDepth {
        let mut depth = QueueDepth::default();
        for place in self.0.values() {
            match place.at {
                At::Waiting(_) | At::Paused if is_deleted(place.tenant) => {}
                At::Waiting(from) if from <= now => {
                    depth.ready += 1;
                    let waited = u64::try_from((now - from).num_milliseconds()).unwrap_or_default();
                    depth.oldest_ready_ms = depth.oldest_ready_ms.max(waited);
                }
                At::Waiting(_) => depth.scheduled += 1,
                At::Leased(_) => depth.leased += 1,
                At::Paused => depth.paused += 1,
            }
        }
        depth
    }
}

/// How many runs are at work, by what limits them.
#[derive(Default)]
struct AtWork {
    tenants: HashMap<Id<Tenant>, i32>,
    projects: HashMap<Id<Project>, i32>,
    agents: HashMap<(Id<Tenant>, Id<Agent>), i32>,
}

impl State {
    /// The runs to work next, one after another: always one of the tenant, then of the project, with the fewest at work.
    pub(super) fn next_in_line(
        &mut self,
        providers: &[ProviderId],
        max: usize,
        now: DateTime<Utc>,
    ) -> Vec<Id<AgentRun>> {
        let gone = self.deleted_tenants.clone();
        let mut at_work = AtWork::default();
        let mut waiting = Vec::new();
        let places: Vec<_> = self.line.0.iter().map(|(run, place)| (*run, place.clone())).collect();
        for (id, place) in places {
            let run = self.run(id);
            let (project, agent) = (run.project_id, run.agent_id);
            match place.at {
                At::Leased(_) => at_work.add(place.tenant, project, agent),
                At::Waiting(from)
                    if from <= now && providers.contains(&run.provider) && !gone.contains(&place.tenant) =>
                {
                    waiting.push((id, place.tenant, project, agent, run.priority));
                }
                At::Waiting(_) | At::Paused => {}
            }
        }
        let mut next = Vec::new();
        while next.len() < max {
            let free = waiting.iter().enumerate().filter(|(_, (_, tenant, project, agent, _))| {
                at_work.tenants.get(tenant).copied().unwrap_or_default() < self.most_of_tenant(*tenant)
                    && at_work.projects.get(project).copied().unwrap_or_default()
                        < self.most_of_project(*project)
                    && agent.is_none_or(|agent| !at_work.agents.contains_key(&(*tenant, agent)))
            });
            let first = free.min_by_key(|(_, (id, tenant, project, _, priority))| {
                let tenant_at_work = at_work.tenants.get(tenant).copied().unwrap_or_default();
                let project_at_work = at_work.projects.get(project).copied().unwrap_or_default();
                (tenant_at_work, *tenant, Reverse(*priority), project_at_work, *id)
            });
            let Some((index, _)) = first else { break };
            let (id, tenant, project, agent, _) = waiting.swap_remove(index);
            at_work.add(tenant, project, agent);
            next.push(id);
        }
        next
    }

    fn most_of_tenant(&self, tenant: Id<Tenant>) -> i32 {
        let stored = self.tenants.iter().find(|stored| stored.id == tenant);
        stored.and_then(|tenant| tenant.max_concurrent_runs).unwrap_or(i32::MAX)
    }

    fn most_of_project(&self, project: Id<Project>) -> i32 {
        let row = self.table_ref::<Project>().and_then(|table| table.rows.get(&project));
        row.map_or(i32::MAX, |row| row.stored.max_concurrent_agents)
    }
}

impl AtWork {
    fn add(&mut self, tenant: Id<Tenant>, project: Id<Project>, agent: Option<Id<Agent>>) {
        *self.tenants.entry(tenant).or_default() += 1;
        *self.projects.entry(project).or_default() += 1;
        if let Some(agent) = agent {
            *self.agents.entry((tenant, agent)).or_default() += 1;
        }
    }
}
