use crate::ground::{Ground, Seen, lime, submit, tenant};

#[tokio::test]
async fn a_database_must_be_named() {
    let seen = Seen::of(lime(["queue", "depth"])).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("DATABASE_URL"));
    assert_eq!(seen.stdout, "");
}

#[tokio::test]
async fn a_blank_variable_counts_as_unset() {
    let Some(ground) = Ground::migrated().await else { return };
    tenant(&ground.storage().await, "acme").await;
    for blank in ["", " "] {
        let blanks = ["LIME_TENANT", "LIME_STATE_DIR", "REDIS_URL", "RUST_LOG", "USER", "NO_COLOR"];
        let with_blanks = |args: &[&str]| {
            let mut command = ground.command(args);
            command.envs(blanks.map(|name| (name, blank)));
            command
        };
        assert_eq!(Seen::of(with_blanks(&["runs", "list"])).await.code, 0);
        let purge = with_blanks(&["purge", "--older-than", "90d", "--dry-run"]);
        assert_eq!(Seen::of(purge).await.code, 0, "of all tenants, as it must be");
        let doctor = Seen::of(with_blanks(&["doctor", "--json"])).await.json();
        let checks = doctor["checks"].as_array().unwrap();
        assert!(checks.iter().all(|it| it["check"] != "redis" && it["check"] != "disk"), "{doctor}");

        let mut nowhere = lime(["queue", "depth"]);
        nowhere.env("DATABASE_URL", blank);
        let seen = Seen::of(nowhere).await;
        assert_eq!((seen.code, seen.stderr.contains("DATABASE_URL")), (2, true));
    }
    // What is written down is meant.
    assert_eq!(ground.run(["runs", "list", "--tenant", ""]).await.code, 2);
}

#[tokio::test]
async fn a_password_is_never_said() {
    for url in ["postgres://lime:s3cr3t@127.0.0.1:1/lime", "not a url s3cr3t", "postgres://lime:s3cr3t@[/x"] {
        for more in [&["queue", "depth"][..], &["doctor"], &["doctor", "--json"], &["runs", "list", "--json"]]
        {
            let mut command = lime(more);
            command.env("DATABASE_URL", url).env("RUST_LOG", "debug");
            let seen = Seen::of(command).await;
            assert!(seen.code == 1 || seen.code == 2, "{}", seen.code);
            assert!(!seen.stderr.contains("s3cr3t") && !seen.stdout.contains("s3cr3t"));
        }
    }
    let mut command = lime(["--help"]);
    command.env("DATABASE_URL", "postgres://lime:s3cr3t@h/lime");
    assert!(!Seen::of(command).await.stdout.contains("s3cr3t"));
}

#[tokio::test]
async fn what_is_wrongly_asked_for_is_refused_with_2() {
    for args in [
        &["runs", "list", "--status", "asleep"][..],
        &["runs", "show", "x"],
        &["runs", "show", "-1"],
        &["runs", "list", "--limit", "0"],
        &["purge"],
        &["purge", "--older-than", "0d"],
        &["tenants", "create", "No Slug"],
        &["tenants", "limit", "acme", "many"],
        &["dead-letters", "requeue"],
        &["dead-letters", "requeue", "1", "--all"],
        &["frobnicate"],
    ] {
        let mut command = lime(args);
        command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none");
        let seen = Seen::of(command).await;
        assert_eq!(seen.code, 2, "{args:?}");
        assert_eq!(seen.stdout, "");
    }
}

#[tokio::test]
async fn what_is_not_there_is_3() {
    let Some(ground) = Ground::migrated().await else { return };
    tenant(&ground.storage().await, "acme").await;
    for args in [
        &["runs", "show", "77"][..],
        &["runs", "follow", "77"],
        &["runs", "cancel", "77", "--yes"],
        &["runs", "say", "77", "hello"],
        &["runs", "list", "--project", "NONE"],
        &["runs", "list", "--tenant", "nobody"],
        &["approvals", "approve", "77", "--yes"],
        &["approvals", "list", "--run", "77"],
        &["dead-letters", "requeue", "77"],
        &["tenants", "limit", "nobody", "4"],
    ] {
        let seen = ground.run(args).await;
        assert_eq!(seen.code, 3, "{args:?}");
        assert!(seen.stderr.starts_with("error: "), "{args:?}");
        assert_eq!(seen.stdout, "");
    }
}

#[tokio::test]
async fn another_tenants_run_is_not_there() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    tenant(&storage, "other").await;
    let run = submit(&storage, &scope, &project, "theirs").await.id.to_string();
    for args in [["runs", "show", &run], ["runs", "pause", &run], ["runs", "cancel", &run]] {
        let seen = Seen::of({
            let mut command = ground.command(args);
            command.args(["--yes", "--tenant", "other"]);
            command
        });
        assert_eq!(seen.await.code, 3, "{args:?}");
    }
    // With several tenants a list is of one that is named, or of all.
    let seen = ground.run(["runs", "list"]).await;
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("acme") && seen.stderr.contains("--tenant"));
    assert_eq!(ground.run(["runs", "list", "--tenant", "acme", "--all-tenants"]).await.code, 2);
    assert_eq!(ground.run(["runs", "list", "--all-tenants", "--project", "WEB"]).await.code, 2);
    assert_eq!(ground.json(["runs", "list", "--all-tenants"]).await["runs"][0]["tenant"], "acme");
}

#[tokio::test]
async fn tables_that_are_not_there_are_said_to_be_missing() {
    let Some(ground) = Ground::empty().await else { return };
    let seen = ground.run(["queue", "depth"]).await;
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("lime migrate"));
}
