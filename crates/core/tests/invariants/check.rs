//! What must hold after every step.

use std::collections::HashSet;

use lime_core::governance::{Approval, ApprovalStatus};
use lime_core::ports::{Queue, QueueDepth};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunAttempt, RunSignal, RunStatus};
use lime_core::{Id, LookupExt, Query, Stored};

use crate::op::Op;
use crate::world::{World, get};

/// All of it.
pub(crate) fn all(world: &World, op: &Op) {
    let runs: Vec<_> = world.runs.iter().map(|known| (*known, world.run_of(*known))).collect();
    let at_work = world.at_work();
    let mut keys = HashSet::new();
    for (known, run) in &runs {
        let ended = run.status.is_final();
        assert_eq!(run.ended_at.is_some(), ended, "{op:?}");
        if let Some(key) = run.unique_key.as_ref().filter(|_| !ended) {
            assert!(keys.insert((known.0, key.clone())), "{op:?}: two runs have the key {key}");
        }
        let worked = matches!(run.status, RunStatus::Running | RunStatus::WaitingApproval);
        let begun = world.held.iter().any(|held| held.lease.run == run.id && held.started && !held.gone);
        assert_eq!(worked, begun, "{op:?}: {} and its lease do not go together", run.status);
        assert!((0..=AgentRun::MAX_CRASHES).contains(&run.crash_count));
        one_life_after_another(world, *known, run);
        attempts_are_counted(world, *known, run);
        if ended {
            let query = Query::all().filter(Approval::RUN_ID.eq(run.id));
            let query = query.filter(Approval::STATUS.eq(ApprovalStatus::Pending));
            let open = get(world.storage.all(&world.scopes[known.0], query)).unwrap();
            assert_eq!(open, [], "{op:?}: a question is open after the end");
        }
    }
    let live = world.held.iter().filter(|held| !held.gone).count();
    assert_eq!(live, at_work.len(), "{op:?}: a run is held twice");
    let depth = get(world.storage.depth()).unwrap();
    let count = |of: fn(&AgentRun) -> bool| runs.iter().filter(|(_, run)| of(run)).count() as u64;
    let unended = count(|run| !run.status.is_final());
    let places = depth.ready + depth.scheduled + depth.leased + depth.paused;
    assert_eq!(places + world.placeless.len() as u64, unended, "{op:?}: a run has lost its place");
    assert_eq!(depth.leased, at_work.len() as u64, "{op:?}");
    assert_eq!(depth.paused, count(|run| run.status == RunStatus::Paused), "{op:?}");
}

/// The log has no gap, tells of one legal state after another, and of one end in each life.
fn one_life_after_another(world: &World, known: (usize, Id<AgentRun>), run: &Stored<AgentRun>) {
    let log = world.log(known);
    assert!(log.iter().zip(1..).all(|(event, seq)| event.seq == seq), "a gap in {log:?}");
    assert!(log.is_sorted_by_key(|event| event.ts));
    let mut told: Option<RunStatus> = None;
    let mut last_change = 0;
    for event in &log {
        let AgentEvent::Status { status, .. } = event.event else {
            assert!(told.is_some_and(|told| !told.is_final()), "{event:?} after the end");
            continue;
        };
        let legal = match told {
            None => status == RunStatus::Queued,
            Some(told) => RunSignal::ALL.iter().any(|signal| told.after(*signal) == Ok(status)),
        };
        assert!(legal, "{status} after {told:?}");
        told = Some(status);
        last_change = event.seq;
    }
    assert_eq!((told, last_change), (Some(run.status), run.last_seq));
}

/// Attempts are numbered from 1, and only the one that holds the run has no end.
fn attempts_are_counted(world: &World, (tenant, id): (usize, Id<AgentRun>), run: &AgentRun) {
    let query = Query::all().filter(RunAttempt::RUN_ID.eq(id));
    let attempts = get(world.storage.all(&world.scopes[tenant], query)).unwrap();
    let mut numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(1..=run.attempt_count));
    let worked = matches!(run.status, RunStatus::Running | RunStatus::WaitingApproval);
    let open: Vec<_> = attempts.iter().filter(|attempt| attempt.outcome.is_none()).collect();
    assert_eq!(open.len(), usize::from(worked));
    assert!(open.iter().all(|attempt| Some(attempt.id) == run.attempt_id));
}

/// What was just taken passes no limit, leaves nothing that could have been taken too, and nobody who had less.
pub(crate) fn fair(world: &World, taken: &[Lease], max: usize) {
    assert!(taken.len() <= max);
    let runs: Vec<_> = world.runs.iter().map(|known| (known.0, world.run_of(*known))).collect();
    let at_work = world.at_work();
    let working: Vec<_> = runs.iter().filter(|(_, run)| at_work.contains(&run.id)).collect();
    let of_tenant = |tenant: usize| working.iter().filter(|(at, _)| *at == tenant).count();
    let of_project =
        |run: &AgentRun| working.iter().filter(|(_, other)| other.project_id == run.project_id).count();
    let of_agent = |tenant: usize, run: &AgentRun| {
        working.iter().filter(|(at, other)| *at == tenant && other.agent_id == run.agent_id).count()
    };
    let most_of_tenant =
        |tenant: usize| world.limits[tenant].map_or(usize::MAX, |most| usize::try_from(most).unwrap());
    let most_of_project = |tenant: usize, run: &AgentRun| {
        let project = world.projects[tenant].iter().find(|project| project.id == run.project_id);
        usize::try_from(project.unwrap().max_concurrent_agents).unwrap()
    };
    let just_taken: Vec<_> =
        runs.iter().filter(|(_, run)| taken.iter().any(|lease| lease.run == run.id)).collect();
    for (tenant, run) in &just_taken {
        assert!(of_tenant(*tenant) <= most_of_tenant(*tenant), "the tenant's limit is passed");
        assert!(of_project(run) <= most_of_project(*tenant, run), "the project's limit is passed");
        assert!(run.agent_id.is_none() || of_agent(*tenant, run) == 1, "the agent works twice");
        assert!(run.run_at.is_none_or(|at| at <= world.now()), "it was taken before its time");
        assert_eq!(run.status, RunStatus::Queued);
    }
    let could_be_taken = runs.iter().filter(|(tenant, run)| {
        run.status == RunStatus::Queued
            && !at_work.contains(&run.id)
            && !world.placeless.contains(&run.id)
            && run.run_at.is_none_or(|at| at <= world.now())
            && of_tenant(*tenant) < most_of_tenant(*tenant)
            && of_project(run) < most_of_project(*tenant, run)
            && (run.agent_id.is_none() || of_agent(*tenant, run) == 0)
    });
    for (tenant, left) in could_be_taken {
        assert_eq!(taken.len(), max, "{left:?} could have been taken too");
        for (other, run) in &just_taken {
            if other == tenant {
                assert!(run.priority >= left.priority, "{left:?} was to come before {run:?}");
            } else {
                assert!(
                    of_tenant(*other) <= of_tenant(*tenant) + 1,
                    "a tenant with less at work was left out"
                );
            }
        }
    }
}

/// All runs have ended, and the line is empty.
pub(crate) fn nothing_is_left(world: &World) {
    for known in &world.runs {
        let run = world.run_of(*known);
        assert!(run.status.is_final(), "{run:?} was lost");
        one_life_after_another(world, *known, &run);
        attempts_are_counted(world, *known, &run);
    }
    assert_eq!(get(world.storage.depth()).unwrap(), QueueDepth::default());
}
