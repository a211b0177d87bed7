//! Where the workers of a process ask relays, and wait for what they say.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lime_core::ports::WorkerName;
use redis::{Pipeline, Value};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::ear::{Heard, Listening};
use crate::kind::{Kind, Lane};
use crate::storage::Fleet;
use crate::words::{Answer, Ask, WAITS};

/// The questions of this process that are open, and what its workers wait for.
pub(crate) struct Desk {
    state: Mutex<State>,
    next: AtomicU64,
    /// Counts what woke us; the first is that we are heard and hear.
    wakes: watch::Sender<u64>,
    /// Whether relays feed the workers that wait: they answer, and were told what is wanted.
    fed: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, oneshot::Sender<Option<usize>>>,
    /// Our own channel.
    listening: Option<Listening>,
    /// Relays that do not answer are not asked until then.
    unasked_until: Option<Instant>,
    backoff: Backoff,
    /// What workers would take besides.
    wanted: HashMap<(Kind, WorkerName), Want>,
    /// How many wait for it.
    waiting: usize,
    /// What the relays know of it.
    said: HashMap<Lane, usize>,
    /// Whether nobody answered the last question.
    alone: bool,
}

/// How many leases a worker would take, how long they shall be good for, and since when it would.
struct Want {
    room: usize,
    lease: Duration,
    since: Instant,
}

impl State {
    /// Asks nobody for a while, since that only costs time.
    fn pause(&mut self, answer_within: Duration) {
        self.unasked_until = Some(Instant::now() + answer_within + self.backoff.next());
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            next: AtomicU64::default(),
            wakes: watch::Sender::new(0),
            fed: watch::Sender::new(false),
        }
    }
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, heard: &Heard<'_>) {
        let answer = match heard {
            Heard::Listening => Some(Answer::Wake),
            Heard::Said(bytes) => Answer::parse(bytes),
        };
        let (number, pushed) = match answer {
            Some(Answer::Pushed(number, pushed)) => (number, Some(pushed)),
            Some(Answer::Failed(number)) => (number, None),
            Some(Answer::Wake) => return self.wakes.send_modify(|wakes| *wakes += 1),
            None => return,
        };
        if let Some(asked) = self.state().open.remove(&number) {
            // Who asked may have gone.
            let _ = asked.send(pushed);
        }
    }

    fn note_whether_fed(&self, state: &State) {
        let fed = !state.alone && !state.wanted.is_empty();
        self.fed.send_if_modified(|was| std::mem::replace(was, fed) != fed);
    }

    pub(crate) fn be_alone(&self, alone: bool) {
        let was_alone = {
            let mut state = self.state();
            let was_alone = std::mem::replace(&mut state.alone, alone);
            self.note_whether_fed(&state);
            was_alone
        };
        if alone && !was_alone {
            tracing::warn!("no relay answers; runs are taken from the storage behind Redis");
        } else if was_alone && !alone {
            tracing::info!("a relay answers again");
        }
    }
}

/// A worker of this process that waits; dropped, it waits no longer.
///
/// - It hears whatever wakes this process from its beginning on, whoever else has looked since: the others may have had
///   no room for all there was, or be of another kind.
pub(crate) struct Waiting<'a> {
    fleet: &'a Fleet,
    wakes: watch::Receiver<u64>,
    fed: watch::Receiver<bool>,
}

impl Waiting<'_> {
    /// Waits until a relay wakes this process; while none feeds it, for `queued` as well.
    pub(crate) async fn woken<F: Future<Output = ()>>(&mut self, queued: impl Fn() -> F) {
        // The senders are the desk's, so they do not go.
        let Self { wakes, fed, .. } = self;
        let queued_unfed = async {
            loop {
                let _ = fed.wait_for(|fed| !fed).await;
                tokio::select! {
                    () = queued() => return,
                    () = async { let _ = fed.wait_for(|fed| *fed).await; } => {}
                }
            }
        };
        tokio::select! {
            _ = wakes.changed() => {}
            () = queued_unfed => {}
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.fleet.desk.state();
        state.waiting -= 1;
        if state.waiting == 0 {
            // Whoever looks next says anew what it wants.
            state.wanted.clear();
        }
        self.fleet.say_what_is_wanted(&mut state);
    }
}

