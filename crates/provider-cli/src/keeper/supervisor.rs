//! The supervisor: what runs between the worker and the agent. The crate's only unsafe code is here.
//!
//! The child that the standard library forks becomes the supervisor; it forks once more, and that child
//! goes on to become the agent. Nothing here is ever executed anew, so no binary has to be found, and all of
//! it runs in the copy of a process that had many threads: **only async-signal-safe calls, no allocation, no
//! lock, no panic.** What is safe Rust below is written to that rule: arithmetic is checked or cannot
//! overflow, buffers are on the stack, and rustix makes bare system calls.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, getppid, kill_process, kill_process_group,
    set_child_subreaper, set_parent_process_death_signal, setsid, wait,
};

use super::ballast::{MOST, Range, ballast};
use super::census::Census;

/// The order to send SIGINT to the agent.
pub(super) const INTERRUPT: u8 = b'i';
/// The length of one report in bytes; far under what a pipe takes in one piece.
pub(super) const RECORD: usize = 5;
/// Where the supervisor keeps its two pipes, having closed everything else.
const CONTROL: RawFd = 0;
const REPORTS: RawFd = 1;
/// The longest pause between two rounds of killing while something does not die, in milliseconds.
const LONGEST_PAUSE: i32 = 100;

/// What the supervisor tells the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The agent's process id; always the first.
    Started(u32),
    /// The agent's wait status.
    Ended(i32),
    /// No process is left; how many were killed beside the agent. Always the last.
    Gone(u32),
}

impl Report {
    fn encode(self) -> [u8; RECORD] {
        let (tag, [a, b, c, d]) = match self {
            Self::Started(pid) => (b's', pid.to_le_bytes()),
            Self::Ended(status) => (b'e', status.to_le_bytes()),
            Self::Gone(killed) => (b'g', killed.to_le_bytes()),
        };
        [tag, a, b, c, d]
    }

    pub(super) fn decode([tag, a, b, c, d]: [u8; RECORD]) -> Option<Self> {
        let value = u32::from_le_bytes([a, b, c, d]);
        match tag {
            b's' => Some(Self::Started(value)),
            b'e' => Some(Self::Ended(value.cast_signed())),
            b'g' => Some(Self::Gone(value)),
            _ => None,
        }
    }
}

/// Has `command`, when spawned, start a supervisor which starts the program.
///
/// - `control` is the read end of a pipe that must end when the worker is gone; `reports` a write end.
/// - The spawned child is the supervisor. It exits after the last of its descendants.
pub(super) fn install(command: &mut Command, control: &OwnedFd, reports: &OwnedFd) -> io::Result<()> {
    // Clear of the standard streams, which a worker may have closed and the child sets anew.
    let control = fcntl_dupfd_cloexec(control, 3)?;
    let reports = fcntl_dupfd_cloexec(reports, 3)?;
    let ballast = ballast();
    let split = move || split(control.as_raw_fd(), reports.as_raw_fd(), &ballast);
    // SAFETY: `split` runs in the forked child, where only async-signal-safe calls are allowed. It makes
    // nothing but system calls, with buffers on the stack: no allocation, no lock, no access to state that
    // another thread may have left half changed. It owns the two descriptors, so they are open.
    unsafe { command.pre_exec(split) };
    Ok(())
}

/// Divides the forked child in two: never returns in the supervisor, and returns in the agent to be.
fn split(control: RawFd, reports: RawFd, ballast: &[Range]) -> io::Result<()> {
    take_signals();
    // A fresh fork leads no group, so this succeeds. The worker's terminal and groups are left behind.
    setsid()?;
    let supervisor = getpid();
    set_child_subreaper(Some(supervisor))?;
    // SAFETY: no argument; fork is async-signal-safe in POSIX.1-2008, and glibc and musl keep it so. There
    // is one thread here, and the locks that libc takes in `fork` were made whole by the first fork.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            setsid()?;
            // If a tool kills the supervisor, the agent goes with it. The supervisor has one thread, so
            // "the end of the thread that forked" is the end of the process.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if getppid() != Some(supervisor) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            release_signals();
            Ok(())
        }
        agent => supervise(agent, supervisor, control, reports, ballast),
    }
}

