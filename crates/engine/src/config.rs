use std::time::Duration;

use lime_core::ports::WorkerName;
use lime_core::runs::RetryPolicy;
use lime_core::{Error, Result};

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The name for operators, by which workers are told apart: no two should have the same.
    ///
    /// - Unless given, `HOSTNAME` and the process id; without `HOSTNAME`, `worker-` with four random digits for it.
    pub name: WorkerName,
    /// How many runs it works at once; 2 unless given, 1 at least.
    pub concurrency: usize,
    /// How long a run is its own without a sign of life; 30 s unless given.
    pub lease: Duration,
    /// How often it shows a sign of life; 10 s unless given, a third of the lease at most. What is asked of a run is
    /// heard at once where the storage can tell, and with the next sign of life otherwise.
    pub heartbeat: Duration,
    /// How often it looks for work when there was none; 1 s unless given. Where the storage can tell, what is queued
    /// is taken at once.
    pub poll: Duration,
    /// How often it looks after runs that have fallen out of the line; 5 min unless given.
    pub sweep: Duration,
    /// When a run that failed is tried again.
    pub retry: RetryPolicy,
    /// How long an agent may give no sign of life before it is stopped; 15 min unless given. It does not count while
    /// a person is asked.
    pub hang_after: Duration,
    /// How often in a row the same tool call may fail before the agent is stopped; 5 unless given, 2 at least. Any call
    /// that succeeds begins the count anew.
    pub loop_limit: u32,
    /// How many questions a run may ask people; 50 unless given. What it asks after that is denied.
    pub max_questions: usize,
    /// Which checkouts stay on the disk.
    pub keep_worktrees: KeepWorktree,
}

/// Which checkouts stay on the disk after their run.
///
/// - A run that goes on later keeps its checkout until then: after a pause, a failure that may pass, or a worker's stop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepWorktree {
    /// None.
    Never,
    /// Those of runs that did not succeed, so that the work can be looked at.
    #[default]
    Unfinished,
    /// All.
    Always,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        let host = std::env::var("HOSTNAME").ok().filter(|host| host.len() <= 150);
        // Containers have the same process ids; workers go by their names.
        let host = host.unwrap_or_else(|| format!("worker-{:04x}", fastrand::u16(..)));
        let name = format!("{host}-{}", std::process::id());
        Self {
            name: WorkerName::parse(name).expect("a host's name and a number are within the limits"),
            concurrency: 2,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            sweep: Duration::from_secs(300),
            retry: RetryPolicy::default(),
            hang_after: Duration::from_secs(900),
            loop_limit: 5,
            max_questions: 50,
            keep_worktrees: KeepWorktree::default(),
        }
    }
}

impl WorkerConfig {
    /// Checks that it does not contradict itself.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        let rules = [
            (self.concurrency > 0, "the concurrency must be 1 or more"),
            (
                !self.heartbeat.is_zero() && self.heartbeat <= self.lease / 3,
                "the heartbeat must be above 0 and at most a third of the lease",
            ),
            (!self.poll.is_zero() && !self.sweep.is_zero(), "the times between two looks must be above 0"),
            (!self.hang_after.is_zero(), "the time without a sign of life must be above 0"),
            (self.loop_limit >= 2, "the limit of failing calls in a row must be 2 or more"),
        ];
        match rules.into_iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => Err(Error::invalid(operation, rule)),
            None => Ok(()),
        }
    }
}
