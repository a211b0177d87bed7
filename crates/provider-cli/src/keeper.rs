//! Who keeps the agent's tree of processes together, and how it is told to end it.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdin, ChildStdout};

#[cfg(target_os = "linux")]
mod ballast;
#[cfg(target_os = "linux")]
mod census;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(target_os = "linux")]
mod supervisor;

#[cfg(target_os = "linux")]
pub(crate) use linux::Keeper;
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::Keeper;

/// How long the killing of a tree may take before it is looked at from outside.
const KILL_BOUND: Duration = Duration::from_millis(600);
/// How long a sweep may take before what is left counts as a survivor.
const SWEEP_BOUND: Duration = Duration::from_millis(300);

/// The worker's ends of the agent's standard streams.
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// How the agent itself ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AgentEnd {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

/// How the whole tree ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone {
    pub(crate) agent: Option<AgentEnd>,
    pub(crate) forced: bool,
    pub(crate) killed: u32,
    pub(crate) survivors: bool,
}

/// A mark for [`RUN_MARK`](crate::RUN_MARK) that no other run on this host has: 128 random bits.
pub(crate) fn new_mark() -> String {
    let draw = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", draw(), draw())
}

/// Takes the pipes of a child that was spawned with three of them.
fn take_pipes(child: &mut tokio::process::Child) -> std::io::Result<Pipes> {
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok(Pipes { stdin, stdout, stderr }),
        _ => Err(std::io::Error::other("the agent was not given its pipes")),
    }
}
