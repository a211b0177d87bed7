//! A running agent CLI.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::ChildStdout;
use tokio::time::timeout;
use tracing::{Span, debug, info, info_span, warn};

use crate::command::CliCommand;
use crate::input::{CliInput, WriteError};
use crate::keeper::{AgentEnd, Keeper};
use crate::limits::CliLimits;
use crate::lines::{Line, LineReader, ReadError};
use crate::resolve::ResolveError;
use crate::stderr::StderrTail;
use crate::stop::{CliExit, StopPlan};

/// How long stderr may take to end once every process of the run is gone.
const STDERR_SETTLE: Duration = Duration::from_millis(100);

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The program is missing or may not be executed.
    #[error("the agent's program cannot be run")]
    Program(#[from] ResolveError),
    /// The working directory is not a directory.
    #[error("the working directory {} does not exist", .directory.display())]
    WorkingDirectory {
        /// The directory that was asked for.
        directory: PathBuf,
    },
    /// No environment variable can have this name.
    #[error("`{name}` is no name for an environment variable")]
    EnvironmentName {
        /// The name that was asked for.
        name: String,
    },
    /// The operating system refused: out of processes, memory or files, or not an executable format.
    #[error("the agent could not be started")]
    Os(#[source] std::io::Error),
}

/// An agent CLI that runs, with the whole tree of processes under it.
///
/// - Reading is by pulling: an agent that writes faster than its lines are asked for waits on its pipe.
/// - Its stderr is always drained, and the end of it kept.
/// - When the agent ends, however it ends, every process it left behind is killed.
/// - Dropping it kills everything, as [`stop`](Self::stop) with [`StopPlan::NOW`] does, without waiting.
pub struct CliProcess {
    lines: LineReader<ChildStdout>,
    input: CliInput,
    stderr: StderrTail,
    keeper: Keeper,
    drained: bool,
    exit: Option<CliExit>,
    span: Span,
}

impl fmt::Debug for CliProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CliProcess")
            .field("pid", &self.keeper.pid())
            .field("ended", &self.exit.is_some())
            .finish_non_exhaustive()
    }
}

