//! The scenarios in small, as the continuous integration plays them.

use std::process::Command;

use lime_storage_postgres::TestDatabase;

/// Plays a scenario in small on a server; one that is not there is a visible skip.
fn play_on_a_server(scenario: &str, more: &[&str]) {
    let runtime = tokio::runtime::Runtime::new().expect("there is a runtime");
    if lime_conformance::or_skip(runtime.block_on(TestDatabase::empty())).is_some() {
        play(scenario, more);
    }
}

/// Plays a scenario in small; a part that is not there is a visible skip.
fn play(scenario: &str, more: &[&str]) {
    let server = std::env::var("LIME_TEST_DATABASE_URL")
        .unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/postgres".to_owned());
    let played = Command::new(env!("CARGO_BIN_EXE_chaos"))
        .args([
            "--scenario",
            scenario,
            "--workers",
            "3",
            "--concurrency",
            "3",
            "--lease-ms",
            "1500",
            "--untimed",
        ])
        .args(more)
        .env("LIME_TEST_DATABASE_URL", server)
        .output()
        .expect("the harness starts");
    let (said, complained) =
        (String::from_utf8_lossy(&played.stdout), String::from_utf8_lossy(&played.stderr));
    if said.contains("not played") {
        lime_conformance::skip(&format!("{scenario}: {said}{complained}").replace('\n', " "));
        return;
    }
    assert!(played.status.success(), "{said}\n{complained}");
}

#[test]
fn killed_workers() {
    play_on_a_server("kill", &["--runs", "120", "--kills", "5"]);
}

#[test]
fn frozen_workers() {
    play_on_a_server("freeze", &["--rounds", "3"]);
}

#[test]
fn wrong_clocks() {
    play_on_a_server("clocks", &["--runs", "60"]);
}

#[test]
fn a_run_that_kills_its_worker() {
    play_on_a_server("poison", &["--runs", "60"]);
}

#[test]
fn a_database_that_is_restarted() {
    play("restart", &["--restarts-for", "10"]);
}
