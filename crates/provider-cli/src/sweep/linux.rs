//! The table of processes as `/proc` shows it.

use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Entry;
use crate::command::RUN_MARK;

/// Every process that is not dead yet.
pub(super) fn snapshot() -> Vec<Entry> {
    let Ok(directory) = fs::read_dir("/proc") else { return Vec::new() };
    directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter_map(look)
        .collect()
}

fn look(pid: Pid) -> Option<Entry> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = String::from_utf8_lossy(stat.get(name_end + 1..)?);
    let mut fields = fields.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?; // field 22 of proc_pid_stat(5)
    Some(Entry { pid, parent, group, started })
}

/// Whether the process carries the run's mark.
pub(super) fn belongs(entry: &Entry, _root: Option<Pid>, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{}/environ", entry.pid)).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| {
        let rest = variable.strip_prefix(RUN_MARK.as_bytes());
        rest.and_then(|rest| rest.strip_prefix(b"=")) == Some(mark.as_bytes())
    })
}

/// Signals exactly this process: the pidfd pins it, and the start time says that it is the one.
pub(super) fn signal(entry: &Entry, signal: Signal) {
    let Ok(pidfd) = pidfd_open(entry.pid, PidfdFlags::empty()) else { return };
    if look(entry.pid).is_some_and(|now| now.started == entry.started) {
        let _ = pidfd_send_signal(&pidfd, signal); // gone already, or not ours to kill
    }
}
