//! What happens in runs, as the subscribers of a process see it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use lime_core::ports::{EventLog, EventStream, Live, Record};
use lime_core::runs::{AgentEvent, AgentRun, Lease, RunEvent, Seq};
use lime_core::{Follower, Id, LiveHub, Result, Scope, Topic};
use tokio::time::sleep;

use crate::ear::{Heard, Listening};
use crate::news::{self, Told};
use crate::storage::{Fleet, RedisQueue};

/// Hands the news of runs to those who follow them in this process.
#[derive(Default)]
pub(crate) struct Feed {
    hub: Hub,
    /// The runs that are followed.
    followed: Mutex<HashMap<Id<AgentRun>, Weak<Followed>>>,
}

#[derive(Clone, Default)]
struct Hub(Arc<LiveHub>);

impl AsRef<LiveHub> for Hub {
    fn as_ref(&self) -> &LiveHub {
        &self.0
    }
}

/// A run that is followed in this process.
struct Followed {
    run: Id<AgentRun>,
    feed: Weak<Feed>,
    channel: String,
    /// Rises when followers shall look at the log, whatever else they were handed.
    looks: AtomicU64,
    _listening: Listening,
}

impl Drop for Followed {
    fn drop(&mut self) {
        let Some(feed) = self.feed.upgrade() else { return };
        let mut followed = feed.followed();
        // Somebody may have followed it anew meanwhile.
        if followed.get(&self.run).is_some_and(|known| known.strong_count() == 0) {
            followed.remove(&self.run);
        }
    }
}

impl Feed {
    fn followed(&self) -> MutexGuard<'_, HashMap<Id<AgentRun>, Weak<Followed>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what happened, in its order.
    fn hand_over(&self, run: Id<AgentRun>, items: Vec<Live>) {
        let hub = &self.hub.0;
        if !hub.is_followed(Topic::Log(run)) {
            return;
        }
        for live in items {
            match live {
                Live::Recorded(event) => hub.recorded(run, &[event]),
                Live::Ephemeral(event) => hub.ephemeral(run, vec![event]),
            }
        }
    }

    /// Has followers of a run look at its log.
    fn look(&self, run: Id<AgentRun>) {
        let followed = self.followed().get(&run).and_then(Weak::upgrade);
        if let Some(followed) = followed {
            followed.looks.fetch_add(1, Ordering::AcqRel);
            self.hub.0.wake(Topic::Log(run));
        }
    }
}

impl Fleet {
    fn channel(&self, run: Id<AgentRun>) -> String {
        format!("{}:run:{run}", self.options.prefix)
    }

    /// Says that something was written to the log of a run, and that it must be read to know what.
    pub(crate) fn sign(&self, run: Id<AgentRun>) {
        self.feed.look(run);
        self.voice.sign(self.channel(run));
    }

    /// Says what happened in a run.
    fn tell(&self, run: Id<AgentRun>, items: Vec<Live>) {
        if items.is_empty() {
            return;
        }
        let message = if self.voice.is_hoarse() { None } else { news::write(&self.name, &items) };
        self.feed.hand_over(run, items);
        match message {
            Some(message) => self.voice.tell(self.channel(run), message),
            None => self.voice.sign(self.channel(run)),
        }
    }

    /// Follows a run in this process, and listens to what others say of it.
    fn follow(&self, run: Id<AgentRun>) -> Arc<Followed> {
        if let Some(known) = self.feed.followed().get(&run).and_then(Weak::upgrade) {
            return known;
        }
        let channel = self.channel(run);
        let (feed, name) = (Arc::downgrade(&self.feed), self.name.clone());
        let listener = move |heard: Heard<'_>| {
            let Some(feed) = feed.upgrade() else { return };
            let told = match heard {
                Heard::Said(bytes) => news::read(&name, run, bytes),
                // What was said before was missed.
                Heard::Listening => Told::Look,
            };
            match told {
                Told::Own => {}
                Told::Items(items) => feed.hand_over(run, items),
                Told::Look => feed.look(run),
            }
        };
        let listening = self.ear.listen(channel.clone(), listener);
        let (feed, looks) = (Arc::downgrade(&self.feed), AtomicU64::new(0));
        let new = Arc::new(Followed { run, feed, channel, looks, _listening: listening });
        let mut followed = self.feed.followed();
        let known = followed.entry(run).or_default();
        if let Some(known) = known.upgrade() {
            // Somebody else was quicker; ours must not go while the map is locked.
            drop(followed);
            return known;
        }
        *known = Arc::downgrade(&new);
        new
    }
}

/// Puts what was not recorded between what was, in the order in which it was said.
fn in_order(pieces: Vec<Option<AgentEvent>>, recorded: &[RunEvent]) -> Vec<Live> {
    let mut recorded = recorded.iter().cloned();
    let live = |piece: Option<AgentEvent>| match piece {
        Some(piece) => Some(Live::Ephemeral(piece)),
        None => recorded.next().map(Live::Recorded),
    };
    pieces.into_iter().filter_map(live).collect()
}

