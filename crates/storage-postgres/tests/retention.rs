//! What is made ahead of the log, and what is taken off behind it, on a server and embedded.
#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod support;

use std::time::Duration;

use chrono::{DateTime, Datelike, Months, Utc};
use futures_util::StreamExt;
use lime_core::ports::{EventLog, Queue, Request};
use lime_core::runs::{AgentRun, Failure, FailureKind, Lease, Outcome};
use lime_core::{Id, Scope};
use lime_storage_postgres::sea_orm::ConnectionTrait;
use lime_storage_postgres::{PgStorage, Purge, Purged};

use crate::support::{as_owner, claim, database, log, open, scene, settlement, submit, texts};

const LONG: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const TABLES: &str = "SELECT inhrelid::regclass::text FROM pg_inherits
    WHERE inhparent = 'agent_events'::regclass ORDER BY 1";

async fn run(storage: &PgStorage, sql: &str) {
    as_owner(storage, sql).await;
}

/// The first moment of the month so many months from now.
fn month(from_now: i32) -> DateTime<Utc> {
    let first = DateTime::from(std::time::SystemTime::now());
    let first: DateTime<Utc> = first;
    let first = first.date_naive().with_day(1).unwrap().and_hms_opt(0, 0, 0).unwrap().and_utc();
    if from_now < 0 {
        first - Months::new(from_now.unsigned_abs())
    } else {
        first + Months::new(from_now.unsigned_abs())
    }
}

fn table(from_now: i32) -> String {
    format!("agent_events_{}", month(from_now).format("%Y_%m"))
}

/// A run that ended so many months ago, a day into the month, after as many events as said.
async fn ended(
    storage: &PgStorage,
    scope: &(Scope, lime_core::Stored<lime_core::planning::Project>),
    ago: i32,
    events: usize,
) -> Lease {
    let (scope, project) = scope;
    submit(storage, scope, project).await;
    let lease = claim(storage, LONG).await.lease;
    storage.append(&lease, vec![log("x"); events].into()).await.unwrap();
    let failed = Outcome::Failed(Failure::new(FailureKind::Network, "no"));
    storage.settle(&lease, settlement(failed)).await.unwrap();
    age(storage, lease.run, ago).await;
    lease
}

/// As if it had been worked so many months ago, which no port can do.
async fn age(storage: &PgStorage, run_id: Id<AgentRun>, ago: i32) {
    let at = (month(-ago) + DAY).to_rfc3339();
    let sql = format!(
        "UPDATE agent_runs SET created_at = '{at}', ended_at = '{at}' WHERE id = {run_id};
         UPDATE agent_events SET ts = '{at}' WHERE agent_run_id = {run_id}"
    );
    run(storage, &sql).await;
}

async fn left(storage: &PgStorage) -> Vec<String> {
    let left = "SELECT agent_run_id || ':' || count(*) FROM agent_events GROUP BY agent_run_id ORDER BY agent_run_id";
    texts(storage.connection(), left).await
}

async fn make(storage: &PgStorage, from_now: i32) {
    run(storage, &format!("SELECT agent_events_add_month('{}')", table(from_now))).await;
}

async fn purge(storage: &PgStorage, older_than: Duration, dry_run: bool) -> Purged {
    storage.purge(&Purge { older_than, dry_run }).await.unwrap()
}

async fn months_are_made_ahead(storage: &PgStorage) {
    let ahead: Vec<_> = (0..=3).map(table).chain(["agent_events_default".into()]).collect();
    assert_eq!(texts(storage.connection(), TABLES).await, ahead);
    assert_eq!(storage.maintain().await.unwrap(), [""; 0]);
    run(storage, &format!("DROP TABLE {}, {}", table(2), table(3))).await;
    // Somebody whose clock is ahead, or months in which nobody maintained: it is kept, and moved.
    let scene = scene(storage).await;
    let lease = ended(storage, &scene, 0, 5).await;
    let late = month(2).to_rfc3339();
    run(storage, &format!("UPDATE agent_events SET ts = '{late}' WHERE seq > 4")).await;
    let of = |name: &str| format!("SELECT count(*)::text FROM {name}");
    assert_eq!(texts(storage.connection(), &of("agent_events_default")).await, ["4"]);
    assert_eq!(storage.maintain().await.unwrap(), [table(2), table(3)]);
    assert_eq!(texts(storage.connection(), TABLES).await, ahead);
    assert_eq!(texts(storage.connection(), &of("agent_events_default")).await, ["0"]);
    assert_eq!(texts(storage.connection(), &of(&table(2))).await, ["4"]);
    assert_eq!(storage.read(&scene.0, lease.run, 0, 100).await.unwrap().len(), 8);
}

