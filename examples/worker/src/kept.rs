use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// An answer that is good for a while.
///
/// - Of several who ask at once, one does, and the others wait for its answer.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    good_for: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Copy> Kept<T> {
    pub(crate) fn new(good_for: Duration) -> Self {
        Self { good_for, last: Mutex::default() }
    }

    /// The last answer while it is good, otherwise a new one. Safe to cancel: the next one asks.
    pub(crate) async fn or_ask(&self, ask: impl Future<Output = T>) -> T {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = *last
            && at.elapsed() < self.good_for
        {
            return answer;
        }
        let answer = ask.await;
        *last = Some((Instant::now(), answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// What many who ask at once are told, where each question has another answer.
    async fn told(good_for: Duration) -> Vec<u32> {
        let (kept, asked) = (Kept::new(good_for), AtomicU32::new(0));
        let ask = || async {
            tokio::task::yield_now().await;
            asked.fetch_add(1, Ordering::Relaxed)
        };
        join_all((0..5).map(|_| kept.or_ask(ask()))).await
    }

    #[tokio::test]
    async fn one_asks_for_all_while_the_answer_is_good() {
        assert_eq!(told(Duration::from_secs(3_600)).await, [0; 5]);
        assert_eq!(told(Duration::ZERO).await, [0, 1, 2, 3, 4]);
    }
}
