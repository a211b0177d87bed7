use std::time::Duration;

use crate::runs::Failure;

/// When a run that failed is tried again.
///
/// - Only kinds of failure that [may pass](crate::runs::FailureKind::is_retryable): never bad credentials, a budget or
///   a fault of the software.
/// - The pause doubles from [`base`](RetryPolicy::base) to [`longest`](RetryPolicy::longest); a random half of it is
///   jitter, so that many that failed together do not come back together.
/// - Where the provider said when to come back, it is not before that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a run is tried again; 4 unless given, 0 for never.
    pub most: i32,
    /// The pause after the first failure; 10 s unless given.
    pub base: Duration,
    /// The longest pause; 10 min unless given.
    pub longest: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { most: 4, base: Duration::from_secs(10), longest: Duration::from_secs(600) }
    }
}

impl RetryPolicy {
    /// The pause before the next try of a run that has been tried again `tried` times; `None` to let it fail.
    ///
    /// - `chance` is a random number from 0 to 1, which places the pause between half of it and all of it.
    pub fn pause(&self, failure: &Failure, tried: i32, chance: f64) -> Option<Duration> {
        if !failure.kind.is_retryable() || tried >= self.most {
            return None;
        }
        let doublings = u32::try_from(tried).unwrap_or_default().min(30);
        let full = self.base.saturating_mul(1 << doublings).min(self.longest);
        Some(full.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::FailureKind;
    use proptest::prelude::*;

    fn failed(kind: FailureKind) -> Failure {
        Failure::new(kind, "no")
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        for kind in FailureKind::ALL {
            assert_eq!(policy.pause(&failed(*kind), 0, 0.5).is_some(), kind.is_retryable(), "{kind}");
        }
        assert!(!FailureKind::BadCredentials.is_retryable());
        assert!(!FailureKind::QuotaExceeded.is_retryable());
    }

    proptest! {
        #[test]
        fn pauses_grow_within_their_limits(tried in 0..60, chance in 0.0..=1.0) {
            let policy = RetryPolicy { most: 50, ..RetryPolicy::default() };
            let pause = policy.pause(&failed(FailureKind::Network), tried, chance);
            prop_assert_eq!(pause.is_some(), tried < 50);
            if let Some(pause) = pause {
                let longest = policy.pause(&failed(FailureKind::Network), tried, 1.0).unwrap();
                prop_assert!(pause <= longest && pause >= longest / 2 && longest <= policy.longest);
                prop_assert!(pause >= policy.base / 2);
            }
        }
    }
}
