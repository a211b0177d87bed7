//! How runs reach workers, whatever happens to relays, workers and Redis.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::time::Duration;

use lime_conformance::scene::{LONG, OTHER_PROVIDER, PROVIDER, worker};
use lime_core::ErrorKind;
use lime_core::ports::{Claimant, Queue};
use lime_core::runs::AgentRun;
use lime_queue_redis::{RedisOptions, RedisQueue};

use crate::support::work::{LINE, all_end, end, memory, named, scene, submit, work};
use crate::support::{Place, Server, eventually, run};

/// What a lease on its way is good for, where a test waits until it is over.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn runs_reach_workers_over_redis() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let queue = place.queue(&storage);
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 40).await;
    let workers: Vec<_> = (0..4).map(|n| work(&place.queue(&storage), &format!("worker {n}"), 3)).collect();
    all_end(&storage, &scene, &runs).await;
    assert_eq!(place.pushed(LINE).await, 40);
    workers.iter().for_each(|worker| worker.abort());
}

#[tokio::test]
async fn a_worker_that_waits_is_woken() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let (server, worker) = (place.queue(&storage), place.queue(&storage));
    place.relay(&server).await;
    let scene = scene(&storage).await;
    assert!(worker.claim(&named("sleeper"), 3, LONG).await.unwrap().is_empty());
    for n in 1..=10 {
        let waiting = worker.clone();
        let waiting = tokio::spawn(async move { waiting.queued().await });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let submitted = submit(&server, &scene, 1).await;
        waiting.await.unwrap();
        assert_eq!(place.pushed(LINE).await, n, "it is in the line before the worker asks for it");
        let claims = worker.claim(&named("sleeper"), 3, LONG).await.unwrap();
        assert_eq!(
            claims.iter().map(|claim| claim.lease.run).collect::<std::collections::HashSet<_>>(),
            submitted
        );
        end(&worker, &claims[0]).await;
    }
}

#[tokio::test]
async fn nothing_is_taken_that_no_worker_asked_for() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let queue = place.queue(&storage);
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    submit(&queue, &scene, 5).await;
    let other = AgentRun { provider: OTHER_PROVIDER, ..scene.a_run() };
    queue.submit(&scene.scope, other).await.unwrap();
    let only = Claimant { providers: vec![PROVIDER], ..worker() };
    let claims = queue.claim(&only, 2, LONG).await.unwrap();
    assert_eq!(claims.len(), 2);
    tokio::time::sleep(Duration::from_millis(700)).await;
    let depth = queue.depth().await.unwrap();
    assert_eq!((depth.ready, depth.leased), (4, 2));
}

#[tokio::test]
async fn a_lost_line_loses_no_run() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { hand_over: SHORT, ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 120).await;
    let workers: Vec<_> = (0..4).map(|n| work(&queue, &format!("worker {n}"), 3)).collect();
    let vandal = {
        let (url, line) = (place.url.clone(), format!("{}:{LINE}", place.prefix));
        tokio::spawn(async move {
            let mut lost = 0;
            loop {
                lost += run::<u32>(&url, redis::cmd("DEL").arg(&line)).await.unwrap();
                if lost > 20 {
                    return;
                }
            }
        })
    };
    vandal.await.unwrap();
    all_end(&storage, &scene, &runs).await;
    workers.iter().for_each(|worker| worker.abort());
}

#[tokio::test]
async fn a_stream_full_of_lies_does_no_harm() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let queue = place.queue(&storage);
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 6).await;
    let tenant = scene.scope.tenant();
    for run_id in &runs {
        for lie in
            [format!("{tenant}.{run_id}.99999.60000"), format!("7777.{run_id}.1.60000"), "nonsense".into()]
        {
            let mut add = redis::cmd("XADD");
            add.arg(format!("{}:{LINE}", place.prefix)).arg("*").arg("l").arg(lie);
            let _: String = run(&place.url, &add).await.unwrap();
        }
    }
    let worker = work(&queue, "worker", 4);
    all_end(&storage, &scene, &runs).await;
    worker.abort();
}

