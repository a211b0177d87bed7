use std::time::Duration;

/// A pause that doubles with every failure, from 100 ms to 2 s, and is never quite the same.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    /// Whether nothing has failed since the last success.
    pub(crate) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Notes a success; tells whether something had failed.
    pub(crate) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }

    /// Notes a failure, and gives how long to wait before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = Self::FIRST.saturating_mul(1 << self.failures.min(10)).min(Self::LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_limit_and_begins_anew() {
        let mut backoff = Backoff::default();
        assert!(backoff.is_fresh() && !backoff.reset());
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] <= Duration::from_millis(125) && pauses[0] >= Duration::from_millis(75));
        assert!(pauses[3] > pauses[0]);
        assert!(pauses[19] >= Backoff::LONGEST.mul_f64(0.75) && pauses[19] <= Backoff::LONGEST.mul_f64(1.25));
        assert!(backoff.reset() && backoff.is_fresh());
        assert!(backoff.next() <= Duration::from_millis(125));
    }
}
