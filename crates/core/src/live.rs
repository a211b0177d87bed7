//! Wakes those who follow something, inside one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::Id;
use crate::ports::Live;
use crate::runs::{AgentEvent, AgentRun, RunEvent};

/// Wakes subscribers, and hands them what happens in a run.
///
/// - For adapters of [`EventLog`](crate::ports::EventLog) and [`Queue`](crate::ports::Queue): what is recorded can
///   always be read from the log by position, so what is lost or repeated here does no harm.
/// - Memory is bounded: a topic without followers holds nothing, and one with followers at most
///   [`RING`](LiveHub::RING) items and [`RING_BYTES`](LiveHub::RING_BYTES) of them; a follower that is further behind
///   misses the older ones.
#[derive(Debug, Default)]
pub struct LiveHub {
    topics: Mutex<HashMap<Topic, Followed>>,
}

/// What can be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The log of a run.
    Log(Id<AgentRun>),
    /// What is asked of a run.
    Signals(Id<AgentRun>),
    /// The line of runs that wait for workers.
    Queue,
}

#[derive(Debug, Default)]
struct Followed {
    followers: usize,
    news: u64,
    wakers: Vec<Waker>,
    ring: VecDeque<(Arc<Live>, usize)>,
    ring_bytes: usize,
    ring_start: u64,
}

/// One who follows a topic; dropped, it is forgotten.
#[derive(Debug)]
pub struct Follower<H: AsRef<LiveHub>> {
    hub: H,
    topic: Topic,
    seen_news: u64,
    seen_ring: u64,
}

impl LiveHub {
    /// How many items of a topic are kept for its followers.
    pub const RING: usize = 1_024;
    /// How many bytes of text they may have together.
    pub const RING_BYTES: usize = 4 << 20;

    fn topics(&self) -> MutexGuard<'_, HashMap<Topic, Followed>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what was recorded in a run.
    pub fn recorded(&self, run: Id<AgentRun>, events: &[RunEvent]) {
        self.announce(Topic::Log(run), || events.iter().cloned().map(Live::Recorded).collect());
    }

    /// Hands over what happened in a run and is not recorded.
    pub fn ephemeral(&self, run: Id<AgentRun>, events: Vec<AgentEvent>) {
        self.announce(Topic::Log(run), || events.into_iter().map(Live::Ephemeral).collect());
    }

    /// Says that something happened, without saying what.
    pub fn wake(&self, topic: Topic) {
        self.announce(topic, Vec::new);
    }

    /// Wakes every follower of every topic: some news may have been lost.
    pub fn wake_all(&self) {
        let topics: Vec<Topic> = self.topics().keys().copied().collect();
        topics.into_iter().for_each(|topic| self.wake(topic));
    }

    /// Whether anybody follows a topic.
    pub fn is_followed(&self, topic: Topic) -> bool {
        self.topics().contains_key(&topic)
    }

    fn announce(&self, topic: Topic, items: impl FnOnce() -> Vec<Live>) {
        let wakers = {
            let mut topics = self.topics();
            let Some(followed) = topics.get_mut(&topic) else { return };
            followed.news += 1;
            for item in items() {
                let bytes = size(&item);
                followed.ring.push_back((Arc::new(item), bytes));
                followed.ring_bytes += bytes;
            }
            while followed.ring.len() > Self::RING || followed.ring_bytes > Self::RING_BYTES {
                let Some((_, bytes)) = followed.ring.pop_front() else { break };
                followed.ring_bytes -= bytes;
                followed.ring_start += 1;
            }
            std::mem::take(&mut followed.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Begins to follow a topic; what happens from now on wakes the follower.
    pub fn follow<H: AsRef<Self>>(hub: H, topic: Topic) -> Follower<H> {
        let (seen_news, seen_ring) = {
            let mut topics = hub.as_ref().topics();
            let followed = topics.entry(topic).or_default();
            followed.followers += 1;
            (followed.news, followed.ring_start + followed.ring.len() as u64)
        };
        Follower { hub, topic, seen_news, seen_ring }
    }
}

/// How much text an item has, roughly.
fn size(item: &Live) -> usize {
    let event = match item {
        Live::Recorded(recorded) => &recorded.event,
        Live::Ephemeral(event) => event,
    };
    event.text_bytes()
}

impl<H: AsRef<LiveHub>> Follower<H> {
    /// Waits until something has happened since the last time, and gives what was handed over since then.
    ///
    /// - Empty if it was only a wake-up, or if some of it was lost because the follower was slow: then what is recorded
    ///   is in the log, and what is not has lost its place.
    /// - Safe to cancel.
    pub async fn changed(&mut self) -> Vec<Arc<Live>> {
        std::future::poll_fn(|context| {
            let mut topics = self.hub.as_ref().topics();
            let followed = topics.entry(self.topic).or_default();
            if followed.news == self.seen_news {
                if !followed.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    followed.wakers.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            self.seen_news = followed.news;
            let unseen = match self.seen_ring.checked_sub(followed.ring_start) {
                Some(skip) => {
                    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                    followed.ring.iter().skip(skip).map(|(item, _)| item.clone()).collect()
                }
                None => Vec::new(),
            };
            self.seen_ring = followed.ring_start + followed.ring.len() as u64;
            Poll::Ready(unseen)
        })
        .await
    }
}

impl<H: AsRef<LiveHub>> Drop for Follower<H> {
    fn drop(&mut self) {
        let mut topics = self.hub.as_ref().topics();
        if let Some(followed) = topics.get_mut(&self.topic) {
            followed.followers -= 1;
            if followed.followers == 0 {
                topics.remove(&self.topic);
            }
        }
    }
}