#[tokio::test]
async fn a_killed_relay_is_not_missed() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let queue = place.queue(&storage);
    let scene = scene(&storage).await;
    // Each relay in a process of its own.
    let first = place.queue(&storage);
    let first_relay = place.relay(&first).await;
    let runs = submit(&queue, &scene, 60).await;
    let workers: Vec<_> = (0..2).map(|n| work(&place.queue(&storage), &format!("worker {n}"), 2)).collect();
    eventually("the relay works", async || (place.pushed(LINE).await > 5).then_some(())).await;
    first_relay.abort();
    all_end(&storage, &scene, &runs).await;
    // A new one takes over.
    let before = place.pushed(LINE).await;
    let second = place.queue(&storage);
    place.relay(&second).await;
    let more = submit(&queue, &scene, 10).await;
    all_end(&storage, &scene, &runs.union(&more).copied().collect()).await;
    eventually("the line is used again", async || {
        submit(&queue, &scene, 1).await;
        (place.pushed(LINE).await > before).then_some(())
    })
    .await;
    workers.iter().for_each(|worker| worker.abort());
}

#[tokio::test]
async fn relays_do_not_disturb_each_other() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    for _ in 0..3 {
        let queue = place.queue(&storage);
        place.relay(&queue).await;
    }
    let queue = place.queue(&storage);
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 40).await;
    let workers: Vec<_> = (0..3).map(|n| work(&queue, &format!("worker {n}"), 3)).collect();
    all_end(&storage, &scene, &runs).await;
    assert_eq!(place.pushed(LINE).await, 40, "only one relay feeds the line");
    workers.iter().for_each(|worker| worker.abort());
}

