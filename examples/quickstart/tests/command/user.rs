//! A user with an empty home, a folder for data, and what they see.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::process::Command;

/// How long one run may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A recording that writes a file, and is over at once.
pub(crate) const QUICK: &str = r#"
version = 1
name = "quick"
[ticket]
title = "Write notes"
description = "Write NOTES.md."
[[step]]
say = "Writing."
[[step]]
write = "NOTES.md"
content = "hello\n"
[[step]]
say = "Done."
"#;

/// A recording that edits a file and then does nothing for ever.
pub(crate) const HANGING: &str = r#"
version = 1
name = "hanging"
[ticket]
title = "Wait"
description = "Wait for ever."
[[step]]
write = "NOTES.md"
content = "hello\n"
[[step]]
say = "Waiting."
[[step]]
hang = true
"#;

pub(crate) struct User {
    home: TempDir,
}

/// What a command left: its status and what it said.
pub(crate) struct Seen {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    /// Where the command keeps everything.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Writes a file at home.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A repository of the user's own, with `main` checked out.
    pub(crate) async fn repository(&self) -> PathBuf {
        let repository = self.home.path().join("my repository");
        std::fs::create_dir(&repository).unwrap();
        std::fs::write(repository.join("README.md"), "mine\n").unwrap();
        git(&repository, &["init", "--quiet", "--initial-branch=main"]).await;
        git(&repository, &["add", "--all"]).await;
        git(&repository, &["commit", "--quiet", "--message=first"]).await;
        repository
    }

    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
        command
            .args(args)
            .arg("--data-dir")
            .arg(self.data())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Seen {
        Seen::of(self.command(args)).await
    }
}

impl Seen {
    pub(crate) async fn of(mut command: Command) -> Self {
        let output = in_time(command.output()).await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let seen = Self { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) };
        eprintln!("{}\n{}{}", seen.status, seen.stdout, seen.stderr);
        assert!(!seen.stderr.contains("panicked"));
        seen
    }

    /// The events of `--json`, in order.
    pub(crate) fn events(&self) -> Vec<Json> {
        let events: Vec<Json> = self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event["seq"], index + 1, "a gap");
            assert_eq!(event["runId"], events[0]["runId"]);
        }
        events
    }
}

/// What comes of it, if that does not take too long.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("the command took too long")
}

/// Runs git and gives what it prints.
pub(crate) async fn git(repository: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
        .args(args)
        .current_dir(repository)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The names in a folder; none if it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
