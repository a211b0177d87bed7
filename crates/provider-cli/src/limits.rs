//! The limits a run of an agent CLI is held to.

use std::time::Duration;

/// What one agent process may cost the worker in memory and waiting.
///
/// - Every limit has a default that suits the known CLIs; set a field to change it.
/// - None of them limits what the agent itself uses: that is a cgroup's or a container's work.
///
/// ```
/// use lime_provider_cli::CliLimits;
///
/// let limits = CliLimits { max_output_bytes: Some(64 << 20), ..CliLimits::default() };
/// assert_eq!(limits.max_line_bytes, 1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliLimits {
    /// The longest line of stdout that is kept whole, in bytes without its newline. Default 1 MiB.
    ///
    /// The rest of a longer line is read and thrown away, and the line says so
    /// ([`Line::truncated`](crate::Line::truncated)).
    pub max_line_bytes: usize,
    /// The most bytes of stdout that are read in the whole run, newlines included. Default: no limit.
    ///
    /// Beyond it comes [`ReadError::OutputLimit`](crate::ReadError::OutputLimit), after the whole lines of the
    /// last 64 KiB read.
    pub max_output_bytes: Option<u64>,
    /// How much of the end of stderr is kept, in bytes. Default 64 KiB.
    pub stderr_tail_bytes: usize,
    /// How long one line may take to be written to stdin before the child counts as not reading.
    /// Default 10 s.
    pub write_timeout: Duration,
}

impl Default for CliLimits {
    fn default() -> Self {
        Self {
            max_line_bytes: 1 << 20,
            max_output_bytes: None,
            stderr_tail_bytes: 64 << 10,
            write_timeout: Duration::from_secs(10),
        }
    }
}