#[tokio::test]
async fn a_relay_takes_over_from_one_that_is_gone_without_a_word() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { answer_within: Duration::from_millis(50), ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    let mut ghost = redis::cmd("SET");
    ghost.arg(format!("{}:relay", place.prefix)).arg("ghost").arg("PX").arg(1_000);
    let _: String = run(&place.url, &ghost).await.unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    // Nobody answers yet.
    submit(&queue, &scene, 1).await;
    let claim = queue.claim(&worker(), 1, LONG).await.unwrap().pop().unwrap();
    end(&queue, &claim).await;
    assert_eq!(place.pushed(LINE).await, 0);
    eventually("the relay has taken over", async || {
        submit(&queue, &scene, 1).await;
        let claim = queue.claim(&worker(), 1, LONG).await.unwrap().pop().unwrap();
        end(&queue, &claim).await;
        (place.pushed(LINE).await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_worker_had_read_is_begun_by_another() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { reclaim_after: SHORT, ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 3).await;
    // It has read them, and is never heard of again.
    let killed = place.queue(&storage);
    assert_eq!(killed.take(&named("killed"), 3, LONG).await.unwrap().len(), 3);
    drop(killed);
    let worker = work(&queue, "worker", 2);
    all_end(&storage, &scene, &runs).await;
    worker.abort();
}

#[tokio::test]
async fn a_slow_worker_finds_begun_what_another_was_given() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { reclaim_after: Duration::from_millis(50), ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let runs = submit(&queue, &scene, 1).await;
    let slow = queue.take(&named("slow"), 1, LONG).await.unwrap();
    let other = eventually("another is given it", async || {
        queue.claim(&named("quick"), 1, LONG).await.unwrap().pop()
    })
    .await;
    assert!(runs.contains(&other.lease.run));
    assert!(queue.start(&named("slow"), &slow, LONG).await.unwrap().is_empty());
    end(&queue, &other).await;
    all_end(&storage, &scene, &runs).await;
}

#[tokio::test]
async fn finishing_takes_leases_out_of_the_line() {
    let Some(mut place) = Place::new().await else { return };
    let storage = memory();
    let options = RedisOptions { reclaim_after: Duration::from_millis(50), ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    submit(&queue, &scene, 8).await;
    let leases = queue.take(&worker(), 32, LONG).await.unwrap();
    assert_eq!(leases.len(), 8);
    assert_eq!(queue.finish(&leases).await.unwrap(), 8);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(queue.take(&worker(), 32, LONG).await.unwrap().is_empty());
    assert_eq!(place.pushed(LINE).await, 8, "none was put into the line again");
    assert_eq!(queue.sweep().await.unwrap(), 8);
}

#[tokio::test]
async fn the_work_goes_on_while_redis_is_down() {
    let Some(mut server) = Server::start().await else { return };
    let mut place = Place::on(server.url());
    let storage = memory();
    let options = RedisOptions { hand_over: SHORT, ..place.options() };
    let queue = RedisQueue::new(storage.clone(), &place.url, options).unwrap();
    place.relay(&queue).await;
    let scene = scene(&storage).await;
    let mut runs = submit(&queue, &scene, 60).await;
    let workers: Vec<_> = (0..3).map(|n| work(&queue, &format!("worker {n}"), 2)).collect();
    eventually("the relay works", async || (place.pushed(LINE).await > 5).then_some(())).await;
    server.kill();
    all_end(&storage, &scene, &runs).await;
    runs.extend(submit(&queue, &scene, 20).await);
    all_end(&storage, &scene, &runs).await;
    // It comes back empty, and is used again.
    assert!(server.up().await);
    eventually("the line is used again", async || {
        runs.extend(submit(&queue, &scene, 2).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
        (place.pushed(LINE).await > 0).then_some(())
    })
    .await;
    all_end(&storage, &scene, &runs).await;
    workers.iter().for_each(|worker| worker.abort());
}

#[tokio::test]
async fn a_redis_that_was_never_there_is_no_error() {
    let storage = memory();
    let queue = RedisQueue::new(storage.clone(), "redis://127.0.0.1:1", RedisOptions::default()).unwrap();
    let scene = scene(&storage).await;
    let relay = {
        let queue = queue.clone();
        tokio::spawn(async move { queue.relay().await })
    };
    let runs = submit(&queue, &scene, 10).await;
    let worker = work(&queue, "worker", 3);
    all_end(&storage, &scene, &runs).await;
    worker.abort();
    relay.abort();
}

#[tokio::test]
async fn times_of_nothing_are_refused() {
    const NOTHING: Duration = Duration::from_micros(999);
    let fine = RedisOptions::default();
    let refused = [
        ("hand_over", RedisOptions { hand_over: NOTHING, ..fine.clone() }),
        ("reclaim_after", RedisOptions { reclaim_after: NOTHING, ..fine.clone() }),
        ("answer_within", RedisOptions { answer_within: NOTHING, ..fine.clone() }),
        ("look_every", RedisOptions { look_every: NOTHING, ..fine }),
    ];
    for (name, options) in refused {
        let error = RedisQueue::new(memory(), "redis://127.0.0.1:1", options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().starts_with(name), "{error}");
    }
}

#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let Some(server) = Server::start().await else { return };
    // As docs/redis.md says.
    let rights = "+@connection +@pubsub +@stream +@scripting +set +get +del +pexpire +time";
    let mut user = redis::cmd("ACL");
    user.arg("SETUSER").arg("fleet").arg("on").arg(">secret").arg("~lime:*").arg("&lime:*");
    user.arg(rights.split(' ').collect::<Vec<_>>());
    let _: String = run(&server.url(), &user).await.unwrap();
    let storage = memory();
    let url = server.url().replace("redis://", "redis://fleet:secret@");
    let options = RedisOptions { reclaim_after: SHORT, ..RedisOptions::default() };
    let queue = RedisQueue::new(storage.clone(), &url, options).unwrap();
    let scene = scene(&storage).await;
    let mut place = Place::on(server.url());
    place.prefix = "lime".into();
    place.relay(&queue).await;
    let killed = queue.take(&named("killed"), 1, LONG).await.unwrap();
    assert!(killed.is_empty());
    let runs = submit(&queue, &scene, 6).await;
    assert_eq!(queue.take(&named("killed"), 2, LONG).await.unwrap().len(), 2);
    let worker = work(&queue, "worker", 2);
    all_end(&storage, &scene, &runs).await;
    worker.abort();
    let mut refused = redis::cmd("ACL");
    let refused: Vec<redis::Value> = run(&server.url(), refused.arg("LOG")).await.unwrap();
    assert_eq!(refused, [], "something was refused");
    assert!(place.pushed(LINE).await > 6, "what was reclaimed is put into the line again");
}
