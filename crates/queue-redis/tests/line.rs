//! The line alone, on a real Redis.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::collections::HashSet;
use std::time::Duration;

use lime_core::runs::Lease;
use lime_core::{ErrorKind, Id};
use lime_queue_redis::RedisLine;

use crate::support::{Place, Server, Switch, eventually, run};

const LONG: Duration = Duration::from_secs(60);

fn leases(from: i64, to: i64) -> Vec<Lease> {
    let lease = |n| Lease { tenant: Id::new(1), run: Id::new(n), attempt: Id::new(n) };
    (from..=to).map(lease).collect()
}

fn line(place: &Place, worker: &str) -> RedisLine {
    RedisLine::open(&place.url, format!("{}:line", place.prefix), worker).unwrap()
}

async fn length(place: &Place) -> usize {
    run(&place.url, redis::cmd("XLEN").arg(format!("{}:line", place.prefix))).await.unwrap()
}

#[tokio::test]
async fn leases_come_out_in_order_and_once() {
    let Some(place) = Place::new().await else { return };
    let (one, two) = (line(&place, "one"), line(&place, "two"));
    assert_eq!(one.take(5).await.unwrap(), []);
    one.push(&leases(1, 5), LONG).await.unwrap();
    assert_eq!(one.take(0).await.unwrap(), []);
    assert_eq!(one.take(2).await.unwrap(), leases(1, 2));
    assert_eq!(two.take(9).await.unwrap(), leases(3, 5));
    assert_eq!(one.take(9).await.unwrap(), []);
    assert_eq!(one.ack(&leases(1, 5)).await.unwrap(), 2, "the others are not its own");
    assert_eq!(one.ack(&leases(1, 5)).await.unwrap(), 0);
    assert_eq!(two.ack(&leases(3, 5)).await.unwrap(), 3);
    assert_eq!(two.reclaim(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test]
async fn many_workers_share_nothing() {
    let Some(place) = Place::new().await else { return };
    line(&place, "relay").push(&leases(1, 1_000), LONG).await.unwrap();
    let workers = (0..8).map(|n| {
        let line = line(&place, &format!("worker {n}"));
        tokio::spawn(async move {
            let mut mine = Vec::new();
            loop {
                let leases = line.take(7).await.unwrap();
                if leases.is_empty() {
                    return mine;
                }
                assert_eq!(line.ack(&leases).await.unwrap(), leases.len());
                mine.extend(leases);
            }
        })
    });
    let mut taken = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        taken.extend(worker.await.unwrap());
    }
    assert_eq!(taken.len(), 1_000);
    assert_eq!(taken.into_iter().collect::<HashSet<_>>(), HashSet::from_iter(leases(1, 1_000)));
}

#[tokio::test]
async fn what_was_put_in_before_the_first_worker_is_not_missed() {
    let Some(place) = Place::new().await else { return };
    line(&place, "relay").push(&leases(1, 3), LONG).await.unwrap();
    assert_eq!(line(&place, "late").take(9).await.unwrap(), leases(1, 3));
}

#[tokio::test]
async fn a_lease_whose_time_is_over_is_left_out() {
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    line.push(&leases(1, 1), Duration::from_millis(1)).await.unwrap();
    line.push(&leases(2, 2), LONG).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(line.take(9).await.unwrap(), leases(2, 2));
    assert_eq!(line.reclaim(Duration::ZERO).await.unwrap(), 1, "only the second is held");
}

#[tokio::test]
async fn what_a_dead_worker_has_read_goes_to_another() {
    let Some(place) = Place::new().await else { return };
    let dead = line(&place, "dead");
    dead.push(&leases(1, 3), LONG).await.unwrap();
    dead.push(&leases(4, 4), Duration::from_millis(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(dead.take(9).await.unwrap().len(), 3);
    dead.ack(&leases(1, 1)).await.unwrap();
    let other = line(&place, "other");
    assert_eq!(other.reclaim(LONG).await.unwrap(), 0, "it may be only slow");
    assert_eq!(other.reclaim(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(other.take(9).await.unwrap(), leases(2, 3));
    assert_eq!(other.ack(&leases(2, 3)).await.unwrap(), 2);
    assert_eq!(other.reclaim(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test]
async fn what_nobody_can_read_is_forgotten() {
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    let mut odd = redis::cmd("XADD");
    odd.arg(format!("{}:line", place.prefix)).arg("*").arg("x").arg("y");
    let _: String = run(&place.url, &odd).await.unwrap();
    line.push(&leases(1, 1), LONG).await.unwrap();
    assert_eq!(line.take(9).await.unwrap(), leases(1, 1));
    line.ack(&leases(1, 1)).await.unwrap();
    assert_eq!(line.reclaim(Duration::ZERO).await.unwrap(), 0);
}

#[tokio::test]
async fn the_stream_stays_short_and_keeps_what_is_not_done_with() {
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    line.push(&leases(1, 3_000), LONG).await.unwrap();
    let first = line.take(1_500).await.unwrap();
    assert_eq!(first.len(), 1_500);
    // The 11th is not done with: nothing from there on may go.
    line.ack(&[&first[..10], &first[11..]].concat()).await.unwrap();
    line.ack(&first[10..11]).await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 1_500 {
        let leases = line.take(100).await.unwrap();
        assert!(!leases.is_empty(), "{} of 1500 were left", rest.len());
        line.ack(&leases).await.unwrap();
        rest.extend(leases);
    }
    assert_eq!(rest, leases(1_501, 3_000));
    line.push(&leases(3_001, 3_001), LONG).await.unwrap();
    assert!(length(&place).await < 2_000, "{} are left", length(&place).await);
    assert_eq!(line.take(9).await.unwrap(), leases(3_001, 3_001));
}

#[tokio::test]
async fn what_piles_up_is_tidied_away() {
    let Some(place) = Place::new().await else { return };
    let (one, holder) = (line(&place, "one"), line(&place, "holder"));
    one.tidy(LONG, LONG).await.unwrap();
    one.push(&leases(1, 3), LONG).await.unwrap();
    assert_eq!(one.take(1).await.unwrap(), leases(1, 1));
    assert_eq!(holder.take(1).await.unwrap(), leases(2, 2));
    one.ack(&leases(1, 1)).await.unwrap();
    let workers = async || {
        let mut ask = redis::cmd("XINFO");
        ask.arg("CONSUMERS").arg(format!("{}:line", place.prefix)).arg("workers");
        run::<Vec<redis::Value>>(&place.url, &ask).await.unwrap().len()
    };
    one.tidy(LONG, LONG).await.unwrap();
    assert_eq!((workers().await, length(&place).await), (2, 3));
    tokio::time::sleep(Duration::from_millis(20)).await;
    one.tidy(Duration::from_millis(1), Duration::from_millis(1)).await.unwrap();
    assert_eq!((workers().await, length(&place).await), (1, 0));
    assert_eq!(one.take(9).await.unwrap(), []);
}

#[tokio::test]
async fn a_lost_line_begins_anew() {
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    line.push(&leases(1, 3), LONG).await.unwrap();
    assert_eq!(line.take(1).await.unwrap(), leases(1, 1));
    let _: usize = run(&place.url, redis::cmd("DEL").arg(format!("{}:line", place.prefix))).await.unwrap();
    assert_eq!(line.ack(&leases(1, 1)).await.unwrap(), 0);
    assert_eq!(line.reclaim(Duration::ZERO).await.unwrap(), 0);
    line.push(&leases(4, 5), LONG).await.unwrap();
    assert_eq!(line.take(9).await.unwrap(), leases(4, 5));
}

#[tokio::test]
async fn an_unused_line_goes_by_itself() {
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    let expires = async || {
        let ttl = run::<i64>(&place.url, redis::cmd("PTTL").arg(format!("{}:line", place.prefix))).await;
        ttl.unwrap() > 0
    };
    line.take(1).await.unwrap();
    assert!(expires().await);
    line.push(&leases(1, 1), LONG).await.unwrap();
    assert!(expires().await);
}

#[tokio::test]
async fn a_line_lives_as_long_as_its_longest_lease() {
    const AN_HOUR: Duration = Duration::from_secs(3_600);
    let Some(place) = Place::new().await else { return };
    let line = line(&place, "one");
    let left = async || {
        let left = run::<i64>(&place.url, redis::cmd("PTTL").arg(format!("{}:line", place.prefix))).await;
        Duration::from_millis(left.unwrap().try_into().unwrap())
    };
    line.push(&leases(1, 1), LONG).await.unwrap();
    line.push(&leases(2, 2), 2 * AN_HOUR).await.unwrap();
    assert!(left().await > AN_HOUR);
    line.push(&leases(3, 3), LONG).await.unwrap();
    assert!(left().await > AN_HOUR, "a lease that is sooner over shortens it");
    assert_eq!(line.take(9).await.unwrap(), leases(1, 3));
    assert!(left().await > AN_HOUR, "the first worker shortens it");
}

#[tokio::test]
async fn after_a_failover_the_line_is_there_again() {
    let (Some(old), Some(new)) = (Server::start().await, Server::start().await) else { return };
    let switch = Switch::to(&old).await;
    let line = RedisLine::open(&switch.url(), "line", "one").unwrap();
    line.push(&leases(1, 1), LONG).await.unwrap();
    let mut replica = redis::cmd("REPLICAOF");
    let _: String = run(&old.url(), replica.arg("127.0.0.1").arg(new.port)).await.unwrap();
    assert_eq!(line.push(&leases(2, 2), LONG).await.unwrap_err().kind(), ErrorKind::Unavailable);
    switch.turn_to(&new);
    eventually("the line is on the new server", async || line.push(&leases(3, 3), LONG).await.ok()).await;
    assert_eq!(line.take(9).await.unwrap(), leases(3, 3));
}

#[tokio::test]
async fn a_broken_connection_is_made_anew() {
    let Some(server) = Server::start().await else { return };
    let place = Place::on(server.url());
    let line = line(&place, "one");
    line.push(&leases(1, 1), LONG).await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    let killed: u32 = run(&place.url, kill.arg("KILL").arg("TYPE").arg("normal")).await.unwrap();
    assert_eq!(killed, 1);
    eventually("the line is there again", async || line.take(1).await.ok().filter(|taken| !taken.is_empty()))
        .await;
}

#[tokio::test]
async fn without_a_redis_it_says_so() {
    // Nothing listens on port 1.
    let line = RedisLine::open("redis://:secret@127.0.0.1:1", "line", "one").unwrap();
    for error in [line.take(1).await.unwrap_err(), line.push(&leases(1, 1), LONG).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_retryable() && !error.report().contains("secret"), "{error:?}");
    }
    let error = RedisLine::open("http://:secret@127.0.0.1", "line", "one").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.report().contains("secret"), "{error:?}");
}
