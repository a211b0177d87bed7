use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lime_core::Id;
use lime_core::Result;
use lime_core::runs::{Lease, RunAttempt};
use redis::{Pipeline, RedisError, Value};
use tokio::time::Instant;

use crate::entry::{self, Entries, Entry};
use crate::link::{self, Link};

/// A line of leases in Redis: a stream, and a consumer group in which each lease goes to one worker.
///
/// - It only carries leases. Whether one still holds is for the [`Queue`](lime_core::ports::Queue) that gave it to
///   say, when its attempt begins; so what Redis loses or repeats does no harm.
/// - Cheap in batches: each call is one round trip, whatever the number of leases.
/// - Fails with [`Unavailable`](lime_core::ErrorKind::Unavailable) when Redis does not answer.
///
/// ```no_run
/// use std::time::Duration;
/// use lime_core::{Id, runs::Lease};
/// use lime_queue_redis::RedisLine;
///
/// # async fn example(lease: Lease) -> lime_core::Result<()> {
/// let line = RedisLine::open("redis://127.0.0.1:6379", "lime:line:claude", "host-1")?;
/// line.push(&[lease], Duration::from_secs(30)).await?;
/// let taken = line.take(32).await?;
/// line.ack(&taken).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RedisLine {
    link: Arc<Link>,
    key: String,
    worker: String,
    held: Mutex<Held>,
    /// How many entries were done with since the stream was last cut.
    uncut: AtomicUsize,
}

/// The entries that this worker has read and not done with, by the attempt of their lease.
#[derive(Debug, Default)]
struct Held {
    entries: HashMap<Id<RunAttempt>, (Vec<u8>, Instant)>,
    /// From how many on those are forgotten whose time is over.
    sweep_at: usize,
}

impl Held {
    const FEW: usize = 1_024;

    fn add(&mut self, entry: &Entry, left: Duration, now: Instant) {
        if self.entries.len() >= self.sweep_at.max(Self::FEW) {
            self.entries.retain(|_, (_, until)| *until > now);
            self.sweep_at = self.entries.len() * 2;
        }
        self.entries.insert(entry.lease.attempt, (entry.id.clone(), now + left));
    }
}

impl RedisLine {
    /// The group of all workers.
    const GROUP: &str = "workers";
    /// How many entries are looked through at once for those of dead workers.
    const RECLAIM_AT_ONCE: usize = 256;
    /// How long an unused line stays, beyond the time of its last lease.
    const LINGER: Duration = Duration::from_secs(600);
    /// After how many entries that are done with the stream is cut.
    const CUT_EVERY: usize = 1_024;
    /// Cuts off the front of the stream, up to the first entry that somebody is not done with.
    ///
    /// Deleting each entry for itself costs Redis as much as all the rest.
    const CUT: &str = "local first = redis.call('XPENDING', KEYS[1], ARGV[1])[2] \
         if not first then for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do \
         for at = 1, #group, 2 do if group[at] == 'last-delivered-id' then first = group[at + 1] end end end end \
         return redis.call('XTRIM', KEYS[1], 'MINID', '~', first)";

    /// The line with this key, for a worker of this name; connects when it is first used.
    ///
    /// - Workers have names of their own, by which Redis knows who has read what.
    /// - Fails with [`Invalid`](lime_core::ErrorKind::Invalid) if the URL is none of a Redis.
    pub fn open(url: &str, key: impl Into<String>, worker: impl Into<String>) -> Result<Self> {
        Ok(Self::on(Link::new(link::client(url, "line.open")?), key.into(), worker.into()))
    }

