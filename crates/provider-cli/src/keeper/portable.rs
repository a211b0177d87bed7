//! Keeping the tree together without a supervisor: a process group, and a walk down from the agent.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::time::timeout;

use super::{AgentEnd, Gone, KILL_BOUND, Pipes, SWEEP_BOUND, take_pipes};
use crate::sweep::{Swept, sweep};

/// How long a sweep at drop may block.
const DROP_BOUND: Duration = Duration::from_millis(100);

/// One run's agent, which leads a process group.
#[derive(Debug)]
pub(crate) struct Keeper {
    agent: Child,
    pid: u32,
    mark: String,
    ended: Option<AgentEnd>,
    forced: bool,
    swept: Option<Swept>,
}

impl Keeper {
    /// Starts the agent in a process group of its own.
    pub(crate) fn spawn(mut command: Command, mark: String) -> io::Result<(Self, Pipes)> {
        command.process_group(0);
        let mut agent = tokio::process::Command::from(command).spawn()?;
        let pid = agent.id().ok_or_else(|| io::Error::other("the agent ended before it started"))?;
        let pipes = take_pipes(&mut agent)?;
        Ok((Self { agent, pid, mark, ended: None, forced: false, swept: None }, pipes))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGINT to the agent's group, unless the agent has been waited for.
    pub(crate) fn interrupt(&mut self) {
        if let Some(agent) = self.live() {
            let _ = kill_process_group(agent, Signal::INT);
        }
    }

    /// Freezes the agent, so that the walk down from it in [`gone`](Self::gone) finds a tree that holds.
    pub(crate) fn kill(&mut self) {
        if let Some(agent) = self.live() {
            self.forced = true;
            let _ = kill_process(agent, Signal::STOP);
        }
    }

    /// Waits for the end of the agent itself; cancel-safe.
    pub(crate) async fn agent_ended(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(match self.agent.wait().await {
                Ok(status) => AgentEnd { code: status.code(), signal: status.signal() },
                Err(_) => AgentEnd::default(),
            });
        }
    }

    /// Kills the tree, agent last.
    pub(crate) async fn gone(&mut self) -> Gone {
        let (root, mark) = (Pid::from_raw(self.pid.cast_signed()), self.mark.clone());
        let deadline = Instant::now() + SWEEP_BOUND;
        let swept = tokio::task::spawn_blocking(move || sweep(root, &mark, deadline)).await;
        let Swept { killed, left } = swept.unwrap_or(Swept { killed: 0, left: true });
        self.swept = Some(Swept { killed, left });
        if let Some(agent) = self.live() {
            let _ = kill_process(agent, Signal::KILL);
        }
        let waited = timeout(KILL_BOUND, self.agent_ended()).await;
        let forced = self.forced && self.ended.is_none_or(|end| end.signal == Some(Signal::KILL.as_raw()));
        Gone { agent: self.ended, forced, killed, survivors: left || waited.is_err() }
    }

    /// The agent's number, as long as it is the agent's: until it is waited for.
    fn live(&self) -> Option<Pid> {
        self.agent.id().and_then(|pid| Pid::from_raw(pid.cast_signed()))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.swept.is_some() {
            return;
        }
        self.kill();
        sweep(Pid::from_raw(self.pid.cast_signed()), &self.mark, Instant::now() + DROP_BOUND);
        let _ = self.agent.start_kill();
    }
}
