//! Many small writes as few great ones.

use std::collections::VecDeque;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lime_core::{Error, ErrorKind, Result, Retry};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// Brings the calls of many callers together: who waits while a batch is under way is in the next one.
///
/// - A call that finds nobody before it starts at once, with those who come in the same moment: no time is waited for,
///   and batches grow with the load.
/// - One batch is in flight: two small ones cost more than one of both. Only while it takes longer than [`PATIENCE`],
///   as one that waits for a lock does, others go beside it.
/// - First come, first taken. With more than one batch in flight, a later one may be done before an earlier one.
/// - Each caller gets its own result. A caller that goes away before its item was taken takes it along; after that
///   the item is done, and nobody else notices.
/// - Batches run in tasks on the runtime of a caller, each in a span of its own; at rest there is none.
/// - What `run` captures lives as long as the batcher: not what owns the batcher, or neither would ever go.
pub(crate) struct Batcher<I, O>(Arc<Line<I, O>>);

type Run<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O>>> + Send + Sync>;
type Caller<O> = oneshot::Sender<Result<O>>;

struct Line<I, O> {
    /// What spans and errors call it.
    operation: &'static str,
    most: usize,
    most_weight: usize,
    weight: fn(&I) -> usize,
    in_flight: usize,
    run: Run<I, O>,
    state: Mutex<State<I, O>>,
}

/// How long those in line wait for a batch before they go beside it; some times what a commit takes.
const PATIENCE: Duration = Duration::from_millis(10);
const MISCOUNTED: &str = "a batch gave a wrong number of results";
const PANICKED: &str = "a batch panicked; its message is in the process's error output";

