//! migrate, maintain, purge, queue.

use lime_core::Stored;
use lime_core::ports::{EventLog, Queue, Record, Settlement};
use lime_core::runs::{AgentEvent, AgentRun, Failure, FailureKind, Outcome};
use lime_storage_postgres::PgStorage;
use lime_storage_postgres::sea_orm::ConnectionTrait;

use crate::ground::{Ground, LONG, claim, fields, submit, succeed, tenant};

#[tokio::test]
async fn tables_are_brought_up_to_date() {
    let Some(ground) = Ground::empty().await else { return };
    let before = ground.run(["migrate", "--check", "--json"]).await;
    assert_eq!(before.code, 1, "something is pending");
    assert!(before.stderr.contains("lime migrate"));
    let before = before.json();
    assert_eq!(fields(&before), ["applied", "pending", "unknown"]);
    assert_eq!(before["applied"].as_array().unwrap().len(), 0);
    let pending = before["pending"].clone();
    assert!(pending.as_array().unwrap().len() >= 7);

    let done = ground.json(["migrate"]).await;
    assert_eq!(done["applied"], pending, "a new database needs no confirmation");
    let check = ground.json(["migrate", "--dry-run"]).await;
    assert_eq!((&check["applied"], check["pending"].as_array().unwrap().len()), (&pending, 0));
    let again = ground.run(["migrate"]).await;
    assert_eq!((again.code, again.stdout.as_str()), (0, "The tables are up to date.\n"));
}

#[tokio::test]
async fn a_change_of_tables_in_use_is_confirmed() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let forget = "DELETE FROM seaql_migrations WHERE version = (SELECT max(version) FROM seaql_migrations)";
    storage.owner(async |owner| owner.execute_unprepared(forget).await).await.unwrap();
    let seen = ground.run(["migrate"]).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("--yes"));

    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_future', 0)";
    storage.owner(async |owner| owner.execute_unprepared(newer).await).await.unwrap();
    let seen = ground.run(["migrate", "--yes"]).await;
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("m9999_future"));
}

/// Makes a run that has ended an old one.
async fn age(storage: &PgStorage, run: &Stored<AgentRun>) {
    let age = format!(
        "UPDATE agent_runs SET created_at = now() - interval '100 days', started_at = now() - interval '100 days',
             ended_at = now() - interval '99 days' WHERE id = {}",
        run.id
    );
    storage.connection().execute_unprepared(&age).await.unwrap();
}

#[tokio::test]
async fn old_events_go_and_their_runs_stay() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "old work").await;
    let claim = claim(&storage, LONG).await;
    let said = Record::from(vec![AgentEvent::system("hello")]);
    storage.append(&claim.lease, said).await.unwrap();
    succeed(&storage, &claim).await;
    age(&storage, &run).await;

    let none = ground.json(["purge", "--older-than", "52w", "--dry-run"]).await;
    assert_eq!((&none["runs"], &none["events"]), (&0.into(), &0.into()));
    let dry = ground.json(["purge", "--older-than", "90d", "--dry-run"]).await;
    assert_eq!(fields(&dry), ["before", "dropped", "dryRun", "events", "runs"]);
    assert_eq!((&dry["runs"], &dry["dryRun"]), (&1.into(), &true.into()));
    let refused = ground.run(["purge", "--older-than", "90d"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("1 run") && refused.stderr.contains("--yes"));
    assert!(!storage.read(&scope, run.id, 0, 10).await.unwrap().is_empty(), "nothing is gone yet");
    assert_eq!(ground.run(["purge", "--older-than", "90d", "--yes", "--tenant", "acme"]).await.code, 2);

    let done = ground.json(["purge", "--older-than", "90d", "--yes"]).await;
    assert_eq!((&done["runs"], &done["events"]), (&dry["runs"], &dry["events"]));
    assert_eq!(storage.read(&scope, run.id, 0, 10).await.unwrap(), []);
    let id = run.id.to_string();
    let shown = ground.json(["runs", "show", &id]).await;
    assert_eq!((&shown["run"]["status"], &shown["purgedEvents"]), (&"succeeded".into(), &done["events"]));
    let text = ground.run(["runs", "show", &id]).await.stdout;
    assert!(text.contains(&format!("purged        the first {} events\n", done["events"])), "{text}");
}

#[tokio::test]
async fn what_a_run_says_after_its_events_were_purged_stays() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "old work").await;
    let claim = claim(&storage, LONG).await;
    let failure = Failure::new(FailureKind::BadCredentials, "The key was refused.");
    storage.settle(&claim.lease, Settlement::new(Outcome::Failed(failure))).await.unwrap();
    age(&storage, &run).await;
    let purged = ground.json(["purge", "--older-than", "90d", "--yes"]).await["events"].clone();
    let id = run.id.to_string();
    ground.json(["runs", "requeue", &id]).await;
    let shown = ground.json(["runs", "show", &id]).await;
    assert_eq!((&shown["run"]["status"], &shown["purgedEvents"]), (&"queued".into(), &purged));
    let first = storage.read(&scope, run.id, 0, 1).await.unwrap()[0].seq;
    assert_eq!(purged, first - 1);
}

#[tokio::test]
async fn room_is_made_for_the_coming_months() {
    let Some(ground) = Ground::migrated().await else { return };
    let seen = ground.run(["maintain"]).await;
    assert_eq!((seen.code, seen.stdout.as_str()), (0, "There is room for the coming months already.\n"));
    assert_eq!(ground.json(["maintain"]).await["made"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn the_line_is_measured_and_swept() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    for _ in 0..3 {
        submit(&storage, &scope, &project, "work").await;
    }
    claim(&storage, LONG).await;
    let depth = ground.json(["queue", "depth"]).await;
    assert_eq!(fields(&depth), ["leased", "oldestReadyMs", "paused", "ready", "scheduled"]);
    assert_eq!((&depth["ready"], &depth["leased"]), (&2.into(), &1.into()));
    let text = ground.run(["queue", "depth"]).await.stdout;
    assert!(
        text.starts_with("ready         2\nscheduled     0\nleased        1\npaused        0\noldest "),
        "{text}"
    );

    assert_eq!(ground.json(["queue", "sweep"]).await["placed"], 0);
    storage.connection().execute_unprepared("DELETE FROM run_queue WHERE state = 0").await.unwrap();
    assert_eq!(ground.run(["queue", "sweep"]).await.stdout, "Gave 2 runs a new place in the line.\n");
    assert_eq!(ground.json(["queue", "depth"]).await["ready"], 2);
}
