//! The table of processes as `ps` shows it.

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Entry;

/// Every process that is not dead yet, but for the `ps` that lists them.
pub(super) fn snapshot() -> Vec<Entry> {
    let mut ps = Command::new("/bin/ps");
    ps.args(["-A", "-o", "pid=,ppid=,pgid=,stat="]).stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(output) = ps.output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Entry> {
    let mut fields = line.split_ascii_whitespace();
    let pid = Pid::from_raw(fields.next()?.parse().ok()?)?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    (!fields.next()?.starts_with('Z')).then_some(Entry { pid, parent, group, started: 0 })
}

/// Whether the process is in the group that the root leads.
pub(super) fn belongs(entry: &Entry, root: Option<Pid>, _mark: &str) -> bool {
    root.is_some_and(|root| entry.group == root.as_raw_nonzero().get())
}

/// Signals the process that has this number now.
pub(super) fn signal(entry: &Entry, signal: Signal) {
    let _ = kill_process(entry.pid, signal); // gone already, or not ours to kill
}