/// An open question; dropped, nobody waits for its answer any more.
struct Open<'a>(&'a Desk, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.state().open.remove(&self.1);
    }
}

impl Fleet {
    /// Asks the relays for leases; gives how many were put into the line, or nothing if nobody answers.
    pub(crate) async fn ask(&self, kind: &Kind, room: usize, lease: Duration) -> Option<usize> {
        let pushed = self.ask_once(kind, room, lease).await;
        self.desk.be_alone(pushed.is_none());
        pushed
    }

    async fn ask_once(&self, kind: &Kind, room: usize, lease: Duration) -> Option<usize> {
        if self.desk.state().unasked_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        if !self.listens_to_relays().await {
            self.desk.state().pause(self.options.answer_within);
            return None;
        }
        let number = self.desk.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (asked, answer) = oneshot::channel();
        self.desk.state().open.insert(number, asked);
        let _open = Open(&self.desk, number);
        let ask = Ask { from: self.name.clone(), answer: Some(number), room, lease, kind: kind.clone() };
        let mut commands = Pipeline::with_capacity(1);
        commands.cmd("PUBLISH").arg(self.asks()).arg(ask.to_string());
        let answers = self.link.send(&commands).await.ok()?;
        if !matches!(answers.first(), Some(Value::Int(relays)) if *relays > 0) {
            return None;
        }
        let answer = timeout(self.options.answer_within, answer).await;
        let mut state = self.desk.state();
        match answer {
            Ok(answer) => {
                state.backoff.reset();
                state.unasked_until = None;
                answer.ok().flatten()
            }
            Err(_) => {
                state.pause(self.options.answer_within);
                None
            }
        }
    }