/// Blocks every signal and gives each its default action.
///
/// The worker's handlers must not run here (tokio's would write into the worker's own pipe), and what the
/// worker ignores must not be ignored by the agent.
fn take_signals() {
    // SAFETY: plain system calls on memory of our own; `sigfillset` fills what is read after it. A number
    // without a changeable action is refused with an error, which is fine.
    unsafe {
        let mut every = MaybeUninit::uninit();
        libc::sigfillset(every.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, every.as_ptr(), std::ptr::null_mut());
        for number in 1..=31 {
            libc::signal(number, libc::SIG_DFL);
        }
    }
}

/// Blocks no signal any more, for the agent.
fn release_signals() {
    // SAFETY: as in `take_signals`.
    unsafe {
        let mut none = MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// What the supervisor knows.
struct Watch {
    me: Pid,
    agent: Pid,
    agent_ended: bool,
    killed: u32,
    deaths: RawFd,
}

/// The supervisor's whole life.
fn supervise(agent: i32, me: Pid, control: RawFd, reports: RawFd, ballast: &[Range]) -> ! {
    if let Some(agent) = Pid::from_raw(agent) {
        let deaths = settle_in(control, reports, agent);
        drop_ballast(ballast); // last, as the worker's `spawn` has gone on by now
        let mut watch = Watch { me, agent, agent_ended: false, killed: 0, deaths };
        watch.guard();
        watch.kill_all();
        report(Report::Gone(watch.killed));
    }
    // SAFETY: `_exit` ends the process without running anything of the worker's.
    unsafe { libc::_exit(0) }
}

/// Reports the agent, then lets go of what was inherited: descriptors, directory, name.
/// Returns a descriptor that becomes readable when a child dies, or -1.
fn settle_in(control: RawFd, reports: RawFd, agent: Pid) -> RawFd {
    // SAFETY: system calls on plain integers and static strings. The descriptors that are closed belong to
    // copies of objects in this process which are never used again: nothing but this module runs in it.
    // Both pipes are above 2, so neither `dup2` overwrites the other's source.
    unsafe {
        libc::dup2(control, CONTROL);
        libc::dup2(reports, REPORTS);
        // Before the closing, as the worker's `spawn` ends with that and then reads this.
        report(Report::Started(agent.as_raw_nonzero().get().unsigned_abs()));
        if libc::syscall(libc::SYS_close_range, 2_u32, u32::MAX, 0_u32) != 0 {
            let mut limit = MaybeUninit::<libc::rlimit>::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, limit.as_mut_ptr());
            let end = i32::try_from(limit.assume_init().rlim_cur).unwrap_or(i32::MAX);
            for descriptor in 2..end {
                libc::close(descriptor);
            }
        }
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, c"lime-supervisor".as_ptr());
        let mut child = MaybeUninit::uninit();
        libc::sigemptyset(child.as_mut_ptr());
        libc::sigaddset(child.as_mut_ptr(), libc::SIGCHLD);
        libc::signalfd(-1, child.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    }
}

/// Gives the worker's memory back, but for what this thread stands on.
fn drop_ballast(ballast: &[Range]) {
    let mut ranges = [(0, 0); MOST];
    for (place, range) in ranges.iter_mut().zip(ballast) {
        *place = *range; // the list itself is in memory that is about to go
    }
    // SAFETY: returns the address of this thread's errno.
    let thread_local = unsafe { libc::__errno_location() }.addr();
    let stack = ranges.as_ptr().addr();
    for (start, end) in ranges {
        let holds = |address| start <= address && address < end;
        if start < end && !holds(stack) && !holds(thread_local) {
            // SAFETY: the range was a private anonymous mapping when this process was made, so discarding
            // turns its pages to zeros and cannot fault. Nothing that runs from here on reads memory other
            // than code and constants (files' mappings), this stack and this thread's locals: no heap, no
            // object of the worker's. The agent has a copy of its own, made before.
            unsafe {
                libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_DONTNEED)
            };
        }
    }
}