struct State<I, O> {
    waiting: VecDeque<(I, Caller<O>)>,
    flying: usize,
    /// When the last batch began.
    began: Instant,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, O> fmt::Debug for Batcher<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batcher")
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Batches of at most `most` items, at most `in_flight` of them at once; `run` gives a result for each item, in
    /// the same order.
    pub(crate) fn new<F>(
        operation: &'static str,
        most: usize,
        in_flight: usize,
        run: impl Fn(Vec<I>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Result<O>>> + Send + 'static,
    {
        Self::weighed(operation, most, usize::MAX, |_| 0, in_flight, run)
    }

    /// The same, with items that weigh together at most `most_weight`; one that weighs more is a batch by itself.
    pub(crate) fn weighed<F>(
        operation: &'static str,
        most: usize,
        most_weight: usize,
        weight: fn(&I) -> usize,
        in_flight: usize,
        run: impl Fn(Vec<I>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Vec<Result<O>>> + Send + 'static,
    {
        Self(Arc::new(Line {
            operation,
            most: most.max(1),
            most_weight,
            weight,
            in_flight: in_flight.max(1),
            run: Box::new(move |items| run(items).boxed()),
            state: Mutex::new(State { waiting: VecDeque::new(), flying: 0, began: Instant::now() }),
        }))
    }

    /// Does one item, together with what others want done.
    ///
    /// - Fails as `Unavailable` if the runtime ends before the item is done, as `Unexpected` if its batch panicked.
    pub(crate) async fn call(&self, item: I) -> Result<O> {
        let (caller, mut answer) = oneshot::channel();
        self.0.lock().waiting.push_back((item, caller));
        let answered = if self.start() {
            answer.await
        } else {
            match timeout(PATIENCE, &mut answer).await {
                Ok(answered) => answered,
                Err(_) => {
                    self.start();
                    answer.await
                }
            }
        };
        let stopped = |_| {
            let message = "the runtime is shutting down; start it again";
            Err(Error::new(ErrorKind::Unavailable, self.0.operation, message))
        };
        answered.unwrap_or_else(stopped)
    }

    /// Starts a flight if one may go for those who wait.
    fn start(&self) -> bool {
        let starts = {
            let mut state = self.0.lock();
            let may =
                state.flying == 0 || (state.flying < self.0.in_flight && state.began.elapsed() >= PATIENCE);
            let starts = may && !state.waiting.is_empty();
            if starts {
                state.flying += 1;
                state.began = Instant::now();
            }
            starts
        };
        if starts {
            tokio::spawn(Flight { line: self.0.clone(), over: false }.fly());
        }
        starts
    }
}

impl<I, O> Line<I, O> {
    fn lock(&self) -> MutexGuard<'_, State<I, O>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch; with none, the flight is over.
    fn next(&self) -> Option<(Vec<I>, Vec<Caller<O>>)> {
        let mut state = self.lock();
        let (mut items, mut callers, mut weight) = (Vec::new(), Vec::new(), 0_usize);
        while let Some((item, caller)) = state.waiting.pop_front() {
            if caller.is_closed() {
                continue;
            }
            weight = weight.saturating_add((self.weight)(&item));
            if !items.is_empty() && weight > self.most_weight {
                state.waiting.push_front((item, caller));
                break;
            }
            items.push(item);
            callers.push(caller);
            if items.len() == self.most {
                break;
            }
        }
        if items.is_empty() {
            state.flying -= 1;
            return None;
        }
        state.began = Instant::now();
        Some((items, callers))
    }
}

/// A task that does batches until nobody waits.
struct Flight<I, O> {
    line: Arc<Line<I, O>>,
    /// Whether the line has counted it off.
    over: bool,
}

impl<I: Send + 'static, O: Send + 'static> Flight<I, O> {
    async fn fly(mut self) {
        loop {
            // Those who can run now do so first: they may have something for this batch, and those who got their
            // answers from the last one often do. Otherwise a batch of one would go, and all others wait for it.
            tokio::task::yield_now().await;
            let Some((items, callers)) = self.line.next() else { break };
            let count = callers.len();
            let span = tracing::debug_span!("storage", operation = self.line.operation, records = count);
            let work = async { (self.line.run)(items).await }.instrument(span);
            let done = AssertUnwindSafe(work).catch_unwind().await;
            let results = match done {
                Ok(results) if results.len() == count => results,
                Ok(_) => shared(fault(MISCOUNTED), count),
                Err(_) => shared(fault(PANICKED), count),
            };
            for (caller, result) in callers.into_iter().zip(results) {
                // One that has gone away does not want to know.
                drop(caller.send(result));
            }
        }
        self.over = true;
    }
}

impl<I, O> Drop for Flight<I, O> {
    /// If the runtime has ended in the middle of it: nobody must wait for ever.
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut state = self.line.lock();
        state.flying -= 1;
        let left = if state.flying == 0 { std::mem::take(&mut state.waiting) } else { VecDeque::new() };
        drop(state);
        drop(left);
    }
}

fn fault(message: &str) -> Error {
    Error::new(ErrorKind::Unexpected, "storage.batch", message)
}

/// Does items as one, or each by itself if that fails because of one of them.
///
/// - `run` does all that it is given, or nothing. Where the database does not answer, that is each one's answer:
///   it is not known what was done.
pub(crate) async fn together<'a, I: Sync, O>(
    items: &'a [I],
    run: impl Fn(&'a [I]) -> BoxFuture<'a, Result<Vec<O>>> + Send + Sync,
) -> Vec<Result<O>> {
    let error = match run(items).await {
        Ok(results) => return results.into_iter().map(Ok).collect(),
        Err(error) => error,
    };
    if items.len() == 1 || matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) {
        return shared(error, items.len());
    }
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let alone = run(std::slice::from_ref(item)).await;
        results.push(alone.and_then(|mut one| one.pop().ok_or_else(|| fault(MISCOUNTED))));
    }
    results
}

/// One error for several callers.
fn shared<O>(error: Error, count: usize) -> Vec<Result<O>> {
    if count == 1 {
        return vec![Err(error)];
    }
    let error = Arc::new(error);
    let copy = || {
        let retry = if error.is_retryable() { Retry::After(error.retry_after()) } else { Retry::Never };
        let copy = Error::new(error.kind(), error.operation(), error.message()).retry(retry);
        Err(copy.because(error.clone()))
    };
    std::iter::repeat_with(copy).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    /// Notes its batches, and works one for each permit.
    struct Gate {
        batcher: Batcher<u32, u32>,
        batches: Arc<Mutex<Vec<Vec<u32>>>>,
        permits: Arc<Semaphore>,
    }

    fn gate(most: usize, in_flight: usize, open: usize) -> Gate {
        let (batches, permits) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Semaphore::new(open)));
        let (noted, gate) = (batches.clone(), permits.clone());
        let run = move |items: Vec<u32>| {
            noted.lock().unwrap().push(items.clone());
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                assert!(!items.contains(&13), "thirteen");
                items.into_iter().map(|item| Ok(item * 10)).collect()
            }
        };
        Gate {
            batcher: Batcher::weighed("test", most, 100, |item| *item as usize, in_flight, run),
            batches,
            permits,
        }
    }

    impl Gate {
        fn batches(&self) -> Vec<Vec<u32>> {
            self.batches.lock().unwrap().clone()
        }

        /// Calls, and waits until all of them stand in line.
        async fn calls(&self, items: &[u32]) -> Vec<tokio::task::JoinHandle<Result<u32>>> {
            let mut calls = Vec::new();
            for &item in items {
                let batcher = self.batcher.clone();
                calls.push(tokio::spawn(async move { batcher.call(item).await }));
                // The test has one thread: who yields lets all others go as far as they can.
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            calls
        }
    }

    #[tokio::test]
    async fn who_waits_goes_together_and_in_order() {
        let gate = gate(3, 1, 0);
        let calls = gate.calls(&[1, 2, 3, 4, 5, 6]).await;
        assert_eq!(gate.batches(), [vec![1]]);
        gate.permits.add_permits(10);
        let results: Vec<_> = join_all(calls).await.into_iter().map(|call| call.unwrap().unwrap()).collect();
        assert_eq!(results, [10, 20, 30, 40, 50, 60]);
        assert_eq!(gate.batches(), [vec![1], vec![2, 3, 4], vec![5, 6]]);
        assert_eq!(gate.batcher.call(7).await.unwrap(), 70);
        tokio::task::yield_now().await;
        assert_eq!(gate.batcher.0.lock().flying, 0, "a task is left at rest");
    }

    #[tokio::test]
    async fn batches_are_bounded_by_weight_and_one_item_is_never_too_heavy() {
        let gate = gate(100, 1, 0);
        let calls = gate.calls(&[1, 60, 40, 1, 500, 2]).await;
        gate.permits.add_permits(100);
        join_all(calls).await;
        assert_eq!(gate.batches(), [vec![1], vec![60, 40], vec![1], vec![500], vec![2]]);
    }

    #[tokio::test(start_paused = true)]
    async fn others_go_beside_one_that_takes_long_and_so_many_at_most() {
        let gate = gate(100, 2, 0);
        let mut calls = gate.calls(&[1, 2, 3]).await;
        assert_eq!(gate.batches(), [[1]]);
        tokio::time::sleep(PATIENCE * 2).await;
        assert_eq!(gate.batches(), [vec![1], vec![2, 3]]);
        calls.extend(gate.calls(&[4, 5]).await);
        tokio::time::sleep(PATIENCE * 20).await;
        assert_eq!(gate.batches().len(), 2);
        gate.permits.add_permits(100);
        join_all(calls).await;
        assert_eq!(gate.batches(), [vec![1], vec![2, 3], vec![4, 5]]);
    }

    #[tokio::test]
    async fn who_goes_away_takes_what_was_not_begun_along_and_harms_nobody() {
        let gate = gate(100, 1, 0);
        let calls = gate.calls(&[1, 2, 3]).await;
        calls[0].abort();
        calls[1].abort();
        tokio::task::yield_now().await;
        gate.permits.add_permits(100);
        let mut calls = calls.into_iter();
        assert!(calls.next().unwrap().await.unwrap_err().is_cancelled());
        assert!(calls.next().unwrap().await.unwrap_err().is_cancelled());
        assert_eq!(calls.next().unwrap().await.unwrap().unwrap(), 30);
        assert_eq!(gate.batches(), [[1], [3]]);
    }

    #[tokio::test]
    async fn a_panic_is_the_answer_of_its_batch_only() {
        let gate = gate(1, 1, 100);
        let results = join_all([12, 13, 14].map(|item| gate.batcher.call(item))).await;
        assert_eq!(results[0].as_ref().unwrap(), &120);
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(results[2].as_ref().unwrap(), &140);
    }

    #[test]
    fn a_runtime_that_ends_leaves_nobody_waiting() {
        let gate = gate(1, 1, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut first = Box::pin(gate.batcher.call(1));
        let mut second = Box::pin(gate.batcher.call(2));
        runtime.block_on(std::future::poll_fn(|context| {
            assert!(first.poll_unpin(context).is_pending() && second.poll_unpin(context).is_pending());
            Poll::Ready(())
        }));
        drop(runtime);
        let other = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        other.block_on(async {
            for call in [first, second] {
                let answer =
                    tokio::time::timeout(Duration::from_secs(5), call).await.expect("it waits for ever");
                assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
            }
            gate.permits.add_permits(1);
            assert_eq!(gate.batcher.call(3).await.unwrap(), 30);
        });
    }

    #[tokio::test]
    async fn items_are_done_alone_when_one_of_them_is_at_fault() {
        fn work(items: &[u32]) -> BoxFuture<'_, Result<Vec<u32>>> {
            let kind = |bad: &u32| if *bad == 7 { ErrorKind::Invalid } else { ErrorKind::Unavailable };
            let bad = items.iter().find(|item| **item >= 7).map(kind);
            let done = bad.map_or(Ok(items.to_vec()), |kind| Err(Error::new(kind, "test", "no")));
            async move { done }.boxed()
        }
        let runs = AtomicUsize::new(0);
        let count = || runs.fetch_add(1, Ordering::Relaxed);
        let results = together(&[5, 7, 6], |items| (count(), work(items)).1).await;
        let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(Error::kind)).collect();
        assert_eq!(kinds, [Ok(&5), Err(ErrorKind::Invalid), Ok(&6)]);
        assert_eq!(runs.swap(0, Ordering::Relaxed), 4);
        let results = together(&[5, 8], |items| (count(), work(items)).1).await;
        assert!(results.iter().all(|result| result.as_ref().unwrap_err().is_retryable()));
        assert_eq!(runs.into_inner(), 1, "what may have been done was done again");
    }
}
