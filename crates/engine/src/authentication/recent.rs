use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use lime_core::{Error, ErrorKind, Result, Retry};
use tokio::time::Instant;

type Found<V> = Result<Option<Arc<V>>, Arc<Error>>;

/// What was looked up a moment ago; those who want the same at once share one look-up.
///
/// - Nothing is given that is older than [`MAX_AGE`](Recent::MAX_AGE), counted from before it was asked for; that there is
///   nothing, and that it could not be found out, is remembered for as long.
/// - Two generations: what is new goes into the newer one, which becomes the older one when it is full or of that age.
///   So memory has its limit whatever is asked for, and nothing has to be searched for what may go.
/// - A look-up runs in a task of its own: who no longer waits for it leaves no connection behind.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    generations: Mutex<Generations<K, V>>,
    pending: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Generations<K, V> {
    newer: HashMap<K, Entry<V>>,
    older: HashMap<K, Entry<V>>,
    turned: Instant,
}

#[derive(Debug)]
struct Entry<V> {
    since: Instant,
    look: Shared<BoxFuture<'static, Found<V>>>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { since: self.since, look: self.look.clone() }
    }
}

/// Counts a look-up for as long as it lasts.
struct Pending(Arc<AtomicUsize>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Eq + Hash + Clone, V: Send + Sync + 'static> Recent<K, V> {
    /// How old what is given may be.
    pub(super) const MAX_AGE: Duration = Duration::from_millis(500);
    /// How many are remembered in each generation.
    pub(super) const MOST: usize = 10_000;
    /// How many look-ups may be under way.
    const MOST_PENDING: usize = 1_000;

    pub(super) fn new() -> Self {
        let generations =
            Generations { newer: HashMap::new(), older: HashMap::new(), turned: Instant::now() };
        Self { generations: Mutex::new(generations), pending: Arc::default() }
    }

    /// What there is, looked up unless it was a moment ago, and when that look-up began.
    ///
    /// - Fails as the look-up did, and with `Unavailable` while too many are under way.
    pub(super) async fn get<F>(
        &self,
        operation: &'static str,
        key: &K,
        look: impl FnOnce() -> F,
    ) -> Result<(Option<Arc<V>>, Instant)>
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let Entry { since, look } = self.entry(operation, key, look)?;
        match look.await {
            Ok(found) => Ok((found, since)),
            Err(error) => Err(copy(error)),
        }
    }

    fn entry<F>(&self, operation: &'static str, key: &K, look: impl FnOnce() -> F) -> Result<Entry<V>>
    where
        F: Future<Output = Result<Option<V>>> + Send + 'static,
    {
        let now = Instant::now();
        let mut generations = self.lock();
        let known = generations.newer.get(key).or_else(|| generations.older.get(key));
        if let Some(known) = known.filter(|known| now - known.since < Self::MAX_AGE) {
            return Ok(known.clone());
        }
        if self.pending.fetch_add(1, Ordering::Relaxed) >= Self::MOST_PENDING {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            let message = "too many keys and sessions are being looked up at once; try again";
            return Err(Error::new(ErrorKind::Unavailable, operation, message));
        }
        let pending = Pending(self.pending.clone());
        let look = look();
        let task = tokio::spawn(async move {
            let _pending = pending;
            look.await
        });
        let look = task.map(move |ended| match ended {
            Ok(found) => found.map(|found| found.map(Arc::new)).map_err(Arc::new),
            Err(error) => {
                let message = "the look-up broke off; try again";
                Err(Arc::new(Error::new(ErrorKind::Unavailable, operation, message).because(error)))
            }
        });
        let entry = Entry { since: now, look: look.boxed().shared() };
        generations.turn(now, Self::MAX_AGE, Self::MOST);
        generations.newer.insert(key.clone(), entry.clone());
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, Generations<K, V>> {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.lock();
        generations.newer.len() + generations.older.len()
    }
}

impl<K, V> Generations<K, V> {
    /// Makes room in the newer generation.
    fn turn(&mut self, now: Instant, max_age: Duration, most: usize) {
        if now - self.turned >= max_age || self.newer.len() >= most {
            self.older = std::mem::take(&mut self.newer);
            self.turned = now;
        }
    }
}

/// An error for one of several who share it.
fn copy(error: Arc<Error>) -> Error {
    let retry = if error.is_retryable() { Retry::After(error.retry_after()) } else { Retry::Never };
    Error::new(error.kind(), error.operation(), error.message()).retry(retry).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: &str = "test";
    const SLOW: u32 = 7;

    async fn look(recent: &Recent<u32, u32>, key: u32, looks: &Arc<AtomicUsize>) -> Result<Option<u32>> {
        let looks = looks.clone();
        let found = recent.get(OPERATION, &key, move || async move {
            looks.fetch_add(1, Ordering::Relaxed);
            match key {
                0 => Err(Error::new(ErrorKind::Timeout, OPERATION, "it takes too long")),
                1 => Ok(None),
                SLOW => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    Ok(Some(key))
                }
                _ => Ok(Some(key)),
            }
        });
        found.await.map(|(found, _)| found.as_deref().copied())
    }

    #[tokio::test]
    async fn many_at_once_share_one_look_up_and_its_failure() {
        let (recent, looks) = (Recent::new(), Arc::default());
        for key in 0..3 {
            let all: Vec<_> = (0..100).map(|_| look(&recent, key, &looks)).collect();
            for found in futures_util::future::join_all(all).await {
                match key {
                    0 => assert!(found.is_err_and(|error| error.is_retryable())),
                    1 => assert_eq!(found.unwrap(), None),
                    _ => assert_eq!(found.unwrap(), Some(key)),
                }
            }
        }
        assert_eq!(looks.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn nothing_is_given_that_is_too_old() {
        let (recent, looks) = (Recent::new(), Arc::default());
        for (after, expected) in [(0, 1), (0, 1), (510, 2), (0, 2)] {
            tokio::time::sleep(Duration::from_millis(after)).await;
            look(&recent, 7, &looks).await.unwrap();
            assert_eq!(looks.load(Ordering::Relaxed), expected, "after {after} ms");
        }
    }

    #[tokio::test]
    async fn who_gives_up_leaves_the_look_up_to_the_others() {
        let (recent, looks) = (Recent::new(), Arc::default());
        let given_up = tokio::time::timeout(Duration::from_millis(1), look(&recent, SLOW, &looks)).await;
        assert!(given_up.is_err());
        assert_eq!(look(&recent, SLOW, &looks).await.unwrap(), Some(SLOW));
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        assert_eq!(recent.pending.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_flood_has_its_limits() {
        let (recent, looks) = (Recent::new(), Arc::default());
        for from in 0..60_u32 {
            let all: Vec<_> = (0..500).map(|at| look(&recent, 10 + from * 500 + at, &looks)).collect();
            futures_util::future::join_all(all).await;
        }
        assert_eq!(looks.load(Ordering::Relaxed), 30_000);
        assert!(recent.len() <= 2 * Recent::<u32, u32>::MOST, "{}", recent.len());
        let all: Vec<_> = (0..1_100).map(|at| look(&recent, 100_000 + at, &looks)).collect();
        let refused = futures_util::future::join_all(all).await.into_iter().filter_map(Result::err);
        let kinds: Vec<_> = refused.map(|error| error.kind()).collect();
        assert_eq!(kinds, [ErrorKind::Unavailable; 100]);
        assert_eq!(look(&recent, 7, &looks).await.unwrap(), Some(7), "afterwards there is room again");
    }
}
