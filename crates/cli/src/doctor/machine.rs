//! What a worker on this machine would find: git, agents, and room on the disk.

use std::path::Path;
use std::time::Duration;

use lime_core::ports::{AgentProvider, Readiness};
use lime_provider_claude::ClaudeProvider;
use lime_provider_codex::CodexProvider;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Finding, bytes};
use crate::text::first_line;

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);
/// With less room than this, checkouts will soon fail.
const LITTLE: u64 = 1 << 30;
/// With less room than this, or a tenth of the disk, somebody should look.
const SOME: u64 = 5 << 30;

pub(super) async fn look(state_dir: Option<&Path>) -> Vec<Finding> {
    let claude = ClaudeProvider::from_env();
    // Only its program and key are looked at, so nothing is kept in this folder, and nothing is made.
    let codex = CodexProvider::from_env(std::env::temp_dir().join("lime-doctor"));
    let (git, claude, codex) = tokio::join!(git(), agent("claude", &claude), agent("codex", &codex));
    let mut findings = vec![git, claude, codex];
    findings.extend(state_dir.map(disk));
    findings
}

async fn git() -> Finding {
    const INSTALL: &str = "workers on this machine need git 2.36 or newer in PATH; others do not";
    let said = timeout(PATIENCE, Command::new("git").arg("--version").kill_on_drop(true).output()).await;
    match said {
        Ok(Ok(output)) if output.status.success() => {
            let said = first_line(&String::from_utf8_lossy(&output.stdout), 80);
            if is_new_enough(&said) { Finding::ok("git", said) } else { Finding::warn("git", said, INSTALL) }
        }
        Ok(Ok(_)) | Ok(Err(_)) => Finding::warn("git", "git cannot be run on this machine", INSTALL),
        Err(_) => Finding::warn("git", "git does not answer on this machine", INSTALL),
    }
}

/// Whether `git version 2.39.5` is 2.36 or newer.
fn is_new_enough(said: &str) -> bool {
    let mut numbers = said.split_whitespace().nth(2).unwrap_or_default().split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (2, 36),
        _ => false,
    }
}

async fn agent(name: &'static str, provider: &dyn AgentProvider) -> Finding {
    match provider.readiness().await {
        Readiness::Ready(found) => Finding::ok(name, found),
        Readiness::MissingBinary(how) | Readiness::MissingCredentials(how) => Finding::warn(
            name,
            format!("a worker on this machine could not work runs of {name}"),
            first_line(&how, 400),
        ),
    }
}

fn disk(folder: &Path) -> Finding {
    const CHECK: &str = "disk";
    const FREE: &str = "delete checkouts of runs that are done with, or give the folder a greater disk";
    let space = match rustix::fs::statvfs(folder) {
        Ok(space) => space,
        Err(error) => {
            let said = format!("{}: {error}", folder.display());
            return Finding::fail(CHECK, said, "make the folder, or name the right one with --state-dir");
        }
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let all = space.f_blocks.saturating_mul(space.f_frsize);
    let said = format!("{} of {} are free in {}", bytes(free), bytes(all), folder.display());
    if free < LITTLE {
        Finding::fail(CHECK, said, FREE)
    } else if free < SOME || free < all / 10 {
        Finding::warn(CHECK, said, FREE)
    } else {
        Finding::ok(CHECK, said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_of_git_are_known() {
        assert!(is_new_enough("git version 2.36.0"));
        assert!(is_new_enough("git version 2.50.1 (Apple Git-155)"));
        assert!(is_new_enough("git version 3.0.rc1"));
        assert!(!is_new_enough("git version 2.9.5"));
        assert!(!is_new_enough("nothing of the kind"));
    }
}
