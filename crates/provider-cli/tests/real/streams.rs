//! Floods, silence and deafness on the three pipes.

use std::fs;
use std::time::Duration;

use lime_provider_cli::{
    CliCommand, CliLimits, CliProcess, Line, ReadError, SpawnError, StopPlan, WriteError,
};

use crate::scene::{eventually, parent, shell, spawn, token};

/// The most memory this process ever had, in KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

const BYTES: u64 = 200_000_000;

#[tokio::test]
async fn a_flood_without_newline_is_cut_in_bounded_memory() {
    let before = peak();
    let mut agent = spawn(&format!("head -c {BYTES} /dev/zero"), &token());
    let line = agent.next_line().await.unwrap().unwrap();
    assert_eq!((line.text.len(), line.truncated), (1 << 20, Some(BYTES)));
    assert_eq!(agent.next_line().await.unwrap(), None);
    let exit = agent.finish().await;
    assert_eq!((exit.code, exit.cut_lines), (Some(0), 1));
    assert!(peak() - before < 30 << 10, "memory grew by {} KiB", peak() - before);
}

#[tokio::test]
async fn a_flood_of_long_lines_is_cut_in_bounded_memory() {
    let before = peak();
    let script = "i=0; while [ $i -lt 20 ]; do head -c 10000000 /dev/zero; echo; i=$((i+1)); done";
    let mut agent = spawn(script, &token());
    let mut lines = 0;
    while let Some(line) = agent.next_line().await.unwrap() {
        assert_eq!((line.text.len(), line.truncated), (1 << 20, Some(10_000_000)));
        lines += 1;
    }
    assert_eq!((lines, agent.finish().await.cut_lines), (20, 20));
    assert!(peak() - before < 30 << 10, "memory grew by {} KiB", peak() - before);
}

#[tokio::test]
async fn a_flood_is_slowed_by_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = CliProcess::spawn(
        &shell("echo first; head -c 10000000 /dev/zero; : > done", &token()).current_dir(folder.path()),
        &CliLimits::default(),
    )
    .unwrap();
    agent.next_line().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!folder.path().join("done").exists(), "no one read, and yet all was written");
    while agent.next_line().await.unwrap().is_some() {}
    agent.finish().await;
    assert!(folder.path().join("done").exists());
}

#[tokio::test]
async fn the_whole_output_can_be_limited() {
    let limits = CliLimits { max_output_bytes: Some(100_000), ..CliLimits::default() };
    let mut agent = CliProcess::spawn(&shell("yes", &token()), &limits).unwrap();
    let mut lines = 0_u32;
    let error = loop {
        match agent.next_line().await {
            Ok(line) => lines += u32::from(line.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::OutputLimit { limit: 100_000 }));
    assert!(lines < 100_000, "at most a pipe's worth more was read, not {lines} lines");
    assert!(agent.stop(StopPlan::NOW).await.forced);
}

#[tokio::test]
async fn a_flood_on_stderr_blocks_no_one() {
    let mut agent = spawn("head -c 10000000 /dev/zero >&2; echo end >&2; echo done", &token());
    assert_eq!(agent.next_line().await.unwrap(), Some(Line { text: "done".into(), truncated: None }));
    let exit = agent.finish().await;
    assert!(exit.stderr_tail.ends_with("\0end\n"));
    assert_eq!(exit.stderr_tail.len() as u64 + exit.stderr_dropped, 10_000_004);
    assert_eq!(exit.stderr_tail.len(), 64 << 10);
}

#[tokio::test]
async fn an_agent_that_never_reads_hangs_no_one() {
    let limits = CliLimits { write_timeout: Duration::from_millis(100), ..CliLimits::default() };
    let token = token();
    let mut agent = CliProcess::spawn(&shell("sleep $T", &token), &limits).unwrap();
    let long = "x".repeat(1 << 20);
    assert!(matches!(agent.write_json(&long).await, Err(WriteError::TimedOut { .. })));
    assert!(matches!(agent.write_json(&1).await, Err(WriteError::Closed)));
    agent.stop(StopPlan::NOW).await;
}

#[tokio::test]
async fn an_agent_that_is_gone_is_an_error_to_write_to() {
    let mut agent = spawn("exec <&-; echo closed; sleep 5", &token());
    agent.next_line().await.unwrap();
    assert!(matches!(agent.write_json(&1).await, Err(WriteError::Io(_))));
    agent.stop(StopPlan::NOW).await;
    assert!(matches!(agent.write_json(&1).await, Err(WriteError::Closed)));
}

#[tokio::test]
async fn talking_works_from_two_tasks() {
    let mut agent = spawn("cat", &token());
    let input = agent.input();
    let writer = tokio::spawn(async move {
        for number in 0..2000 {
            input.write_json(&[number]).await.unwrap();
        }
        input.close();
    });
    let mut count = 0;
    while let Some(line) = agent.next_line().await.unwrap() {
        assert_eq!(line.text, format!("[{count}]"));
        count += 1;
    }
    writer.await.unwrap();
    assert_eq!(count, 2000);
    assert!(agent.finish().await.success());
}

#[tokio::test]
async fn what_cannot_be_executed_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("agent");
    fs::write(&program, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let error = CliProcess::spawn(&CliCommand::new(&program), &CliLimits::default()).unwrap_err();
    assert!(matches!(error, SpawnError::Os(_)), "{error}");
}

/// What a run costs the worker's host does not grow with the worker.
#[tokio::test]
async fn a_supervisor_holds_no_memory_of_the_worker() {
    let mut ballast = vec![1_u8; 12 << 20];
    let mut agent = spawn("read line", &token());
    ballast.fill(2); // from now on the supervisor's copy, if it had one, would be its own
    let status = format!("/proc/{}/status", parent(agent.pid()).unwrap());
    eventually("the supervisor holds less than 4 MiB", || {
        let status = fs::read_to_string(&status).unwrap();
        let held = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
        held.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() < 4 << 10
    });
    assert!(ballast.iter().all(|byte| *byte == 2));
    agent.stop(StopPlan::NOW).await;
}

/// Providers move a run between threads, and await it in futures that must be `Send`.
#[tokio::test]
async fn a_run_can_be_driven_from_any_thread() {
    let driven = tokio::spawn(async {
        let mut agent = spawn("read line; echo $line", &token());
        agent.write_json(&1).await.unwrap();
        let line = agent.next_line().await.unwrap().unwrap();
        (line.text, agent.finish().await.success(), agent.stop(StopPlan::default()).await.success())
    });
    assert_eq!(driven.await.unwrap(), ("1".to_owned(), true, true));
}

#[tokio::test]
async fn a_signal_is_reported() {
    let mut agent = spawn("kill -SEGV $$", &token());
    while agent.next_line().await.unwrap().is_some() {}
    let exit = agent.finish().await;
    assert_eq!((exit.code, exit.signal, exit.forced), (None, Some(11), false));
}
