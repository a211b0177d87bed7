//! Keeps the lease of an attempt, and hears what is asked of its run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lime_core::ErrorKind;
use lime_core::ports::Storage;
use lime_core::runs::Lease;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why an attempt has to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The worker shuts down: hand the run back.
    HandBack,
    /// Somebody cancelled the run.
    Cancel,
    /// The lease is lost: write nothing more.
    Lost,
}

/// The wish to stop; the strongest wins.
#[derive(Debug, Clone)]
pub(crate) struct StopWish(watch::Sender<Option<Stop>>);

impl StopWish {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn ask(&self, stop: Stop) {
        self.0.send_if_modified(|current| {
            let stronger = current.is_none_or(|current| current < stop);
            if stronger {
                *current = Some(stop);
            }
            stronger
        });
    }

    pub(crate) fn asked(&self) -> Option<Stop> {
        *self.0.borrow()
    }

    /// Waits until somebody wants to stop. Safe to cancel.
    pub(crate) async fn wait(&self) -> Stop {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(stop) = *receiver.borrow_and_update() {
                return stop;
            }
            // The sender is ours, so it outlives this wait.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Beats until it is dropped or the lease is lost.
pub(crate) async fn beat(
    storage: Arc<dyn Storage>,
    lease: Lease,
    duration: Duration,
    every: Duration,
    cancelled: CancellationToken,
    wish: StopWish,
) {
    let mut held_until = Instant::now() + duration;
    let mut told = false;
    loop {
        tokio::select! {
            () = cancelled.cancelled(), if !told => {
                told = true;
                wish.ask(Stop::Cancel);
                continue;
            }
            () = tokio::time::sleep(every) => {}
        }
        let begun = Instant::now();
        match storage.heartbeat(&lease, duration).await {
            Ok(signals) => {
                held_until = begun + duration;
                if signals.cancel {
                    wish.ask(Stop::Cancel);
                }
            }
            Err(error) if error.kind() == ErrorKind::StaleLease => {
                tracing::warn!(run = %lease.run, attempt = %lease.attempt, "the lease is lost");
                return wish.ask(Stop::Lost);
            }
            Err(error) => {
                tracing::warn!(run = %lease.run, %error, "no heartbeat");
                if Instant::now() >= held_until {
                    return wish.ask(Stop::Lost);
                }
            }
        }
    }
}
