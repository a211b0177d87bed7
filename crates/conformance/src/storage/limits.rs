//! Behaviour of [`Queue::take`](lime_core::ports::Queue::take): fairness, and limits on what is at work at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use lime_core::Id;
use lime_core::identity::Tenant;
use lime_core::ports::{Handback, Request};
use lime_core::runs::{AgentRun, Lease};

use crate::scene::{
    LONG, PATIENCE, Scene, Subject, begin, end, eventually, in_line, settlement, succeeded, take_when_there,
    worker,
};

fn of(leases: &[Lease], tenant: Id<Tenant>) -> usize {
    leases.iter().filter(|lease| lease.tenant == tenant).count()
}

async fn nothing_more(storage: &Subject, why: &str) {
    assert_eq!(storage.take(&worker(), 10, LONG).await.unwrap(), [], "{why}");
}

/// `take`: a tenant with many runs, at its limit, does not keep those of another waiting.
pub async fn a_tenant_with_many_does_not_starve_one_with_few(storage: Subject) {
    let (many, few) = (Scene::new(&storage).await, Scene::new(&storage).await);
    storage.limit_runs(many.scope.tenant(), Some(4)).await.unwrap();
    many.many_queued(&storage, 200).await;
    few.many_queued(&storage, 5).await;
    in_line(&storage, 205).await;
    let first = take_when_there(&storage, 8, LONG).await;
    assert_eq!((of(&first, many.scope.tenant()), of(&first, few.scope.tenant())), (4, 4));
    let rest = take_when_there(&storage, 1, LONG).await;
    assert_eq!(of(&rest, few.scope.tenant()), 1);
    nothing_more(&storage, "one tenant is at its limit, the other has nothing more").await;
    let claims = begin(&storage, &first).await;
    end(&storage, claims.iter().map(|claim| claim.lease)).await;
    let next = take_when_there(&storage, 4, LONG).await;
    assert_eq!(of(&next, many.scope.tenant()), 4);
    nothing_more(&storage, "the tenant is at its limit again").await;
}

/// `take`: of the tenants with runs in the line, those with the fewest at work come first.
pub async fn tenants_with_the_fewest_at_work_come_first(storage: Subject) {
    let (busy, idle) = (Scene::new(&storage).await, Scene::new(&storage).await);
    busy.many_queued(&storage, 3).await;
    begin(&storage, &take_when_there(&storage, 3, LONG).await).await;
    busy.many_queued(&storage, 4).await;
    idle.many_queued(&storage, 8).await;
    in_line(&storage, 12).await;
    for n in 0..3 {
        let next = take_when_there(&storage, 1, LONG).await;
        assert_eq!(next[0].tenant, idle.scope.tenant(), "number {n}");
    }
    let next = take_when_there(&storage, 4, LONG).await;
    assert_eq!((of(&next, busy.scope.tenant()), of(&next, idle.scope.tenant())), (2, 2));
}

/// `take`: of a tenant's projects with runs in the line, those with the fewest at work come first.
pub async fn a_project_with_many_does_not_starve_one_with_few(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let small = scene.another_project(&storage, "SMALL", 10).await;
    let many: HashSet<_> = scene.many_queued(&storage, 30).await.into_iter().collect();
    let few = vec![AgentRun { project_id: small.id, ..scene.a_run() }; 3];
    storage.submit_all(&scene.scope, few).await.unwrap();
    in_line(&storage, 33).await;
    let mut taken = take_when_there(&storage, 4, LONG).await;
    let of_many = |leases: &[Lease]| leases.iter().filter(|lease| many.contains(&lease.run)).count();
    assert_eq!(of_many(&taken), 2, "two of each are four");
    for _ in 0..2 {
        taken.extend(take_when_there(&storage, 1, LONG).await);
    }
    assert_eq!(of_many(&taken), 3, "three of each are six");
}