/// A log that began in one month and ended in the next is one log.
async fn a_log_goes_over_the_end_of_a_month(storage: &PgStorage) {
    let scene = scene(storage).await;
    make(storage, -1).await;
    let lease = ended(storage, &scene, 1, 6).await;
    let first = month(0);
    let sql = format!(
        "UPDATE agent_events SET ts = '{}'::timestamptz + (seq - 5) * interval '1 microsecond'",
        first.to_rfc3339()
    );
    run(storage, &sql).await;
    let of = |name: String| format!("SELECT string_agg(seq::text, ' ' ORDER BY seq) FROM {name}");
    assert_eq!(texts(storage.connection(), &of(table(-1))).await, ["1 2 3 4"]);
    assert_eq!(texts(storage.connection(), &of(table(0))).await, ["5 6 7 8 9"]);
    let read = storage.read(&scene.0, lease.run, 2, 4).await.unwrap();
    assert_eq!(read.iter().map(|event| event.seq).collect::<Vec<_>>(), [3, 4, 5, 6]);
    let all: Vec<_> = storage.subscribe(&scene.0, lease.run, 0).collect().await;
    assert_eq!(all.len(), 9);
}

async fn old_events_are_purged(storage: &PgStorage) {
    let scene = scene(storage).await;
    for ago in [-3, -2, -1] {
        make(storage, ago).await;
    }
    let (oldest, old) = (ended(storage, &scene, 3, 2).await, ended(storage, &scene, 2, 12_345).await);
    let (last, new) = (ended(storage, &scene, 1, 3).await, ended(storage, &scene, 0, 4).await);
    // One that began long ago and works still keeps all it has, and its months.
    let (scope, project) = &scene;
    submit(storage, scope, project).await;
    let working = claim(storage, LONG).await.lease;
    storage.append(&working, vec![log("x"); 3].into()).await.unwrap();
    let at = (month(-2) + DAY).to_rfc3339();
    let sql = format!(
        "UPDATE agent_runs SET created_at = '{at}' WHERE id = {0};
         UPDATE agent_events SET ts = '{at}' WHERE agent_run_id = {0} AND seq < 4",
        working.run
    );
    run(storage, &sql).await;
    let all = [(oldest, 5), (old, 12_348), (last, 6), (new, 7), (working, 5)];
    let all: Vec<_> = all.iter().map(|(lease, count)| format!("{}:{count}", lease.run)).collect();
    assert_eq!(left(storage).await, all);

    let since = (DateTime::<Utc>::from(std::time::SystemTime::now()) - month(-1)).to_std().unwrap();
    let dry = purge(storage, since, true).await;
    assert_eq!((dry.runs, dry.events, dry.dropped.clone()), (2, 5 + 12_348, vec![table(-3)]));
    assert_eq!(left(storage).await, all, "a dry run did something");
    let done = purge(storage, since, false).await;
    assert_eq!((done.runs, done.events, &done.dropped), (dry.runs, dry.events, &dry.dropped));
    assert_eq!(left(storage).await, all[2..]);
    assert!(!texts(storage.connection(), TABLES).await.contains(&table(-3)));
    let purged = "SELECT id::text FROM agent_runs WHERE events_purged_at IS NOT NULL ORDER BY id";
    assert_eq!(texts(storage.connection(), purged).await, [oldest.run.to_string(), old.run.to_string()]);
    let again = purge(storage, since, false).await;
    assert_eq!((again.runs, again.events, again.dropped), (0, 0, vec![]));

    // An empty log of a run that has ended ends.
    let rest: Vec<_> = storage.subscribe(scope, old.run, 0).collect().await;
    assert!(rest.is_empty());
    // One that is put back into the line keeps what it says from then on, and its positions go on.
    storage.request(scope, oldest.run, Request::Requeue).await.unwrap();
    let lease = claim(storage, LONG).await.lease;
    assert_eq!(lease.run, oldest.run);
    storage.settle(&lease, settlement(Outcome::Cancelled)).await.unwrap();
    purge(storage, since, false).await;
    let seqs: Vec<_> =
        storage.read(scope, oldest.run, 0, 10).await.unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [6, 7, 8]);

    // Everything that has ended; what is worked stays, wherever it is.
    let done = purge(storage, Duration::ZERO, false).await;
    assert_eq!((done.runs, done.dropped), (3, vec![table(-1)]));
    assert_eq!(left(storage).await, all[4..]);
    storage.append(&working, vec![log("y")].into()).await.unwrap();
    let seqs = storage.read(scope, working.run, 0, 10).await.unwrap();
    assert_eq!(seqs.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=6).collect::<Vec<_>>());
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod server {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let Some(fresh) = crate::support::database().await else { return };
                super::$test(&crate::support::open(&fresh).await).await;
            })*
        }

        #[cfg(feature = "embedded")]
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $test() {
                let embedded = lime_storage_postgres::Embedded::temporary().await.unwrap();
                super::$test(&embedded.storage()).await;
                embedded.close().await.unwrap();
            })*
        }
    };
}

on_both!(months_are_made_ahead a_log_goes_over_the_end_of_a_month old_events_are_purged);

/// Those who read and write go on while a month is made, and one who reads without an end is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_that_cannot_be_had_is_not_waited_for() {
    use lime_core::ErrorKind;

    let Some(fresh) = database().await else { return };
    let storage = open(&fresh).await;
    run(&storage, &format!("DROP TABLE {}", table(3))).await;
    let reader = storage.connection().begin().await.unwrap();
    reader.execute_unprepared("SELECT count(*) FROM agent_events").await.unwrap();
    let error = storage.maintain().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
    let scene = scene(&storage).await;
    ended(&storage, &scene, 0, 1).await;
    reader.commit().await.unwrap();
    assert_eq!(storage.maintain().await.unwrap(), [table(3)]);
}