    pub(crate) fn on(link: Arc<Link>, key: String, worker: String) -> Self {
        Self { link, key, worker, held: Mutex::default(), uncut: AtomicUsize::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts leases at the end of the line, each good for `time` from now.
    pub async fn push(&self, leases: &[Lease], time: Duration) -> Result<()> {
        let mut commands = Pipeline::new();
        self.add_push(&mut commands, leases.iter().map(|lease| (*lease, time)));
        self.send("line.push", &commands).await.map(drop)
    }

    /// Takes up to `max` leases out of the line, the first first.
    ///
    /// - No lease goes to two workers, until one is [reclaimed](RedisLine::reclaim).
    /// - Those whose time is over are left out, and forgotten.
    /// - Gives back an empty list when there is nothing; never blocks.
    pub async fn take(&self, max: usize) -> Result<Vec<Lease>> {
        const OPERATION: &str = "line.take";
        if max == 0 {
            return Ok(Vec::new());
        }
        let read = || {
            let mut commands = Pipeline::with_capacity(2);
            let read = commands.cmd("XREADGROUP").arg("GROUP").arg(Self::GROUP).arg(&self.worker);
            read.arg("COUNT").arg(max).arg("STREAMS").arg(&self.key).arg(">").cmd("TIME");
            commands
        };
        let mut answers = self.link.send(&read()).await.map_err(|e| link::unavailable(OPERATION, e))?;
        if link::refusal(&answers).is_some_and(|error| error.code() == Some("NOGROUP")) {
            self.make_group().await.map_err(|e| link::unavailable(OPERATION, e))?;
            answers = self.link.send(&read()).await.map_err(|e| link::unavailable(OPERATION, e))?;
        }
        let (entries, now_ms) = read_answers(answers).map_err(|e| link::unavailable(OPERATION, e))?;
        let Entries { good, bad: mut over } = Entries::of_one_stream(entries);
        let now = Instant::now();
        let mut leases = Vec::with_capacity(good.len());
        {
            let mut held = self.held();
            for entry in good {
                match entry.left(now_ms) {
                    Some(left) => {
                        held.add(&entry, left, now);
                        leases.push(entry.lease);
                    }
                    None => over.push(entry.id),
                }
            }
        }
        if !over.is_empty() {
            let mut commands = Pipeline::new();
            self.add_ack(&mut commands, &over);
            if let Err(error) = self.send(OPERATION, &commands).await {
                tracing::debug!(%error, "leases that are over stay in the line until they are reclaimed");
            }
        }
        Ok(leases)
    }

    /// Is done with leases that [`take`](RedisLine::take) gave, begun or not; gives how many of them were in the line.
    pub async fn ack(&self, leases: &[Lease]) -> Result<usize> {
        let done: Vec<_> = {
            let mut held = self.held();
            let entries = leases.iter().filter_map(|lease| held.entries.remove(&lease.attempt));
            entries.map(|(id, _)| id).collect()
        };
        if done.is_empty() {
            return Ok(0);
        }
        let mut commands = Pipeline::with_capacity(2);
        self.add_ack(&mut commands, &done);
        if self.uncut.fetch_add(done.len(), Ordering::Relaxed) >= Self::CUT_EVERY {
            self.uncut.store(0, Ordering::Relaxed);
            commands.cmd("EVAL").arg(Self::CUT).arg(1).arg(&self.key).arg(Self::GROUP);
        }
        let answers = self.send("line.ack", &commands).await?;
        Ok(match answers.first() {
            Some(Value::Int(count)) => usize::try_from(*count).unwrap_or_default(),
            _ => 0,
        })
    }

    /// Whether any of these leases was taken here, and is not done with.
    pub(crate) fn holds_any(&self, leases: &[Lease]) -> bool {
        let held = self.held();
        leases.iter().any(|lease| held.entries.contains_key(&lease.attempt))
    }

    /// Puts leases back into the line that a worker has read at least `idle` ago, and was not done with.
    ///
    /// - For those of workers that died. One that is only slow may still begin its attempt, and then the other finds
    ///   the lease begun.
    /// - Gives how many were put back.
    pub async fn reclaim(&self, idle: Duration) -> Result<usize> {
        const OPERATION: &str = "line.reclaim";
        let mut commands = Pipeline::with_capacity(2);
        let claim = commands.cmd("XAUTOCLAIM").arg(&self.key).arg(Self::GROUP).arg(&self.worker);
        let claim = claim.arg(millis(idle)).arg("0-0");
        claim.arg("COUNT").arg(Self::RECLAIM_AT_ONCE).cmd("TIME");
        let answers = self.link.send(&commands).await.map_err(|e| link::unavailable(OPERATION, e))?;
        if link::refusal(&answers).is_some_and(|error| error.code() == Some("NOGROUP")) {
            return Ok(0);
        }
        let (claimed, now_ms) = read_answers(answers).map_err(|e| link::unavailable(OPERATION, e))?;
        let entries = match claimed {
            Value::Array(parts) => parts.into_iter().nth(1).map(Entries::read).unwrap_or_default(),
            _ => Entries::default(),
        };
        let mut old = entries.bad;
        old.extend(entries.good.iter().map(|entry| entry.id.clone()));
        if old.is_empty() {
            return Ok(0);
        }
        let again: Vec<_> =
            entries.good.iter().filter_map(|entry| Some((entry.lease, entry.left(now_ms)?))).collect();
        let mut commands = Pipeline::new();
        self.add_push(&mut commands, again.iter().copied());
        self.add_ack(&mut commands, &old);
        self.send(OPERATION, &commands).await?;
        Ok(again.len())
    }

    /// Forgets entries that were put into the line `over` ago, and workers that have read nothing for `gone`.
    ///
    /// - Call it now and then, with the longest time that any lease is good for, so that nothing piles up which
    ///   nobody reads. A worker that holds entries is kept.
    pub async fn tidy(&self, over: Duration, gone: Duration) -> Result<()> {
        const OPERATION: &str = "line.tidy";
        let mut look = Pipeline::with_capacity(2);
        look.cmd("TIME").cmd("XINFO").arg("CONSUMERS").arg(&self.key).arg(Self::GROUP);
        let answers = self.link.send(&look).await.map_err(|e| link::unavailable(OPERATION, e))?;
        let mut commands = Pipeline::new();
        if let Some(now_ms) = answers.first().and_then(entry::time_ms) {
            let oldest = now_ms.saturating_sub(millis(over));
            commands.cmd("XTRIM").arg(&self.key).arg("MINID").arg(oldest);
        }
        for (worker, pending, idle_ms) in consumers(answers.get(1)) {
            if pending == 0 && u64::try_from(idle_ms).is_ok_and(|idle_ms| idle_ms >= millis(gone)) {
                let gone = commands.cmd("XGROUP").arg("DELCONSUMER").arg(&self.key).arg(Self::GROUP);
                gone.arg(worker);
            }
        }
        self.link.send(&commands).await.map_err(|e| link::unavailable(OPERATION, e)).map(drop)
    }

    pub(crate) fn add_push(&self, commands: &mut Pipeline, leases: impl Iterator<Item = (Lease, Duration)>) {
        let mut longest = Duration::ZERO;
        for (lease, time) in leases {
            longest = longest.max(time);
            commands.cmd("XADD").arg(&self.key).arg("*").arg("l").arg(entry::text(&lease, millis(time)));
        }
        if !longest.is_zero() {
            self.add_life(commands, longest.saturating_add(Self::LINGER));
        }
    }

    /// Has the stream stay for so long at least.
    fn add_life(&self, commands: &mut Pipeline, life: Duration) {
        // To Redis nothing is longer than no limit, which is what a new stream has.
        for condition in ["NX", "GT"] {
            commands.cmd("PEXPIRE").arg(&self.key).arg(millis(life)).arg(condition);
        }
    }

    fn add_ack(&self, commands: &mut Pipeline, ids: &[Vec<u8>]) {
        commands.cmd("XACK").arg(&self.key).arg(Self::GROUP).arg(ids);
    }

    /// Makes the group, from the beginning of the stream on, so that what is there is not missed.
    async fn make_group(&self) -> Result<(), RedisError> {
        let mut commands = Pipeline::with_capacity(3);
        let make = commands.cmd("XGROUP").arg("CREATE").arg(&self.key).arg(Self::GROUP);
        make.arg("0").arg("MKSTREAM");
        self.add_life(&mut commands, Self::LINGER);
        match link::refusal(&self.link.send(&commands).await?) {
            Some(error) if error.code() != Some("BUSYGROUP") => Err(error),
            _ => Ok(()),
        }
    }

    async fn send(&self, operation: &'static str, commands: &Pipeline) -> Result<Vec<Value>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.link.send(commands).await.map_err(|e| link::unavailable(operation, e))?;
        match link::refusal(&answers) {
            Some(error) => Err(link::unavailable(operation, error)),
            None => Ok(answers),
        }
    }
}

/// As Redis takes it: at most what fits its times, which are signed and count from 1970.
fn millis(time: Duration) -> u64 {
    const CENTURY: u64 = 100 * 366 * 86_400_000;
    u64::try_from(time.as_millis()).unwrap_or(CENTURY).min(CENTURY)
}

/// An answer, and after it the answer to TIME.
fn read_answers(answers: Vec<Value>) -> Result<(Value, u64), RedisError> {
    if let Some(error) = link::refusal(&answers) {
        return Err(error);
    }
    let mut answers = answers.into_iter();
    let (answer, time) = (answers.next().unwrap_or(Value::Nil), answers.next());
    let now_ms = time.as_ref().and_then(entry::time_ms).ok_or_else(|| {
        RedisError::from((redis::ErrorKind::UnexpectedReturnType, "Redis does not say what time it is"))
    })?;
    Ok((answer, now_ms))
}

/// The consumers in an answer to XINFO CONSUMERS: their names, how much they hold, and how long they were idle.
fn consumers(answer: Option<&Value>) -> Vec<(&[u8], i64, i64)> {
    fn read(consumer: &Value) -> Option<(&[u8], i64, i64)> {
        let Value::Array(parts) = consumer else { return None };
        let field = |name: &str| {
            let name = Value::BulkString(name.into());
            parts.chunks_exact(2).find(|pair| pair[0] == name).map(|pair| &pair[1])
        };
        match (field("name")?, field("pending")?, field("idle")?) {
            (Value::BulkString(name), Value::Int(pending), Value::Int(idle_ms)) => {
                Some((name, *pending, *idle_ms))
            }
            _ => None,
        }
    }
    match answer {
        Some(Value::Array(consumers)) => consumers.iter().filter_map(read).collect(),
        _ => Vec::new(),
    }
}