    /// Has a worker of this process wait.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        let (wakes, fed) = (self.desk.wakes.subscribe(), self.desk.fed.subscribe());
        let mut state = self.desk.state();
        state.waiting += 1;
        self.say_what_is_wanted(&mut state);
        Waiting { fleet: self, wakes, fed }
    }

    /// Notes how many leases a worker would take if they were there; none if it looks for itself, or has no room.
    pub(crate) fn want(&self, kind: &Kind, worker: &WorkerName, room: usize, lease: Duration) {
        let mut state = self.desk.state();
        let key = (kind.clone(), worker.clone());
        match room {
            0 => drop(state.wanted.remove(&key)),
            _ => drop(state.wanted.insert(key, Want { room, lease, since: Instant::now() })),
        }
        self.say_what_is_wanted(&mut state);
    }

    /// Tells the relays what the workers of this process wait for, as far as they do not know.
    ///
    /// - A worker says every 2 s that it waits. One that does not has stopped.
    fn say_what_is_wanted(&self, state: &mut State) {
        state.wanted.retain(|_, want| want.since.elapsed() < WAITS);
        let mut rooms: HashMap<Lane, usize> = state.said.keys().map(|lane| (lane.clone(), 0)).collect();
        for ((kind, _), want) in state.wanted.iter().filter(|_| state.waiting > 0) {
            let room = rooms.entry((kind.clone(), want.lease)).or_default();
            *room = room.saturating_add(want.room);
        }
        for (lane, room) in &rooms {
            if state.said.get(lane) != Some(room) {
                let (kind, lease) = lane.clone();
                let ask = Ask { from: self.name.clone(), answer: None, room: *room, lease, kind };
                self.voice.say(self.asks(), ask.to_string().into_bytes());
            }
        }
        rooms.retain(|_, room| *room > 0);
        state.said = rooms;
        self.desk.note_whether_fed(state);
    }

    /// Whether this process hears what relays say to it; listens for the first time if need be.
    async fn listens_to_relays(&self) -> bool {
        let own = self.to(&self.name);
        let desk = Arc::downgrade(&self.desk);
        let first = {
            let mut state = self.desk.state();
            let first = state.listening.is_none();
            if first {
                state.listening = Some(self.ear.listen(own.clone(), move |heard| {
                    if let Some(desk) = desk.upgrade() {
                        desk.hear(&heard);
                    }
                }));
            }
            first
        };
        if first || *self.desk.wakes.borrow() == 0 {
            let mut wakes = self.desk.wakes.subscribe();
            // Too late is as good as never: somebody else does the work meanwhile.
            let _ = timeout(self.options.answer_within, wakes.wait_for(|wakes| *wakes > 0)).await;
        }
        self.ear.hears(&own)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::{RedisOptions, RedisQueue};

    /// A process whose Redis is not there: nothing listens on port 1.
    fn process() -> RedisQueue<()> {
        RedisQueue::new(Arc::new(()), "redis://127.0.0.1:1", RedisOptions::default()).unwrap()
    }

    fn is_woken(waiting: &mut Waiting<'_>) -> bool {
        waiting.woken(pending).now_or_never().is_some()
    }

    fn want(fleet: &Fleet, worker: &str, room: usize) {
        let (kind, worker) = (Kind::parse("claude").unwrap(), WorkerName::parse(worker).unwrap());
        fleet.want(&kind, &worker, room, Duration::from_secs(30));
    }

    fn said(fleet: &Fleet) -> Option<usize> {
        fleet.desk.state().said.values().copied().next()
    }

    #[tokio::test]
    async fn a_wake_up_reaches_all_who_wait_whoever_looks_first() {
        let queue = process();
        let (mut one, mut two) = (queue.fleet.wait(), queue.fleet.wait());
        assert!(!is_woken(&mut one) && !is_woken(&mut two));
        queue.fleet.desk.hear(&Heard::Said(b"wake"));
        assert!(is_woken(&mut one));
        want(&queue.fleet, "one", 0);
        drop(one);
        assert!(is_woken(&mut two));
        assert!(!is_woken(&mut two), "it was woken once");
    }

    #[tokio::test]
    async fn what_is_heard_while_one_looks_is_not_lost() {
        let queue = process();
        let mut waiting = queue.fleet.wait();
        assert!(!is_woken(&mut waiting));
        want(&queue.fleet, "one", 0);
        queue.fleet.desk.hear(&Heard::Said(b"wake"));
        want(&queue.fleet, "one", 2);
        assert!(is_woken(&mut waiting));
    }

    #[tokio::test]
    async fn news_of_the_storage_wake_those_whom_no_relay_feeds() {
        let queue = process();
        let mut waiting = queue.fleet.wait();
        assert!(waiting.woken(|| ready(())).now_or_never().is_some(), "no relay knows what it wants");
        want(&queue.fleet, "one", 1);
        assert!(waiting.woken(|| ready(())).now_or_never().is_none());
        queue.fleet.desk.be_alone(true);
        assert!(waiting.woken(|| ready(())).now_or_never().is_some(), "no relay answers");
    }

    #[tokio::test]
    async fn relays_know_what_is_wanted_while_somebody_waits() {
        let queue = process();
        let fleet = &queue.fleet;
        want(fleet, "one", 2);
        assert_eq!(said(fleet), None);
        let one = fleet.wait();
        assert_eq!(said(fleet), Some(2));
        let two = fleet.wait();
        want(fleet, "two", usize::MAX);
        assert_eq!(said(fleet), Some(usize::MAX));
        want(fleet, "two", 0);
        assert_eq!(said(fleet), Some(2));
        drop(two);
        assert_eq!(said(fleet), Some(2));
        drop(one);
        assert_eq!(said(fleet), None);
        let _again = fleet.wait();
        assert_eq!(said(fleet), None, "it has not looked since");
    }
}
