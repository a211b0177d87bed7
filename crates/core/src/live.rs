//! Wakes those who follow a run, inside one process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::Id;
use crate::runs::{AgentEvent, AgentRun};

/// Wakes the subscribers of a run, and hands them the events that are not recorded.
///
/// - For adapters of [`EventLog`](crate::ports::EventLog): recorded events are read from the log by position, so a
///   wake-up that is lost or repeated does no harm; this only says when to look.
/// - Memory is bounded: a run without followers holds nothing, and each keeps at most
///   [`RING`](LiveHub::RING) ephemeral events; a follower that is further behind misses the older ones.
#[derive(Debug, Default)]
pub struct LiveHub {
    topics: Mutex<HashMap<Id<AgentRun>, Topic>>,
}

#[derive(Debug, Default)]
struct Topic {
    followers: usize,
    news: u64,
    wakers: Vec<Waker>,
    ring: VecDeque<AgentEvent>,
    ring_start: u64,
}

/// One who follows a run; dropped, it is forgotten.
#[derive(Debug)]
pub struct Follower<H: AsRef<LiveHub>> {
    hub: H,
    run: Id<AgentRun>,
    seen_news: u64,
    seen_ring: u64,
}

impl LiveHub {
    /// How many ephemeral events of a run are kept for its followers.
    pub const RING: usize = 256;

    fn topics(&self) -> MutexGuard<'_, HashMap<Id<AgentRun>, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a run's log has grown.
    pub fn recorded(&self, run: Id<AgentRun>) {
        self.announce(run, []);
    }

    /// Says that something happened that is not recorded.
    pub fn ephemeral(&self, run: Id<AgentRun>, events: impl IntoIterator<Item = AgentEvent>) {
        self.announce(run, events);
    }

    fn announce(&self, run: Id<AgentRun>, events: impl IntoIterator<Item = AgentEvent>) {
        let wakers = {
            let mut topics = self.topics();
            let Some(topic) = topics.get_mut(&run) else { return };
            topic.news += 1;
            for event in events {
                if topic.ring.len() == Self::RING {
                    topic.ring.pop_front();
                    topic.ring_start += 1;
                }
                topic.ring.push_back(event);
            }
            std::mem::take(&mut topic.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Begins to follow a run; what happens from now on wakes the follower.
    pub fn follow<H: AsRef<Self>>(hub: H, run: Id<AgentRun>) -> Follower<H> {
        let (seen_news, seen_ring) = {
            let mut topics = hub.as_ref().topics();
            let topic = topics.entry(run).or_default();
            topic.followers += 1;
            (topic.news, topic.ring_start + topic.ring.len() as u64)
        };
        Follower { hub, run, seen_news, seen_ring }
    }
}

impl<H: AsRef<LiveHub>> Follower<H> {
    /// Waits until something has happened since the last time, and gives the ephemeral events since then.
    ///
    /// - Safe to cancel.
    pub async fn changed(&mut self) -> Vec<AgentEvent> {
        std::future::poll_fn(|context| {
            let mut topics = self.hub.as_ref().topics();
            let topic = topics.entry(self.run).or_default();
            if topic.news == self.seen_news {
                if !topic.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                    topic.wakers.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            self.seen_news = topic.news;
            let skip = self.seen_ring.saturating_sub(topic.ring_start);
            let unseen =
                topic.ring.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).cloned().collect();
            self.seen_ring = topic.ring_start + topic.ring.len() as u64;
            Poll::Ready(unseen)
        })
        .await
    }
}

impl<H: AsRef<LiveHub>> Drop for Follower<H> {
    fn drop(&mut self) {
        let mut topics = self.hub.as_ref().topics();
        if let Some(topic) = topics.get_mut(&self.run) {
            topic.followers -= 1;
            if topic.followers == 0 {
                topics.remove(&self.run);
            }
        }
    }
}
