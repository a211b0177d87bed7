//! A worker that is killed leaves nothing behind.

use std::process::{Command, Stdio};

use lime_provider_cli::CliProcess;

use crate::scene::{alive, eventually, ready, shell, token};

/// Names the token to the worker that this test binary starts from itself.
const ROLE: &str = "LIME_TEST_WORKER_TOKEN";

/// Not a test of its own: the worker, when started by the one below. Its agent outlives everything but it.
#[test]
fn worker() {
    let Ok(token) = std::env::var(ROLE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        // From a thread that ends soon after, as tokio's blocking threads do.
        let spawning = tokio::task::spawn_blocking(move || {
            let script = r#"trap "" INT TERM HUP
                (env -i PATH="$PATH" setsid sleep $T >/dev/null 2>&1 &); sleep $T & echo ready; while :; do sleep $T; done"#;
            CliProcess::spawn(&shell(script, &token), &Default::default()).unwrap()
        });
        let mut agent = spawning.await.unwrap();
        ready(&mut agent).await;
        std::future::pending::<()>().await;
    });
}

#[test]
fn a_killed_worker_leaves_nothing() {
    let token = token();
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_death::worker"])
        .env(ROLE, &token)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the agent and its tools run", || alive(&token).len() == 3);
    worker.kill().unwrap();
    worker.wait().unwrap();
    eventually("all of it is gone", || alive(&token).is_empty());
}