#[async_trait]
impl<S: EventLog + ?Sized + 'static> EventLog for RedisQueue<S> {
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        let piece = |event: &AgentEvent| event.is_ephemeral().then(|| event.clone().bounded());
        let pieces = record.events.iter().map(piece).collect();
        let recorded = self.inner.append(lease, record).await?;
        self.fleet.tell(lease.run, in_order(pieces, &recorded));
        Ok(recorded)
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        self.inner.read(scope, run, after, limit).await
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        let follower = LiveHub::follow(self.fleet.feed.hub.clone(), Topic::Log(run));
        let followed = self.fleet.follow(run);
        let subscriber = Subscriber {
            queue: self.clone(),
            scope: scope.clone(),
            run,
            after,
            follower,
            followed,
            looks: 0,
            behind: true,
            last_is_final: None,
            unseen: VecDeque::new(),
        };
        let next = async |subscriber: Option<Subscriber<S>>| {
            let mut subscriber = subscriber?;
            let (seen, ended) = match subscriber.next().await {
                Ok(seen) => seen,
                Err(error) => return Some((vec![Err(error)], None)),
            };
            let seen = seen.into_iter().map(Ok).collect();
            Some((seen, (!ended).then_some(subscriber)))
        };
        stream::unfold(Some(subscriber), next).flat_map(stream::iter).boxed()
    }
}

/// One who sees every event of a run once: from the news where they go on without a gap, else from the log.
struct Subscriber<S: ?Sized> {
    queue: RedisQueue<S>,
    scope: Scope,
    run: Id<AgentRun>,
    after: Seq,
    follower: Follower<Hub>,
    followed: Arc<Followed>,
    /// What the last look at the log was for.
    looks: u64,
    /// Whether the log may have more.
    behind: bool,
    /// Whether the last event that was seen closes the run, where that is known.
    last_is_final: Option<bool>,
    /// News that come after a gap.
    unseen: VecDeque<Arc<Live>>,
}

impl<S: EventLog + ?Sized> Subscriber<S> {
    /// How many events are read at once.
    const PAGE: usize = 256;
    /// How often it looks at the log while nothing can be heard.
    const LOOK_WHEN_DEAF: Duration = Duration::from_millis(500);

    /// What is to be seen next, and whether it is the end.
    async fn next(&mut self) -> Result<(Vec<Live>, bool)> {
        loop {
            let seen = if self.behind { self.read().await? } else { self.hear().await };
            let ended = !self.behind && self.last_is_final == Some(true);
            if ended || !seen.is_empty() {
                return Ok((seen, ended));
            }
        }
    }

    /// A page of the log.
    async fn read(&mut self) -> Result<Vec<Live>> {
        let looks = self.followed.looks.load(Ordering::Acquire);
        let log = &self.queue.inner;
        let page = log.read(&self.scope, self.run, self.after, Self::PAGE).await?;
        if let Some(last) = page.last() {
            self.after = last.seq;
            self.last_is_final = Some(last.event.is_final());
        } else if self.last_is_final.is_none() {
            // Whether the event where it begins was the end already.
            let last = log.read(&self.scope, self.run, self.after.saturating_sub(1).max(0), 1).await?;
            let is_final = |event: &RunEvent| event.seq == self.after && event.event.is_final();
            self.last_is_final = Some(last.first().is_some_and(is_final));
        }
        if page.len() < Self::PAGE {
            self.behind = false;
            self.looks = looks;
        }
        Ok(page.into_iter().map(Live::Recorded).collect())
    }

    /// Waits for news, and gives those that go on where we are.
    async fn hear(&mut self) -> Vec<Live> {
        // The log was read because of a gap before these; what it does not know now is not waited for.
        let gap_was_read = !self.unseen.is_empty();
        if !gap_was_read {
            let look_every = match self.queue.fleet.ear.hears(&self.followed.channel) {
                true => self.queue.fleet.options.look_every,
                false => Self::LOOK_WHEN_DEAF.min(self.queue.fleet.options.look_every),
            };
            tokio::select! {
                news = self.follower.changed() => {
                    // It was only woken, or was too slow for some of them.
                    self.behind = news.is_empty();
                    self.unseen.extend(news);
                }
                () = sleep(look_every) => self.behind = true,
            }
            self.behind |= self.followed.looks.load(Ordering::Acquire) != self.looks;
        }
        // Pieces before an event that was seen in the log belong to the past.
        let after = self.after;
        let is_new = |live: &Live| matches!(live, Live::Recorded(event) if event.seq > after);
        let is_known = |live: &Live| matches!(live, Live::Recorded(event) if event.seq <= after);
        let past = self.unseen.iter().rposition(|live| is_known(live)).map_or(0, |at| at + 1);
        // Two who wrote at once may have told it in another order.
        self.behind |= self.unseen.drain(..past).any(|live| is_new(&live));
        let mut seen = Vec::new();
        while let Some(live) = self.unseen.pop_front() {
            match &*live {
                Live::Recorded(event) if event.seq <= self.after => {}
                Live::Recorded(event) if event.seq == self.after + 1 => {
                    self.after = event.seq;
                    self.last_is_final = Some(event.event.is_final());
                    // Only the log knows whether the run was queued again since.
                    self.behind |= event.event.is_final();
                    seen.push(Live::clone(&live));
                }
                Live::Recorded(_) if gap_was_read => {}
                Live::Recorded(_) => {
                    self.unseen.push_front(live);
                    self.behind = true;
                    break;
                }
                Live::Ephemeral(_) => seen.push(Live::clone(&live)),
            }
        }
        seen
    }
}
