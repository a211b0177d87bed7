//! The state machine of a run.

use crate::words::words;

words! {
    /// The state of a run; other documents' words map onto it in `docs/drm.md`.
    pub enum RunStatus: "status" {
        /// Waits for a worker.
        Queued = "queued",
        /// A worker holds its lease.
        Running = "running",
        /// Waits for a person's answer.
        WaitingApproval = "waiting_approval",
        /// Put on hold by a person.
        Paused = "paused",
        /// Ended well.
        Succeeded = "succeeded",
        /// Ended badly.
        Failed = "failed",
        /// Ended on request.
        Cancelled = "cancelled",
    }
}

/// What happens to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunSignal {
    /// A worker took it.
    Claim,
    /// The worker gave it back, or lost its lease.
    HandBack,
    /// It asks a person.
    AskApproval,
    /// A person answered.
    Answer,
    /// A person put it on hold.
    Pause,
    /// A person let it go on.
    Resume,
    /// It ended well.
    Succeed,
    /// It ended badly.
    Fail,
    /// It ended on request.
    Cancel,
    /// A person puts it back into the line after it has failed.
    Requeue,
}

/// A signal that a run in this state cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {status} cannot take the signal {signal:?}")]
pub struct IllegalTransition {
    /// The state.
    pub status: RunStatus,
    /// The signal.
    pub signal: RunSignal,
}

impl RunSignal {
    /// Every signal.
    pub const ALL: &'static [Self] = &[
        Self::Claim,
        Self::HandBack,
        Self::AskApproval,
        Self::Answer,
        Self::Pause,
        Self::Resume,
        Self::Succeed,
        Self::Fail,
        Self::Cancel,
        Self::Requeue,
    ];

    /// The states in which a run can take this signal: what a store's `WHERE` must name.
    pub fn sources(self) -> impl Iterator<Item = RunStatus> {
        RunStatus::ALL.iter().copied().filter(move |status| status.after(self).is_ok())
    }
}

impl RunStatus {
    /// Whether the run has ended: nothing happens to it any more, unless a person requeues one that failed.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
            Self::Queued | Self::Running | Self::WaitingApproval | Self::Paused => false,
        }
    }

    /// Whether a worker has it.
    pub const fn is_worked(self) -> bool {
        match self {
            Self::Running | Self::WaitingApproval => true,
            Self::Queued | Self::Paused | Self::Succeeded | Self::Failed | Self::Cancelled => false,
        }
    }

    /// The state after a signal.
    pub const fn after(self, signal: RunSignal) -> Result<Self, IllegalTransition> {
        use RunSignal as S;
        let next = match self {
            Self::Queued => match signal {
                S::Claim => Self::Running,
                S::Pause => Self::Paused,
                S::Fail => Self::Failed,
                S::Cancel => Self::Cancelled,
                S::HandBack | S::AskApproval | S::Answer | S::Resume | S::Succeed | S::Requeue => {
                    return Err(IllegalTransition { status: self, signal });
                }
            },
            Self::Running => match signal {
                S::HandBack => Self::Queued,
                S::AskApproval => Self::WaitingApproval,
                S::Pause => Self::Paused,
                S::Succeed => Self::Succeeded,
                S::Fail => Self::Failed,
                S::Cancel => Self::Cancelled,
                S::Claim | S::Answer | S::Resume | S::Requeue => {
                    return Err(IllegalTransition { status: self, signal });
                }
            },
            Self::WaitingApproval => match signal {
                S::Answer => Self::Running,
                S::HandBack => Self::Queued,
                S::Pause => Self::Paused,
                S::Fail => Self::Failed,
                S::Cancel => Self::Cancelled,
                S::Claim | S::AskApproval | S::Resume | S::Succeed | S::Requeue => {
                    return Err(IllegalTransition { status: self, signal });
                }
            },
            Self::Paused => match signal {
                S::Resume => Self::Queued,
                S::Fail => Self::Failed,
                S::Cancel => Self::Cancelled,
                S::Claim | S::HandBack | S::AskApproval | S::Answer | S::Pause | S::Succeed | S::Requeue => {
                    return Err(IllegalTransition { status: self, signal });
                }
            },
            Self::Failed => match signal {
                S::Requeue => Self::Queued,
                S::Claim
                | S::HandBack
                | S::AskApproval
                | S::Answer
                | S::Pause
                | S::Resume
                | S::Succeed
                | S::Fail
                | S::Cancel => return Err(IllegalTransition { status: self, signal }),
            },
            Self::Succeeded | Self::Cancelled => {
                return Err(IllegalTransition { status: self, signal });
            }
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_happens_after_the_end_but_that_a_failed_run_is_requeued() {
        for status in RunStatus::ALL.iter().filter(|status| status.is_final()) {
            for signal in RunSignal::ALL {
                let requeued = *status == RunStatus::Failed && *signal == RunSignal::Requeue;
                assert_eq!(status.after(*signal).is_ok(), requeued, "{status} {signal:?}");
            }
        }
    }

    #[test]
    fn every_state_that_is_not_final_can_end_and_be_cancelled() {
        for status in RunStatus::ALL.iter().filter(|status| !status.is_final()) {
            assert_eq!(status.after(RunSignal::Cancel), Ok(RunStatus::Cancelled));
            assert_eq!(status.after(RunSignal::Fail), Ok(RunStatus::Failed));
        }
    }

    #[test]
    fn a_run_succeeds_only_while_it_runs() {
        assert_eq!(RunSignal::Succeed.sources().collect::<Vec<_>>(), [RunStatus::Running]);
        assert_eq!(RunSignal::Claim.sources().collect::<Vec<_>>(), [RunStatus::Queued]);
    }
}
