use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use lime_core::ports::{Claimant, Queue, WorkerName};
use redis::{Pipeline, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::demand::Demand;
use crate::ear::{Heard, Listening};
use crate::kind::{Kind, Lane};
use crate::line::RedisLine;
use crate::link::refusal;
use crate::storage::{Fleet, RedisQueue};
use crate::words::{Answer, Ask};

/// How often the line is looked at for runs whose time has come, while a worker waits.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often the relay says that it is there, and looks for leases of dead workers.
const TURN_EVERY: Duration = Duration::from_secs(1);
/// How long the relay on duty is missed before another takes over.
const DUTY: Duration = Duration::from_secs(3);
/// How many turns there are between two rounds of tidying.
const TIDY_EVERY: u64 = 60;
/// When a worker that has read nothing is forgotten.
const GONE: Duration = Duration::from_secs(86_400);
/// How long a lane is looked after that nobody asks for.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// The most leases that are taken at once.
const MOST_AT_ONCE: usize = 1_024;

impl<S: Queue + ?Sized + 'static> RedisQueue<S> {
    /// Feeds the workers of the fleet: takes what they ask for out of the storage inside, and puts it into their lines.
    ///
    /// - Runs until it is dropped. Any number may run, in any processes: one is on duty, and another takes over
    ///   within 3 s after its end.
    /// - It only takes what a worker has asked for, so nobody's runs lie in Redis, holding a place under a limit,
    ///   while no worker has a place for them.
    /// - What it has taken and cannot pass on is queued again after
    ///   [`hand_over`](crate::RedisOptions::hand_over); until then it tries to, on duty or not.
    pub async fn relay(&self) {
        loop {
            self.relay_until_it_breaks().await;
            sleep(TURN_EVERY).await;
        }
    }

    async fn relay_until_it_breaks(&self) {
        let mut relay = Relay::new(self);
        relay.turn().await;
        let (heard, mut asks) = mpsc::unbounded_channel();
        relay.listen(heard);
        let mut relay = Some(relay);
        let mut bell = Bell { queue: &*self.inner, ring: None };
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = interval(TURN_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (mut asked, mut news, mut turns) = (Vec::new(), false, false);
            tokio::select! {
                // Whose turn it is comes before what is to be done.
                biased;
                _ = turn.tick() => turns = true,
                _ = look.tick() => news = true,
                () = bell.rung() => news = true,
                ask = asks.recv() => asked.extend(ask),
            }
            while let Ok(ask) = asks.try_recv() {
                asked.push(ask);
            }
            // Listens before it looks, so that nothing is queued unheard in between.
            news |= bell.listen().await;
            let Some(mut working) = relay.take() else { return };
            // In a task of its own, so that what was taken is passed on even if this future is dropped.
            let round = tokio::spawn(async move {
                if turns {
                    working.turn().await;
                }
                working.feed(asked, news).await;
                working
            });
            relay = round.await.inspect_err(|error| tracing::error!(%error, "the relay ended badly")).ok();
        }
    }
}

/// Rings when something was queued since it was listened to.
struct Bell<'a, S: ?Sized> {
    queue: &'a S,
    ring: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<S: Queue + ?Sized> Bell<'_, S> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let rung = self.ring.get_or_insert_with(|| self.queue.queued()).as_mut().poll(context);
        if rung.is_ready() {
            self.ring = None;
        }
        rung
    }

    async fn rung(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Listens from now on; tells whether it has rung since the last time.
    async fn listen(&mut self) -> bool {
        poll_fn(|context| {
            let rung = self.poll(context).is_ready();
            if rung {
                // Anew; what it says at once is no more than it said just now.
                let _ = self.poll(context);
            }
            Poll::Ready(rung)
        })
        .await
    }
}

struct Relay<S: ?Sized> {
    queue: RedisQueue<S>,
    name: WorkerName,
    /// Until when it is on duty, unless it says again that it is there.
    on_duty_until: Option<Instant>,
    turns: u64,
    lanes: HashMap<Lane, Demand>,
    listening: Option<Listening>,
}

