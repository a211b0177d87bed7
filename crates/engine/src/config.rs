use std::time::Duration;

use lime_core::ports::WorkerName;

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The name for operators; `HOSTNAME` and the process id unless given.
    pub name: WorkerName,
    /// How many runs it works at once; 2 unless given, 1 at least.
    pub concurrency: usize,
    /// How long a run is its own without a sign of life; 30 s unless given.
    pub lease: Duration,
    /// How often it shows a sign of life; 10 s unless given, a third of the lease at most.
    pub heartbeat: Duration,
    /// How often it looks for work when there was none; 1 s unless given. Work submitted in the same process is
    /// taken at once.
    pub poll: Duration,
    /// Which checkouts stay on the disk.
    pub keep_worktrees: KeepWorktree,
}

/// Which checkouts stay on the disk after their attempt.
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
        let name = format!("{}-{}", host.as_deref().unwrap_or("worker"), std::process::id());
        Self {
            name: WorkerName::parse(name).expect("a host's name and a number are within the limits"),
            concurrency: 2,
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            poll: Duration::from_secs(1),
            keep_worktrees: KeepWorktree::default(),
        }
    }
}
