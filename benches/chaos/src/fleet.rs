//! Worker processes, and what is done to them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use assembly_lime::{Error, ErrorKind, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// What all workers of a fleet have in common.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    pub(crate) database_url: String,
    pub(crate) folder: PathBuf,
    pub(crate) recording: PathBuf,
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
}

/// Some worker processes; they end with it.
pub(crate) struct Fleet {
    kit: Kit,
    workers: Vec<OneWorker>,
    started: usize,
}

pub(crate) struct OneWorker {
    pub(crate) name: String,
    child: Child,
}

fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unexpected, "chaos.fleet", what.to_owned()).because(error)
}

impl Fleet {
    pub(crate) fn start(kit: Kit, size: usize) -> Result<Self> {
        let mut fleet = Self { kit, workers: Vec::new(), started: 0 };
        for _ in 0..size {
            fleet.add(0)?;
        }
        Ok(fleet)
    }

    /// One more worker, whose clock is wrong by so many seconds.
    pub(crate) fn add(&mut self, clock_off_by: i64) -> Result<()> {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let program = std::env::current_exe().map_err(|error| failed("this program has no path", error))?;
        let kit = &self.kit;
        let child = Command::new(program)
            .arg("work")
            .arg("--name")
            .arg(&name)
            .arg("--folder")
            .arg(&kit.folder)
            .arg("--recording")
            .arg(&kit.recording)
            .arg("--concurrency")
            .arg(kit.concurrency.to_string())
            .arg("--lease-ms")
            .arg(kit.lease.as_millis().to_string())
            .arg("--clock-off-by")
            .arg(clock_off_by.to_string())
            // Not as an argument, which everybody on the machine can read.
            .env("CHAOS_DATABASE_URL", &kit.database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("a worker cannot be started", error))?;
        self.workers.push(OneWorker { name, child });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        &self.workers[index].name
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.workers.iter().position(|worker| worker.name == name)
    }

    /// `kill -9`, and another worker in its place; gives the name of the dead one.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<String> {
        let mut worker = self.workers.swap_remove(index);
        worker.child.kill().await.map_err(|error| failed("a worker cannot be killed", error))?;
        self.add(0)?;
        Ok(worker.name)
    }

    /// Puts workers that ended by themselves in their places; gives the names of those.
    pub(crate) fn replace_dead(&mut self) -> Result<Vec<String>> {
        let mut dead = Vec::new();
        let mut at = 0;
        while at < self.workers.len() {
            match self.workers[at].child.try_wait() {
                Ok(None) => at += 1,
                Ok(Some(_)) => dead.push(self.workers.swap_remove(at).name),
                Err(error) => return Err(failed("a worker cannot be looked at", error)),
            }
        }
        for _ in &dead {
            self.add(0)?;
        }
        Ok(dead)
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let pid = self.workers[index].child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "chaos.fleet", "the worker has ended by itself; see its stderr")
        })?;
        kill_process(pid, signal).map_err(|error| failed("a worker cannot be signalled", error))
    }

    pub(crate) fn freeze(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::STOP)
    }

    pub(crate) fn thaw(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::CONT)
    }

    /// Ends all workers as an operator would.
    pub(crate) async fn stop(mut self) -> Result<()> {
        for index in 0..self.workers.len() {
            self.signal(index, Signal::TERM)?;
        }
        for worker in &mut self.workers {
            let ended = tokio::time::timeout(Duration::from_secs(20), worker.child.wait()).await;
            match ended {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => {
                    let message = format!("{} ended with {status} when it was told to stop", worker.name);
                    return Err(Error::new(ErrorKind::Unexpected, "chaos.fleet", message));
                }
                Ok(Err(error)) => return Err(failed("a worker cannot be waited for", error)),
                Err(_) => {
                    let message = format!("{} did not end within 20 s", worker.name);
                    return Err(Error::new(ErrorKind::Timeout, "chaos.fleet", message));
                }
            }
        }
        Ok(())
    }
}
