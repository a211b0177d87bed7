use lime_storage_postgres::sea_orm::ConnectionTrait;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::ground::{Ground, LONG, Seen, claim, fields, lime, submit, tenant};

/// What was found about one thing.
fn found<'a>(document: &'a Json, check: &str) -> &'a Json {
    let checks = document["checks"].as_array().unwrap();
    checks.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("nothing about {check}"))
}

#[tokio::test]
async fn a_database_that_is_well_passes() {
    let Some(ground) = Ground::migrated().await else { return };
    let place = TempDir::new().unwrap();
    let mut command = ground.command(["doctor", "--json", "--state-dir"]);
    command.arg(place.path());
    let seen = Seen::of(command).await;
    let document = seen.json();
    assert_eq!(fields(&document), ["checks", "status"]);
    for check in [
        "database",
        "connections",
        "clock",
        "migrations",
        "partitions",
        "queue",
        "leases",
        "places",
        "dead",
        "effects",
        "questions",
    ] {
        let finding = found(&document, check);
        assert_eq!(fields(finding), ["advice", "check", "level", "message"]);
        assert_eq!(finding["level"], "ok", "{finding}");
    }
    for check in ["git", "claude", "codex", "disk"] {
        found(&document, check);
    }
    assert_eq!(seen.code, i32::from(document["status"] == "fail"));

    let text = ground.run(["doctor"]).await.stdout;
    assert!(text.starts_with("ok    database    PostgreSQL "), "{text}");
}

#[tokio::test]
async fn what_is_not_well_is_said_with_what_to_do() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    for _ in 0..3 {
        submit(&storage, &scope, &project, "work").await;
    }
    claim(&storage, LONG).await;
    for change in [
        "UPDATE run_queue SET queued_at = now() - interval '10 minutes' WHERE state = 0",
        "UPDATE run_leases SET expires_at = now() - interval '10 minutes', due_at = now() - interval '10 minutes'",
        "DELETE FROM run_queue WHERE run_id = (SELECT max(run_id) FROM run_queue)",
        "INSERT INTO agent_events (tenant_id, agent_run_id, seq, ts, type, payload_json)
         VALUES (1, 1, 1000, '1999-12-31', 'log', '{}')",
    ] {
        storage.connection().execute_unprepared(change).await.unwrap();
    }
    let seen = ground.run(["doctor", "--json", "--state-dir", "/nowhere/at/all"]).await;
    assert_eq!(seen.code, 1);
    let document = seen.json();
    assert_eq!(document["status"], "fail");
    for (check, level, advice) in [
        ("queue", "warn", "LIME_CONCURRENCY"),
        ("leases", "fail", "start one"),
        ("places", "warn", "lime queue sweep"),
        ("partitions", "warn", "lime maintain"),
        ("disk", "fail", "--state-dir"),
    ] {
        let finding = found(&document, check);
        assert_eq!(finding["level"], level, "{finding}");
        assert!(finding["advice"].as_str().unwrap().contains(advice), "{finding}");
    }
    let text = ground.run(["doctor"]).await.stdout;
    assert!(text.contains("fail  leases      1 lease overdue, the first since 10m\n"), "{text}");
    assert!(text.contains("\n                  do: "), "{text}");
}

#[tokio::test]
async fn without_a_database_the_rest_is_looked_at() {
    let mut command = lime(["doctor", "--json"]);
    command
        .env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
        .env("REDIS_URL", "redis://:hush@127.0.0.1:1");
    let seen = Seen::of(command).await;
    assert_eq!(seen.code, 1);
    let document = seen.json();
    assert_eq!(
        (&found(&document, "database")["level"], &found(&document, "redis")["level"]),
        (&"fail".into(), &"fail".into())
    );
    assert!(!seen.stdout.contains("hush") && !seen.stderr.contains("hush"));
    found(&document, "git");
}

#[tokio::test]
async fn tables_that_are_behind_fail() {
    let Some(ground) = Ground::empty().await else { return };
    let seen = ground.run(["doctor", "--json"]).await;
    assert_eq!(seen.code, 1);
    let document = seen.json();
    assert_eq!(found(&document, "database")["level"], "ok");
    assert_eq!(found(&document, "migrations")["advice"], "run `lime migrate`");
}

#[tokio::test]
async fn a_redis_that_answers_is_well() {
    let url = std::env::var("LIME_TEST_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());
    let mut command = lime(["doctor", "--json"]);
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none").env("REDIS_URL", &url);
    let seen = Seen::of(command).await;
    let document = seen.json();
    let redis = found(&document, "redis");
    if redis["message"].as_str().unwrap().contains("it does not answer") {
        lime_conformance::skip("no Redis answers; set LIME_TEST_REDIS_URL to one");
        return;
    }
    assert_eq!(redis["level"], "ok", "{redis}");
}
