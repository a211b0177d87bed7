//! Where the workers of a process ask relays, and wait for what they say.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lime_core::ports::WorkerName;
use redis::{Pipeline, Value};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::ear::{Heard, Listening};
use crate::kind::Kind;
use crate::storage::Fleet;
use crate::words::{Answer, Ask};

/// The questions of this process that are open, and what its workers wait for.
pub(crate) struct Desk {
    state: Mutex<State>,
    next: AtomicU64,
    /// Counts what woke us; the first is that we are heard and hear.
    wakes: watch::Sender<u64>,
    /// Up to where somebody has looked after it woke.
    looked: AtomicU64,
}

#[derive(Default)]
struct State {
    open: HashMap<u64, oneshot::Sender<Option<usize>>>,
    /// Our own channel.
    listening: Option<Listening>,
    /// Relays that do not answer are not asked until then.
    unasked_until: Option<Instant>,
    backoff: Backoff,
    /// What workers would have taken besides: how many, and how long they shall be good for.
    wanted: HashMap<(Kind, WorkerName), (usize, Duration)>,
    /// How many wait for it.
    waiting: usize,
    /// Whether nobody answered the last question.
    alone: bool,
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
            looked: AtomicU64::default(),
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

    /// Notes that somebody looks into the line from now on.
    pub(crate) fn look(&self) {
        self.looked.fetch_max(*self.wakes.borrow(), Ordering::Relaxed);
    }

    /// Waits for a wake-up after which nobody has looked yet.
    async fn woken(&self) {
        let mut wakes = self.wakes.subscribe();
        // The sender is ours, so it does not go.
        let _ = wakes.wait_for(|wakes| *wakes > self.looked.load(Ordering::Relaxed)).await;
    }

    /// Notes how many leases more a worker would have taken.
    pub(crate) fn want(&self, kind: Kind, worker: WorkerName, more: usize, lease: Duration) {
        let mut state = self.state();
        if more == 0 {
            state.wanted.remove(&(kind, worker));
        } else {
            state.wanted.insert((kind, worker), (more, lease));
        }
    }

    pub(crate) fn be_alone(&self, alone: bool) {
        let was_alone = std::mem::replace(&mut self.state().alone, alone);
        if alone && !was_alone {
            tracing::warn!("no relay answers; runs are taken from the storage behind Redis");
        } else if was_alone && !alone {
            tracing::info!("a relay answers again");
        }
    }
}

/// Workers of this process that wait for a wake-up; dropped, they wait no longer.
pub(crate) struct Waiting<'a>(&'a Fleet);

impl Waiting<'_> {
    /// Waits for a wake-up after which nobody has looked yet.
    pub(crate) async fn woken(&self) {
        self.0.desk.woken().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let still = {
            let mut state = self.0.desk.state();
            state.waiting -= 1;
            state.waiting > 0
        };
        self.0.say_what_is_wanted(still);
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
        self.desk.look();
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

    /// Waits for something to be in the line; nothing if nobody puts anything there, or nobody wants it.
    pub(crate) fn wait(&self) -> Option<Waiting<'_>> {
        {
            let mut state = self.desk.state();
            if state.alone || state.wanted.is_empty() {
                return None;
            }
            state.waiting += 1;
        }
        self.say_what_is_wanted(true);
        Some(Waiting(self))
    }

    /// Tells the relays what the workers of this process wait for.
    fn say_what_is_wanted(&self, is_wanted: bool) {
        let mut kinds: HashMap<Kind, (usize, Duration)> = HashMap::new();
        for ((kind, _), (more, lease)) in &self.desk.state().wanted {
            let (room, longest) = kinds.entry(kind.clone()).or_default();
            *room += if is_wanted { *more } else { 0 };
            *longest = (*longest).max(*lease);
        }
        for (kind, (room, lease)) in kinds {
            let ask = Ask { from: self.name.clone(), answer: None, room, lease, kind };
            self.voice.say(self.asks(), ask.to_string().into_bytes());
        }
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