impl Watch {
    /// Carries out orders and reaps, until the agent has ended or everything is to be killed.
    fn guard(&mut self) {
        loop {
            let ordered = self.await_event(true, -1);
            self.reap();
            if self.agent_ended {
                return;
            }
            let mut orders = [0; 16];
            match ordered.then(|| rustix::io::read(borrow(CONTROL), &mut orders)) {
                None | Some(Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN)) => {}
                Some(Ok(0) | Err(_)) => return,
                Some(Ok(_)) => {
                    // The agent has not been waited for: the number is its own, and so is its group's.
                    let _ = kill_process_group(self.agent, Signal::INT);
                }
            }
        }
    }

    /// Kills children, and what they leave behind, until the kernel says that there is none.
    fn kill_all(&mut self) {
        let census = Census::open();
        let own_group = getpgrp().as_raw_nonzero().get();
        let mut pause = 1;
        loop {
            if !self.agent_ended {
                let _ = kill_process_group(self.agent, Signal::KILL);
                let _ = kill_process(self.agent, Signal::KILL);
            }
            // Nothing is reaped while the census is taken: every child keeps its number and its group's, so
            // both are safe to signal. Only the run's processes can be in a group of the run's sessions.
            if let Some(census) = &census {
                census.children(self.me, |child| {
                    if child.group != own_group
                        && let Some(group) = Pid::from_raw(child.group)
                    {
                        let _ = kill_process_group(group, Signal::KILL);
                    }
                    if !child.dead {
                        let _ = kill_process(child.pid, Signal::KILL);
                    }
                });
            }
            match self.reap() {
                Reaped::NoneLeft => return,
                Reaped::Some => pause = 1,
                Reaped::Nothing => {
                    self.await_event(false, pause);
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits for a death, an order (if listened for) or the time in milliseconds; says if there is an order.
    fn await_event(&self, listen: bool, milliseconds: i32) -> bool {
        let ear = if listen { CONTROL } else { -1 };
        let [mut control, deaths] =
            [ear, self.deaths].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        let mut polled = [control, deaths];
        // Without a descriptor for deaths they are looked for ten times a second.
        let wait = if self.deaths < 0 && milliseconds < 0 { LONGEST_PAUSE } else { milliseconds };
        // SAFETY: the pointer and the length are those of an array that outlives the call.
        unsafe { libc::poll(polled.as_mut_ptr(), 2, wait) };
        [control, _] = polled;
        let mut notes = [0; 1024];
        if self.deaths >= 0 {
            let _ = rustix::io::read(borrow(self.deaths), &mut notes);
        }
        control.revents != 0
    }

    /// Waits for every child that is dead.
    fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::Nothing;
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    reaped = Reaped::Some;
                    if pid == self.agent && !self.agent_ended {
                        self.agent_ended = true;
                        report(Report::Ended(status.as_raw()));
                    } else if status.terminating_signal() == Some(Signal::KILL.as_raw()) {
                        self.killed = self.killed.saturating_add(1);
                    }
                }
                Ok(None) => return reaped,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Reaped::NoneLeft,
            }
        }
    }
}

/// What there was to wait for.
enum Reaped {
    NoneLeft,
    Some,
    Nothing,
}

/// Tells the worker, if it still listens. SIGPIPE is blocked here.
fn report(report: Report) {
    let _ = rustix::io::write(borrow(REPORTS), &report.encode());
}

fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: called with the supervisor's own descriptors only, which it never closes.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_pipe() {
        for report in
            [Report::Started(4_000_000), Report::Ended(-1), Report::Ended(9), Report::Gone(u32::MAX)]
        {
            assert_eq!(Report::decode(report.encode()), Some(report));
        }
        assert_eq!(Report::decode([0; RECORD]), None);
    }
}
