//! How a run is stopped, and what is known when it is over.

use std::time::Duration;

/// The patience of [`CliProcess::stop`](crate::CliProcess::stop): close stdin, wait, SIGINT, wait, SIGKILL
/// to every descendant.
///
/// - The protocol's own interrupt comes before, and is the provider's work.
/// - An agent that ends in time is not signalled any further; what it leaves behind is killed at once.
/// - Both waits together must stay under 1 s, as they are by default, for a stop to be over within 2 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPlan {
    /// How long the agent has, from the closing of its stdin to SIGINT. Default 500 ms.
    pub stdin_grace: Duration,
    /// How long the agent has, from SIGINT to SIGKILL; zero leaves SIGINT out. Default 500 ms.
    pub interrupt_grace: Duration,
}

impl StopPlan {
    /// No patience: SIGKILL at once.
    pub const NOW: Self = Self { stdin_grace: Duration::ZERO, interrupt_grace: Duration::ZERO };
}

impl Default for StopPlan {
    fn default() -> Self {
        let grace = Duration::from_millis(500);
        Self { stdin_grace: grace, interrupt_grace: grace }
    }
}

/// The end of a run: how the agent ended, and what was left to clean up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CliExit {
    /// The agent's exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended the agent, if one did. Neither code nor signal: its end was not observed,
    /// because the supervisor was killed.
    pub signal: Option<i32>,
    /// Whether the agent itself had to be killed by [`stop`](crate::CliProcess::stop).
    pub forced: bool,
    /// The end of stderr, lossily decoded; at most
    /// [`stderr_tail_bytes`](crate::CliLimits::stderr_tail_bytes). It is the agent's own text: do not trust
    /// it to be free of secrets.
    pub stderr_tail: String,
    /// How many bytes of stderr came before the tail and were dropped.
    pub stderr_dropped: u64,
    /// How many lines of stdout were cut at [`max_line_bytes`](crate::CliLimits::max_line_bytes).
    pub cut_lines: u64,
    /// How many processes outlived the agent and were killed; a lower bound, since a killed process may
    /// have been reaped by its own parent.
    pub leftovers_killed: u32,
    /// Whether some process of the run could not be confirmed gone in time, as with a set-user-id tool
    /// that may not be killed or one that hangs in the kernel. It is still being killed in the background.
    pub survivors: bool,
}

impl CliExit {
    /// Whether the agent exited by itself with code 0.
    ///
    /// - A protocol may still have reported a failure; the provider knows.
    pub fn success(&self) -> bool {
        self.code == Some(0) && !self.forced
    }

    /// What was unusual about the end, in a few words each: nothing, if it was in order.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.forced {
            notes.push("had to be killed".to_owned());
        }
        if self.leftovers_killed > 0 {
            notes.push(format!("{} leftover processes killed", self.leftovers_killed));
        }
        if self.survivors {
            notes.push("some process could not be confirmed gone".to_owned());
        }
        if self.cut_lines > 0 {
            notes.push(format!("{} lines cut", self.cut_lines));
        }
        notes
    }
}
