//! Trying again, with pauses that grow and that many at once do not share.

use std::time::{Duration, Instant};

use lime_core::Result;

/// How long a call is tried again while the storage does not answer; the lease ends it earlier.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pauses that double up to the longest; a random half of each is jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first.min(longest), longest }
    }

    /// For calls of a storage that does not answer.
    pub(crate) fn of_storage() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.longest);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// How long is left for trying again.
#[derive(Debug)]
pub(crate) struct Patience {
    until: Instant,
    backoff: Backoff,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { until: Instant::now() + PATIENCE, backoff: Backoff::of_storage() }
    }

    /// Waits before the next try; `false` if there is none.
    pub(crate) async fn wait(&mut self) -> bool {
        let pause = self.backoff.pause();
        let more = Instant::now() + pause < self.until;
        if more {
            tokio::time::sleep(pause).await;
        }
        more
    }
}

/// Calls again, with growing pauses, while the storage does not answer; for calls that may happen twice.
pub(crate) async fn persist<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> Result<T> {
    let error = match call().await {
        Err(error) if error.is_retryable() => error,
        result => return result,
    };
    tracing::warn!(%error, "the storage does not answer; trying again");
    let mut last = Err(error);
    let mut patience = Patience::new();
    while patience.wait().await {
        last = call().await;
        if !last.as_ref().is_err_and(lime_core::Error::is_retryable) {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_longest_with_jitter() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_millis(350));
        let mut backoff = Backoff::new(first, longest);
        for full in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!(
                pause >= Duration::from_millis(full / 2) && pause <= Duration::from_millis(full),
                "{pause:?}"
            );
        }
    }
}
