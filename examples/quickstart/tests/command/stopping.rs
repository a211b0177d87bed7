use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::user::{HANGING, User, git, in_time, names};

/// Also: a second process on the same data folder is turned away, and its run is not begun.
#[tokio::test]
async fn an_interrupt_cancels_the_run() {
    let user = User::new();
    let recording = user.file("hanging.toml", HANGING);
    let arguments = ["--json", "--recording", recording.to_str().unwrap()];
    let mut child = user.command(arguments).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while let Some(line) = in_time(lines.next_line()).await.unwrap() {
        let is_there = line.contains("Waiting.");
        seen.push(line);
        if is_there {
            break;
        }
    }

    let other = user.run(arguments).await;
    assert_eq!(other.status.code(), Some(2));
    assert!(other.stderr.starts_with("error: "), "{}", other.stderr);
    assert_eq!(other.stdout, "");

    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    while let Some(line) = in_time(lines.next_line()).await.unwrap() {
        seen.push(line);
    }
    let status =
        tokio::time::timeout(Duration::from_secs(10), child.wait()).await.expect("it ends soon").unwrap();
    assert_eq!(status.code(), Some(1));
    let last: serde_json::Value = serde_json::from_str(seen.last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["status"]), (&"status".into(), &"cancelled".into()));
    assert_eq!(last["seq"], seen.len(), "no gap");

    let kept = names(&user.data().join("work/checkouts"));
    assert_eq!(kept.len(), 1, "a checkout with work in it is kept");
    assert!(seen.iter().any(|line| line.contains("The checkout is kept in")));
    let branches =
        git(&user.data().join("demo"), &["for-each-ref", "--format=%(refname)", "refs/heads"]).await;
    assert_eq!(branches, "refs/heads/main\n");
    assert_eq!(processes_about(&user.data()), [""; 0]);
}

/// The command lines of processes that know this folder.
fn processes_about(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |process: std::fs::DirEntry| std::fs::read(process.path().join("cmdline")).ok();
    let lines = processes.filter_map(line).map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(folder)).collect()
}
