//! The subprocess kernel that CLI agents share: spawn, clean environment, framing, limits, kill.
//!
//! It knows nothing of any particular agent. A provider names a [`CliCommand`], spawns a [`CliProcess`],
//! pulls [`Line`]s from it and writes JSON to it, and ends it with [`CliProcess::finish`] or
//! [`CliProcess::stop`].
//!
//! ```
//! use lime_provider_cli::{CliCommand, CliLimits, CliProcess, StopPlan};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let command = CliCommand::new("sh")
//!     .args(["-c", "read question; echo \"answer to $question\"; sleep 60"])
//!     .pass_env(["PATH"]);
//! let mut agent = CliProcess::spawn(&command, &CliLimits::default())?;
//! agent.write_json("why?").await?;
//! let line = agent.next_line().await?.ok_or("the agent said nothing")?;
//! assert_eq!(line.text, "answer to \"why?\"");
//! let exit = agent.stop(StopPlan::NOW).await;
//! assert!(exit.forced && !exit.survivors);
//! # Ok(())
//! # }
//! ```
//!
//! # How a run is killed
//!
//! Agents run their tools in sessions of their own, and tools start daemons; so neither the agent's process
//! group nor a walk down from the agent finds everything. On Linux every agent therefore has a
//! **supervisor**: a small process between worker and agent, forked and never executed anew, that is the
//! *child subreaper* of all the agent starts.
//!
//! ```text
//! worker ── supervisor (subreaper, own session) ── agent (own session) ── tools ── …
//!    └─ control pipe ─┘                                daemons of tools come back here, to the supervisor
//! ```
//!
//! - **Nothing leaves the tree.** A double fork, a new session, a cleared environment or a changed group
//!   make no difference: an orphan is reparented to the supervisor.
//! - **Killing is complete, and proven so.** The supervisor kills its children and their process groups.
//!   What they leave is reparented to it, and killed in the next round, until `wait` reports that there is
//!   no child left. That answer comes from the kernel; it is no guess from a list of processes.
//! - **Only the run's own processes are hit.** A child that has not been waited for keeps its number, and
//!   its group keeps its own, so no signal can reach a recycled one. No zombie is left, and no exit status
//!   of the worker's other children is touched: the worker itself never becomes a subreaper.
//! - **A dead worker leaves nothing behind.** The supervisor holds one end of a pipe. When the worker goes,
//!   SIGKILL included, the pipe ends and the supervisor kills the tree. Unlike `PR_SET_PDEATHSIG` on the
//!   agent, which fires when the *thread* that spawned it ends, this does not depend on tokio's threads,
//!   and it reaches the tools. The agent does have it set, towards the supervisor, which has one thread.
//! - **The end of the agent is the end of its tools**, whether it was stopped, crashed or was done.
//!
//! Should a tool kill the supervisor, the worker notices, and finds the run by walking down from it and by
//! [`RUN_MARK`] in the environment of every process of this host, signalling through pidfds. What it kills
//! then is reaped by the host's init, so a worker that is process 1 of a container wants an init before it.
//!
//! # Limits
//!
//! - A process started by someone else on the run's behalf (a container by a daemon, `systemd-run`, `at`)
//!   is not in the tree. A set-user-id tool may not be killable; it is reported as a survivor.
//! - A tool that kills the supervisor *and* clears its environment *and* was orphaned escapes.
//! - A bomb that forks faster than it can be killed needs a `pids` limit on the worker's cgroup. A cgroup
//!   of its own per run would be stronger still, but the right to make one cannot be assumed.
//! - A supervisor holds the worker's memory as it was at the fork, page by page as the worker changes it.
//!   The memory that it does not need is given back when it starts.
//! - Elsewhere than on Linux there is no supervisor: the agent leads a process group, and stopping freezes
//!   and kills what a walk down from the agent and its group finds. A daemon orphaned before that escapes,
//!   leftovers are killed only by `stop`, `finish` and drop, and a killed worker merely closes the agent's
//!   stdin.

mod command;
mod input;
mod keeper;
mod limits;
mod lines;
mod process;
mod resolve;
mod stderr;
mod stop;
mod sweep;
mod within;

pub use command::{CliCommand, RUN_MARK};
pub use input::{CliInput, WriteError};
pub use limits::CliLimits;
pub use lines::{Line, ReadError};
pub use process::{CliProcess, SpawnError};
pub use resolve::{ResolveError, resolve_binary};
pub use secrecy::SecretString;
pub use stop::{CliExit, StopPlan};
pub use within::path_within;