impl<S: Queue + ?Sized + 'static> Relay<S> {
    fn new(queue: &RedisQueue<S>) -> Self {
        let name = format!("relay {:016x}", fastrand::u64(..));
        let name = WorkerName::parse(name).expect("22 characters are few enough, and none of them is NUL");
        Self {
            queue: queue.clone(),
            name,
            on_duty_until: None,
            turns: 0,
            lanes: HashMap::new(),
            listening: None,
        }
    }

    /// Hears questions, and notes when each came: it may have to wait until the queue is looked at.
    fn listen(&mut self, heard: mpsc::UnboundedSender<(Ask, Instant)>) {
        let listener = move |word: Heard<'_>| {
            if let Heard::Said(bytes) = word
                && let Some(ask) = Ask::parse(bytes)
            {
                // Nobody receives it only if the relay has just ended.
                let _ = heard.send((ask, Instant::now()));
            }
        };
        self.listening = Some(self.fleet().ear.listen(self.fleet().asks(), listener));
    }

    fn fleet(&self) -> &Arc<Fleet> {
        &self.queue.fleet
    }

    fn is_on_duty(&self) -> bool {
        self.on_duty_until.is_some_and(|until| Instant::now() < until)
    }

    /// A line, under a name that all relays share: it comes and goes with none of them.
    fn line(&self, kind: &Kind) -> RedisLine {
        self.fleet().line_as(kind, "relay")
    }

    fn lanes(&self) -> Vec<Lane> {
        self.lanes.keys().cloned().collect()
    }

    /// Gives the workers what they want, as far as there is something.
    async fn feed(&mut self, asks: Vec<(Ask, Instant)>, news: bool) {
        for (ask, heard) in asks {
            let lane = (ask.kind.clone(), ask.lease);
            self.lanes.entry(lane).or_default().add(ask, heard);
        }
        for lane in self.lanes() {
            // The duty may end while the queue is looked at.
            while self.is_on_duty() && self.feed_lane(&lane, news).await {}
        }
        if !self.is_on_duty() {
            self.stand_by().await;
        }
    }

    /// Leaves what workers want to the relay on duty, and passes on what it has taken itself.
    async fn stand_by(&mut self) {
        self.lanes.retain(|_, demand| !demand.spare.is_empty());
        for lane in self.lanes() {
            let Some(demand) = self.lanes.get_mut(&lane) else { continue };
            demand.forget_the_old(self.queue.fleet.options.answer_within);
            demand.open.clear();
            let woken = demand.share(demand.spare.len());
            self.pass_on(&lane, woken).await;
        }
    }

    /// Takes once for a lane; tells whether there may be more.
    async fn feed_lane(&mut self, lane: &Lane, news: bool) -> bool {
        let began = Instant::now();
        let answer_within = self.fleet().options.answer_within;
        let Some(demand) = self.lanes.get_mut(lane) else { return false };
        demand.look |= news;
        demand.forget_the_old(answer_within);
        let room = demand.room().min(MOST_AT_ONCE);
        let (kind, time) = lane;
        let claimant = Claimant { worker: self.name.clone(), providers: kind.providers() };
        let missing = room.saturating_sub(demand.spare.len());
        let taken = match missing {
            0 => Ok(Vec::new()),
            _ => self.queue.inner.take(&claimant, missing, *time).await,
        };
        let Some(demand) = self.lanes.get_mut(lane) else { return false };
        demand.look = false;
        // The look may have taken long.
        demand.forget_the_old(answer_within);
        let (found, answers) = match taken {
            Ok(leases) => {
                let found = leases.len();
                demand.spare.extend(leases.into_iter().map(|lease| (lease, began + *time)));
                (found, demand.share(demand.spare.len()))
            }
            Err(error) => {
                tracing::warn!(error = %error.report(), "the relay takes nothing");
                let failed = demand.open.drain(..);
                let failed =
                    failed.map(|(ask, _)| (ask.from, Answer::Failed(ask.answer.unwrap_or_default())));
                (0, failed.collect())
            }
        };
        let full = found == MOST_AT_ONCE;
        demand.look = full;
        self.pass_on(lane, answers).await && full
    }

    /// Puts the spare leases of a lane into its line, and tells the workers.
    async fn pass_on(&mut self, lane: &Lane, answers: Vec<(String, Answer)>) -> bool {
        let line = self.line(&lane.0);
        let Some(demand) = self.lanes.get_mut(lane) else { return false };
        let now = Instant::now();
        let good = demand.spare.iter().map(|(lease, until)| (*lease, until.saturating_duration_since(now)));
        let mut commands = Pipeline::with_capacity(demand.spare.len() + answers.len() + 2);
        line.add_push(&mut commands, good);
        for (worker, answer) in &answers {
            let channel = self.queue.fleet.to(worker);
            commands.cmd("PUBLISH").arg(channel).arg(answer.to_string());
        }
        if commands.is_empty() {
            return true;
        }
        let sent = self.queue.fleet.link.send(&commands).await;
        match sent.map(|answers| refusal(&answers)) {
            Ok(None) => {
                demand.spare.clear();
                true
            }
            Ok(Some(error)) | Err(error) => {
                tracing::warn!(%error, leases = demand.spare.len(), "the relay cannot pass leases on yet");
                false
            }
        }
    }

    /// Keeps or takes the duty, and looks after what dead workers have left.
    async fn turn(&mut self) {
        let was = self.on_duty_until.is_some();
        self.on_duty_until = self.keep_duty().await;
        let on_duty = self.on_duty_until.is_some();
        if on_duty != was {
            tracing::info!(on_duty, "the relay changes its duty");
        }
        if !on_duty {
            return;
        }
        self.turns += 1;
        let is_used = |demand: &Demand| demand.heard.is_some_and(|heard| heard.elapsed() < FORGET_AFTER);
        self.lanes.retain(|_, demand| is_used(demand) || !demand.spare.is_empty());
        let kinds: Vec<Kind> = self.lanes.keys().map(|(kind, _)| kind.clone()).collect();
        for kind in kinds {
            let line = self.line(&kind);
            let options = &self.fleet().options;
            let reclaimed = line.reclaim(options.reclaim_after).await;
            let tidied = match self.turns % TIDY_EVERY {
                0 => line.tidy(options.hand_over, GONE).await,
                _ => Ok(()),
            };
            match reclaimed.and_then(|reclaimed| tidied.map(|()| reclaimed)) {
                Ok(0) => {}
                Ok(reclaimed) => self.wake(&kind, reclaimed),
                Err(error) => tracing::debug!(error = %error.report(), "the line is not looked after"),
            }
        }
    }

    /// Wakes workers that wait, for leases that are in the line again.
    fn wake(&mut self, kind: &Kind, leases: usize) {
        tracing::info!(%kind, leases, "leases that a worker had read and not begun are in the line again");
        let lanes = self.lanes.iter_mut().filter(|((of, _), _)| of == kind);
        for (ask, _) in lanes.flat_map(|(_, demand)| demand.waiting.drain(..)) {
            self.queue.fleet.voice.say(self.queue.fleet.to(&ask.from), Answer::Wake.to_string().into_bytes());
        }
    }

    /// Until when this is the relay on duty, if it is.
    async fn keep_duty(&self) -> Option<Instant> {
        /// Extends the duty of its holder, or gives it to whoever asks first.
        const KEEP: &str = "if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
             if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
             return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
        let until = Instant::now() + DUTY;
        let mut commands = Pipeline::with_capacity(1);
        let keep = commands.cmd("EVAL").arg(KEEP).arg(1).arg(self.fleet().duty()).arg(self.name.as_str());
        keep.arg(u64::try_from(DUTY.as_millis()).unwrap_or(u64::MAX));
        let answers = self.fleet().link.send(&commands).await.ok()?;
        matches!(answers.first(), Some(Value::Int(1))).then_some(until)
    }
}

impl Fleet {
    /// The key that names the relay on duty.
    fn duty(&self) -> String {
        format!("{}:relay", self.options.prefix)
    }
}

impl<S: ?Sized> Drop for Relay<S> {
    /// Lets another relay take over at once.
    fn drop(&mut self) {
        const LEAVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end \
             return 0";
        let (Ok(runtime), true) = (tokio::runtime::Handle::try_current(), self.on_duty_until.is_some())
        else {
            return;
        };
        let fleet = self.queue.fleet.clone();
        let mut commands = Pipeline::with_capacity(1);
        commands.cmd("EVAL").arg(LEAVE).arg(1).arg(fleet.duty()).arg(self.name.as_str());
        runtime.spawn(async move {
            // If it does not arrive, the duty ends by itself.
            let _ = fleet.link.send(&commands).await;
        });
    }
}