/// `take`, `limit_runs`: never more of a tenant at once than its limit, taken or begun; runs under way go on.
pub async fn a_tenants_limit_is_never_passed(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let tenant = scene.scope.tenant();
    storage.limit_runs(tenant, Some(2)).await.unwrap();
    scene.many_queued(&storage, 8).await;
    in_line(&storage, 8).await;
    let mut at_work = begin(&storage, &take_when_there(&storage, 2, LONG).await).await;
    nothing_more(&storage, "the limit is 2").await;
    storage.limit_runs(tenant, Some(3)).await.unwrap();
    at_work.extend(begin(&storage, &take_when_there(&storage, 1, LONG).await).await);
    nothing_more(&storage, "the limit is 3").await;
    storage.limit_runs(tenant, Some(1)).await.unwrap();
    for claim in &at_work {
        storage.heartbeat(&claim.lease, LONG).await.unwrap();
    }
    for claim in at_work.drain(..2) {
        end(&storage, [claim.lease]).await;
        nothing_more(&storage, "the limit is 1").await;
    }
    end(&storage, [at_work[0].lease]).await;
    take_when_there(&storage, 1, LONG).await;
    nothing_more(&storage, "the limit is still 1").await;
    storage.limit_runs(tenant, None).await.unwrap();
    take_when_there(&storage, 4, LONG).await;
}

/// `take`: never more of a project at once than it has agents; other projects go on.
pub async fn a_projects_limit_is_never_passed(storage: Subject) {
    let scene = Scene::new(&storage).await;
    let narrow = scene.another_project(&storage, "NARROW", 1).await;
    let in_narrow = AgentRun { project_id: narrow.id, ..scene.a_run() };
    storage.submit_all(&scene.scope, vec![in_narrow; 4]).await.unwrap();
    let wide: HashSet<_> = scene.many_queued(&storage, 2).await.into_iter().collect();
    in_line(&storage, 6).await;
    let taken = take_when_there(&storage, 3, LONG).await;
    assert_eq!(taken.iter().filter(|lease| wide.contains(&lease.run)).count(), 2);
    nothing_more(&storage, "the project has one agent").await;
    let mut current = *taken.iter().find(|lease| !wide.contains(&lease.run)).unwrap();
    for _ in 0..3 {
        begin(&storage, &[current]).await;
        end(&storage, [current]).await;
        let next = take_when_there(&storage, 1, LONG).await;
        nothing_more(&storage, "the project has one agent").await;
        current = next[0];
    }
}

/// `take`: never more than one run of an agent; agents of other tenants are others, whatever their number.
pub async fn an_agent_works_one_run_at_a_time(storage: Subject) {
    let (ours, theirs) = (Scene::new(&storage).await, Scene::new(&storage).await);
    let of_agent = |scene: &Scene, agent| AgentRun { agent_id: Some(Id::new(agent)), ..scene.a_run() };
    let other_project = ours.another_project(&storage, "OTHER", 10).await;
    let elsewhere = AgentRun { project_id: other_project.id, ..of_agent(&ours, 7) };
    let runs = vec![of_agent(&ours, 7), elsewhere, of_agent(&ours, 8), ours.a_run(), ours.a_run()];
    let runs = storage.submit_all(&ours.scope, runs).await.unwrap();
    let of_seven = [runs[0].id, runs[1].id];
    storage.submit(&theirs.scope, of_agent(&theirs, 7)).await.unwrap();
    in_line(&storage, 6).await;
    let taken = take_when_there(&storage, 5, LONG).await;
    assert_eq!(of(&taken, theirs.scope.tenant()), 1);
    nothing_more(&storage, "the agent works already").await;
    let lease = *taken.iter().find(|lease| of_seven.contains(&lease.run)).unwrap();
    begin(&storage, &[lease]).await;
    end(&storage, [lease]).await;
    let next = take_when_there(&storage, 1, LONG).await[0].run;
    assert!(of_seven.contains(&next) && next != lease.run);
}

