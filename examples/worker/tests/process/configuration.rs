use crate::ground::{Ground, refused, worker};

#[tokio::test]
async fn wrong_variables_are_named() {
    let place = tempfile::TempDir::new().unwrap();
    let state = place.path().to_str().unwrap();
    let well = [("DATABASE_URL", "postgres://lime:s3cr3t@127.0.0.1:1/lime"), ("LIME_STATE_DIR", state)];
    for (name, value) in [
        ("DATABASE_URL", ""),
        ("LIME_STATE_DIR", ""),
        ("LIME_CONCURRENCY", "0"),
        ("LIME_HEARTBEAT_SECS", "20"),
        ("LIME_LOG_FORMAT", "xml"),
        ("LIME_LOG", "lime=loud"),
        ("LIME_HTTP_ADDR", "9464"),
        ("LIME_PROVIDERS", "nobody"),
        ("LIME_RECORDINGS", "/nowhere/at/all"),
    ] {
        let mut command = worker();
        command.envs(well).env(name, value).env("LIME_HTTP_ADDR", "127.0.0.1:0");
        if name == "LIME_RECORDINGS" {
            command.env("LIME_PROVIDERS", "replay");
        }
        command.env(name, value);
        let (code, said) = refused(command).await;
        assert_eq!(code, 2, "{name}={value}");
        assert!(said.starts_with(&format!("error: {name}: ")), "{name}={value}: {said}");
        assert!(!said.contains("s3cr3t"));
    }
}

#[tokio::test]
async fn an_agent_that_is_named_must_be_there() {
    let place = tempfile::TempDir::new().unwrap();
    let mut command = worker();
    command.env("DATABASE_URL", "postgres://nobody@127.0.0.1:1/lime").env("LIME_STATE_DIR", place.path());
    command.env("PATH", "/nowhere").env("LIME_PROVIDERS", "codex").env("LIME_HTTP_ADDR", "127.0.0.1:0");
    let (code, said) = refused(command).await;
    assert_eq!(code, 2);
    assert!(said.starts_with("error: LIME_PROVIDERS: codex: "), "{said}");
}

#[tokio::test]
async fn a_database_that_does_not_answer_ends_it_with_1() {
    let Some(ground) = Ground::empty().await else { return };
    let mut command = ground.command("w");
    command.env("DATABASE_URL", "postgres://lime:s3cr3t@127.0.0.1:1/lime");
    let (code, said) = refused(command).await;
    assert_eq!(code, 1);
    assert!(!said.contains("s3cr3t"), "{said}");
}

#[tokio::test]
async fn tables_are_not_changed_unless_it_is_told_to() {
    let Some(ground) = Ground::empty().await else { return };
    let (code, said) = refused(ground.command("w")).await;
    assert_eq!(code, 1);
    assert!(said.contains("lime migrate") && said.contains("LIME_MIGRATE=1"), "{said}");
}

#[tokio::test]
async fn help_names_every_variable() {
    let mut command = worker();
    let output = command.arg("--help").output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for part in ["DATABASE_URL", "LIME_GRACE_SECS", "Signals:", "Exit status:"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}