impl CliProcess {
    /// Starts the agent with pipes on stdin, stdout and stderr, in a session of its own.
    ///
    /// - Needs a tokio runtime with I/O and time enabled; any thread of it will do.
    /// - Takes as long as a fork and an exec take, a few milliseconds.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing is running then.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn(command: &CliCommand, limits: &CliLimits) -> Result<Self, SpawnError> {
        let mark = crate::keeper::new_mark();
        let mut os_command = command.build(&mark)?;
        os_command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (keeper, pipes) = Keeper::spawn(os_command, mark).map_err(SpawnError::Os)?;
        let program = command.program().file_name().unwrap_or_default().to_string_lossy();
        let span = info_span!("agent_cli", program = %program, pid = keeper.pid());
        span.in_scope(|| debug!("agent started"));
        Ok(Self {
            lines: LineReader::new(pipes.stdout, limits.max_line_bytes, limits.max_output_bytes),
            input: CliInput::new(pipes.stdin, limits.write_timeout),
            stderr: StderrTail::new(pipes.stderr, limits.stderr_tail_bytes),
            keeper,
            drained: false,
            exit: None,
            span,
        })
    }

    /// The agent's process id, which is also its session and process group; for logs.
    ///
    /// - Do not signal it: once the agent is gone, the number may be another process's.
    pub fn pid(&self) -> u32 {
        self.keeper.pid()
    }

    /// The next line of stdout, or `None` once stdout has ended.
    ///
    /// - Cancel-safe: a dropped future loses nothing.
    /// - A line over the limit comes cut and marked; the rest of it is never held in memory.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: the limit of the whole output is reached (for good), or the pipe failed.
    pub async fn next_line(&mut self) -> Result<Option<Line>, ReadError> {
        self.lines.next().await
    }

    /// Writes one message to stdin; see [`CliInput::write_json`].
    ///
    /// # Errors
    ///
    /// Those of [`CliInput::write_json`].
    pub async fn write_json<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), WriteError> {
        self.input.write_json(message).await
    }

    /// A handle to stdin of its own, for writing from another task.
    pub fn input(&self) -> CliInput {
        self.input.clone()
    }

    /// Closes stdin, which tells most agents to end after the current turn.
    pub fn close_stdin(&self) {
        self.input.close();
    }

    /// Sends SIGINT to the agent's process group, as Ctrl-C in a terminal would.
    ///
    /// - Does nothing once the agent has ended.
    pub fn interrupt(&mut self) {
        self.span.in_scope(|| debug!("interrupting the agent"));
        self.keeper.interrupt();
    }

    /// The end of stderr so far, lossily decoded.
    pub fn stderr_tail(&self) -> String {
        self.stderr.snapshot().0
    }

    /// Closes stdin, waits for the agent to end by itself, and kills what it left behind.
    ///
    /// - Waits without limit for the agent; put a timeout around it and [`stop`](Self::stop) on expiry.
    ///   Cancel-safe.
    /// - Lines of stdout that were not read are lost: read until `None` first.
    /// - Asked again, gives the same answer.
    pub async fn finish(&mut self) -> CliExit {
        self.input.close();
        self.agent_ended().await;
        self.conclude().await
    }

    /// Stops the agent and every process under it: close stdin, wait, SIGINT, wait, SIGKILL to all.
    ///
    /// - On return no process of the run is left, or [`survivors`](CliExit::survivors) says otherwise. With
    ///   the default plan that is within 2 s.
    /// - Lines of stdout that were not read are lost; they are read and thrown away, so that an agent
    ///   that is busy writing can end in order.
    /// - Cancel-safe, and asked again it gives the same answer.
    pub async fn stop(&mut self, plan: StopPlan) -> CliExit {
        self.input.close();
        let mut ended = self.ended_within(plan.stdin_grace).await;
        if !ended && !plan.interrupt_grace.is_zero() {
            self.interrupt();
            ended = self.ended_within(plan.interrupt_grace).await;
        }
        if !ended {
            self.span.in_scope(|| info!("killing the agent and everything under it"));
            self.keeper.kill();
        }
        self.conclude().await
    }

    /// Whether the agent ended before `grace` was over.
    async fn ended_within(&mut self, grace: Duration) -> bool {
        timeout(grace, self.agent_ended()).await.is_ok()
    }

    /// Waits for the agent's end, and throws stdout away meanwhile.
    async fn agent_ended(&mut self) {
        if !self.drained {
            tokio::select! {
                biased;
                () = self.keeper.agent_ended() => return,
                () = self.lines.drain() => self.drained = true,
            }
        }
        self.keeper.agent_ended().await;
    }

    /// Waits until the whole tree is gone, and makes the report.
    async fn conclude(&mut self) -> CliExit {
        if let Some(exit) = &self.exit {
            return exit.clone();
        }
        let gone = self.keeper.gone().await;
        if !gone.survivors {
            self.stderr.settle(STDERR_SETTLE).await;
        }
        let (stderr_tail, stderr_dropped) = self.stderr.snapshot();
        let AgentEnd { code, signal } = gone.agent.unwrap_or_default();
        let exit = CliExit {
            code,
            signal,
            forced: gone.forced,
            stderr_tail,
            stderr_dropped,
            cut_lines: self.lines.cut(),
            leftovers_killed: gone.killed,
            survivors: gone.survivors,
        };
        self.span.in_scope(|| {
            info!(code, signal, forced = exit.forced, leftovers = exit.leftovers_killed, "agent ended");
            if exit.survivors {
                warn!("some process of the agent could not be confirmed gone");
            }
        });
        self.exit = Some(exit.clone());
        exit
    }
}