/// `take`: a run that is handed back, paused, or whose place was finished is not at work any more.
pub async fn what_is_put_down_makes_room(storage: Subject) {
    let scene = Scene::new(&storage).await;
    storage.limit_runs(scene.scope.tenant(), Some(1)).await.unwrap();
    let runs = scene.many_queued(&storage, 5).await;
    let mut current = take_when_there(&storage, 1, LONG).await[0];
    assert_eq!(current.run, runs[0]);
    storage.finish(&[current]).await.unwrap();
    current = take_when_there(&storage, 1, LONG).await[0];
    assert_eq!(current.run, runs[1]);
    storage.request(&scene.scope, current.run, Request::Pause).await.unwrap();
    current = take_when_there(&storage, 1, LONG).await[0];
    assert_eq!(current.run, runs[2]);
    begin(&storage, &[current]).await;
    storage.request(&scene.scope, current.run, Request::Pause).await.unwrap();
    nothing_more(&storage, "it is not put down yet").await;
    storage.hand_back(&current, Handback::released()).await.unwrap();
    current = take_when_there(&storage, 1, LONG).await[0];
    assert_eq!(current.run, runs[3]);
    storage.request(&scene.scope, current.run, Request::Cancel).await.unwrap();
    assert_eq!(take_when_there(&storage, 1, LONG).await[0].run, runs[4]);
}

/// Who is at work, as far as the workers of a test know.
#[derive(Default)]
struct AtWork {
    runs: HashSet<Id<AgentRun>>,
    ended: usize,
}

impl AtWork {
    fn most<K: std::hash::Hash + Eq>(&self, key: impl Fn(&Id<AgentRun>) -> Option<K>) -> usize {
        let mut counts = HashMap::new();
        self.runs.iter().filter_map(key).for_each(|key| *counts.entry(key).or_insert(0_usize) += 1);
        counts.into_values().max().unwrap_or_default()
    }
}

/// `take`: however many workers take at once, no limit is passed, no run is taken twice, and all are worked.
pub async fn limits_hold_among_concurrent_workers(storage: Subject) {
    const RUNS: usize = 60;
    let (limited, free) = (Scene::new(&storage).await, Scene::new(&storage).await);
    storage.limit_runs(limited.scope.tenant(), Some(3)).await.unwrap();
    let narrow = free.another_project(&storage, "NARROW", 2).await;
    let mut about = HashMap::new();
    for scene in [&limited, &free] {
        let runs = (0..RUNS / 2).map(|n| AgentRun {
            project_id: if n % 3 == 0 && scene.scope == free.scope { narrow.id } else { scene.project.id },
            agent_id: (n % 4 == 0).then_some(Id::new(1)),
            ..scene.a_run()
        });
        for run in storage.submit_all(&scene.scope, runs.collect()).await.unwrap() {
            about.insert(run.id, (scene.scope.tenant(), run.project_id, run.agent_id));
        }
    }
    in_line(&storage, RUNS).await;
    let (limited, narrow) = (limited.scope.tenant(), narrow.id);
    let (about, at_work) = (Arc::new(about), Arc::new(Mutex::new(AtWork::default())));
    let workers = (0..8).map(|_| {
        let (storage, about, at_work) = (storage.clone(), about.clone(), at_work.clone());
        tokio::spawn(async move {
            while at_work.lock().unwrap().ended < RUNS {
                let leases = storage.take(&worker(), 3, LONG).await.unwrap();
                {
                    let mut at_work = at_work.lock().unwrap();
                    for lease in &leases {
                        assert!(at_work.runs.insert(lease.run), "a run was taken twice");
                    }
                    assert!(at_work.most(|run| (about[run].0 == limited).then_some(())) <= 3, "tenant");
                    assert!(at_work.most(|run| (about[run].1 == narrow).then_some(())) <= 2, "project");
                    assert!(at_work.most(|run| Some(about[run].1)) <= 10, "project");
                    assert!(
                        at_work.most(|run| about[run].2.map(|agent| (about[run].0, agent))) <= 1,
                        "agent"
                    );
                }
                for claim in begin(&storage, &leases).await {
                    tokio::task::yield_now().await;
                    at_work.lock().unwrap().runs.remove(&claim.lease.run);
                    storage.settle(&claim.lease, settlement(succeeded())).await.unwrap();
                    at_work.lock().unwrap().ended += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    });
    for worker in tokio::time::timeout(PATIENCE, join_all(workers)).await.expect("the runs are worked") {
        worker.unwrap();
    }
    eventually("the line is empty", async || {
        (storage.depth().await.unwrap() == Default::default()).then_some(())
    })
    .await;
}
