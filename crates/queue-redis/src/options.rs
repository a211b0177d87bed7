use std::time::Duration;

use lime_core::{Error, Result};

/// How a [`RedisQueue`](crate::RedisQueue) uses its Redis.
///
/// - Each time is at least a millisecond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// What every key and channel begins with, the same for a whole fleet; `lime` unless set.
    ///
    /// - Fleets that share a Redis need prefixes of their own.
    pub prefix: String,
    /// The longest that a lease may be on its way from the line to the worker that begins it; 30 s unless set.
    ///
    /// - So long a run can be held up, if Redis loses everything, or a relay is killed before it could pass it on.
    pub hand_over: Duration,
    /// After how long a lease that a worker has read and not begun goes to another worker; 5 s unless set.
    pub reclaim_after: Duration,
    /// How long a worker waits for the answer of a relay before it takes from the storage itself; 1 s unless set.
    ///
    /// - The same for a whole fleet: a relay answers no question that is older.
    pub answer_within: Duration,
    /// How often a subscriber looks at the log when it hears nothing; 5 s unless set.
    ///
    /// - Only news that nobody told has to wait so long, such as that of a worker that was lost.
    pub look_every: Duration,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            prefix: "lime".into(),
            hand_over: Duration::from_secs(30),
            reclaim_after: Duration::from_secs(5),
            answer_within: Duration::from_secs(1),
            look_every: Duration::from_secs(5),
        }
    }
}

impl RedisOptions {
    /// Refuses times that are none on a clock of milliseconds.
    pub(crate) fn check(&self, operation: &'static str) -> Result<()> {
        let times = [
            ("hand_over", self.hand_over),
            ("reclaim_after", self.reclaim_after),
            ("answer_within", self.answer_within),
            ("look_every", self.look_every),
        ];
        match times.into_iter().find(|(_, time)| time.as_millis() == 0) {
            Some((name, time)) => {
                let message = format!("{name} must be at least 1 ms, and is {time:?}");
                Err(Error::invalid(operation, message))
            }
            None => Ok(()),
        }
    }
}
