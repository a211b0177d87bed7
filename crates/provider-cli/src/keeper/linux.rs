//! The worker's side of the supervisor: two pipes and a child to wait for.

use std::io::{self, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Child;
use tokio::time::timeout;
use tracing::warn;

use super::supervisor::{self, INTERRUPT, RECORD, Report};
use super::{AgentEnd, Gone, KILL_BOUND, Pipes, SWEEP_BOUND, take_pipes};
use crate::sweep::{Swept, sweep};

/// How long a supervisor that has reported may take to be gone itself.
const REAP_BOUND: Duration = Duration::from_millis(200);

/// One run's supervisor, seen from the worker.
#[derive(Debug)]
pub(crate) struct Keeper {
    supervisor: Child,
    agent_pid: u32,
    /// Bytes are orders; its end is the order to kill.
    control: Option<io::PipeWriter>,
    reports: Receiver,
    partial: Vec<u8>,
    mark: String,
    agent: Option<AgentEnd>,
    /// The number of processes killed, once the tree is gone.
    killed: Option<u32>,
    /// The reports have ended: the supervisor is done, or was killed.
    silent: bool,
    forced: bool,
}

impl Keeper {
    /// Starts the supervisor, which starts the agent.
    pub(crate) fn spawn(mut command: Command, mark: String) -> io::Result<(Self, Pipes)> {
        let (control_read, control) = pipe()?;
        let (mut reports, reports_write) = pipe()?;
        supervisor::install(&mut command, &control_read.into(), &reports_write.into())?;
        let mut command = tokio::process::Command::from(command);
        let mut supervisor = command.spawn()?;
        drop(command); // and with it our copies of the supervisor's ends
        let pipes = take_pipes(&mut supervisor)?;
        // Spawning ends when the supervisor has closed everything it inherited, and it reports before that.
        let mut record = [0; RECORD];
        reports.read_exact(&mut record)?;
        let Some(Report::Started(agent_pid)) = Report::decode(record) else {
            return Err(io::Error::other("the supervisor did not report its agent"));
        };
        let keeper = Self {
            supervisor,
            agent_pid,
            control: Some(control),
            reports: Receiver::from_owned_fd(OwnedFd::from(reports))?,
            partial: Vec::with_capacity(RECORD),
            mark,
            agent: None,
            killed: None,
            silent: false,
            forced: false,
        };
        Ok((keeper, pipes))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent_pid
    }

    /// Has the supervisor send SIGINT, which alone knows that the agent's number is still the agent's.
    pub(crate) fn interrupt(&mut self) {
        if let Some(control) = &mut self.control {
            let _ = control.write(&[INTERRUPT]); // a broken pipe means there is no one to interrupt
        }
    }

    /// Has the supervisor kill the tree; returns at once.
    pub(crate) fn kill(&mut self) {
        if self.control.take().is_some() {
            self.forced = self.agent.is_none();
        }
        // A tool may have stopped the supervisor. Its number is its own until the child is waited for.
        if let Some(pid) = self.supervisor_pid() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Waits for the end of the agent itself; cancel-safe.
    pub(crate) async fn agent_ended(&mut self) {
        while self.agent.is_none() && !self.silent {
            self.listen().await;
        }
    }

    /// Waits until the tree is gone, in bounded time if the agent has ended or was killed.
    pub(crate) async fn gone(&mut self) -> Gone {
        let reported = timeout(KILL_BOUND, async {
            while self.killed.is_none() && !self.silent {
                self.listen().await;
            }
        });
        let _ = reported.await; // `killed` tells
        let (killed, survivors) = match self.killed {
            Some(killed) => {
                let _ = timeout(REAP_BOUND, self.supervisor.wait()).await; // else tokio reaps it later
                (killed, false)
            }
            None => self.sweep_up().await,
        };
        let forced = self.forced && self.agent.is_none_or(|end| end.signal == Some(Signal::KILL.as_raw()));
        Gone { agent: self.agent, forced, killed, survivors }
    }

    /// Kills from outside what the supervisor could not, or no longer can.
    async fn sweep_up(&mut self) -> (u32, bool) {
        warn!(pid = self.agent_pid, "the supervisor of the agent is lost or stuck; sweeping the host");
        let (root, mark) = (self.supervisor_pid(), self.mark.clone());
        let deadline = Instant::now() + SWEEP_BOUND;
        let swept = tokio::task::spawn_blocking(move || sweep(root, &mark, deadline)).await;
        let _ = timeout(REAP_BOUND, self.supervisor.wait()).await; // a supervisor with survivors stays
        swept.map_or((0, true), |Swept { killed, left }| (killed, left))
    }

    /// Takes the next report; cancel-safe.
    async fn listen(&mut self) {
        while self.partial.len() < RECORD {
            let room = RECORD - self.partial.len();
            match (&mut self.reports).take(room as u64).read_buf(&mut self.partial).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    self.silent = true;
                    return;
                }
            }
        }
        let mut record = [0; RECORD];
        record.copy_from_slice(&self.partial);
        self.partial.clear();
        match Report::decode(record) {
            Some(Report::Ended(raw)) => {
                let status = ExitStatus::from_raw(raw);
                self.agent = Some(AgentEnd { code: status.code(), signal: status.signal() });
            }
            Some(Report::Gone(killed)) => self.killed = Some(killed),
            Some(Report::Started(_)) | None => {}
        }
    }

    fn supervisor_pid(&self) -> Option<Pid> {
        self.supervisor.id().and_then(|pid| Pid::from_raw(pid.cast_signed()))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
        // A supervisor exits with 0, and only when nothing is left; one that ended otherwise was killed.
        let lost = match self.supervisor.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => !status.success(),
            Err(_) => self.killed.is_none(),
        };
        if lost {
            sweep(None, &self.mark, Instant::now() + SWEEP_BOUND);
        }
    }
}
