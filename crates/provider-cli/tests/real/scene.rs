//! A test's own processes on a host it shares: shell agents, told from others by a token.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lime_provider_cli::{CliCommand, CliLimits, CliProcess};

/// A token that no other process on the host has in its arguments: a number of seconds to sleep.
pub(crate) fn token() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("300.{:07}{:04}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A shell that plays the agent; `$T` is the token.
pub(crate) fn shell(script: &str, token: &str) -> CliCommand {
    CliCommand::new("sh").args(["-c", script]).pass_env(["PATH"]).env("T", token)
}

pub(crate) fn spawn(script: &str, token: &str) -> CliProcess {
    CliProcess::spawn(&shell(script, token), &CliLimits::default()).unwrap()
}

/// Reads until the agent says `ready`, that is, until what the script does before is done.
pub(crate) async fn ready(agent: &mut CliProcess) {
    while agent.next_line().await.unwrap().expect("the agent ended early").text != "ready" {}
}

/// The live processes that have the token among their arguments.
pub(crate) fn alive(token: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if let Some(pid) = pid
            && line.windows(token.len()).any(|window| window == token.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// The number of the parent, while the process or its zombie exists.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()
}

/// Whether there is a process of that number, zombies included.
pub(crate) fn exists(pid: u32) -> bool {
    parent(pid).is_some()
}

/// Looks again until it is so; fails after ten seconds.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "it never came to be: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
