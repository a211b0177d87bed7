use std::time::Duration;

/// How a [`RedisQueue`](crate::RedisQueue) uses its Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// What every key and channel begins with, the same for a whole fleet; `lime` unless set.
    ///
    /// - Fleets that share a Redis need prefixes of their own.
    pub prefix: String,
    /// The longest that a lease may be on its way from the line to the worker that begins it; 30 s unless set.
    ///
    /// - So long a run can be held up, if Redis loses everything.
    pub hand_over: Duration,
    /// After how long a lease that a worker has read and not begun goes to another worker; 5 s unless set.
    pub reclaim_after: Duration,
    /// How long a worker waits for the answer of a relay before it takes from the line itself; 1 s unless set.
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
