//! Finding and killing a tree of processes from outside, for want of a supervisor.
//!
//! - Freezes first (SIGSTOP), until two looks in a row find nothing new, then kills: a frozen process
//!   forks no more.
//! - On Linux a process is a member if it descends from the root or carries the run's mark in its
//!   environment, and is signalled through a pidfd whose start time was checked: a recycled number is never
//!   hit. Elsewhere it is a member if it descends from the root or is in its group, and the number is trusted.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

#[cfg(target_os = "linux")]
#[path = "sweep/linux.rs"]
mod table;
#[cfg(not(target_os = "linux"))]
#[path = "sweep/portable.rs"]
mod table;

/// The pause between two looks, once all that was found is killed.
const PAUSE: Duration = Duration::from_millis(5);

/// One live process; equal only if it is the same process, not just the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pid: Pid,
    parent: i32,
    group: i32,
    /// Clock ticks since boot; 0 where it is not known.
    started: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swept {
    pub(crate) killed: u32,
    pub(crate) left: bool,
}

/// Kills everything below `root` and everything that carries `mark`, until nothing is found or the deadline
/// is over. The root itself is spared. Blocks.
pub(crate) fn sweep(root: Option<Pid>, mark: &str, deadline: Instant) -> Swept {
    let mut known: HashSet<(Pid, u64)> = HashSet::new();
    loop {
        let members = members(root, mark);
        if members.is_empty() {
            return Swept { killed: count(&known), left: false };
        }
        let mut fresh = false;
        for member in &members {
            if known.insert((member.pid, member.started)) {
                fresh = true;
                table::signal(member, Signal::STOP);
            }
        }
        if fresh && Instant::now() < deadline {
            continue;
        }
        for member in &members {
            table::signal(member, Signal::KILL);
        }
        if Instant::now() >= deadline {
            return Swept { killed: count(&known), left: true };
        }
        std::thread::sleep(PAUSE);
    }
}

fn count(known: &HashSet<(Pid, u64)>) -> u32 {
    u32::try_from(known.len()).unwrap_or(u32::MAX)
}

/// The processes of the run that are alive now.
fn members(root: Option<Pid>, mark: &str) -> Vec<Entry> {
    let entries = table::snapshot();
    let mut inside: HashSet<i32> = root.iter().map(|root| root.as_raw_nonzero().get()).collect();
    let spared = std::process::id().cast_signed();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for entry in &entries {
            let pid = entry.pid.as_raw_nonzero().get();
            let is_member = || inside.contains(&entry.parent) || table::belongs(entry, root, mark);
            if pid != spared && !inside.contains(&pid) && is_member() {
                inside.insert(pid);
                found.push(*entry);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}
