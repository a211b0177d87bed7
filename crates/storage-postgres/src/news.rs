//! Says what happened: to those in this process at once, and to other processes by the database.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lime_core::identity::Tenant;
use lime_core::runs::{AgentEvent, AgentRun, RunEvent, Seq};
use lime_core::{Id, LiveHub, Topic};
use sea_orm::{ConnectionTrait, DbErr};

use crate::connections::Connections;
use crate::storage::sql;

/// The channel of `NOTIFY`.
pub(crate) const CHANNEL: &str = "lime";
/// The server takes less than 8,000 bytes.
const MOST_BYTES: usize = 7_900;
/// What happens within this time goes into one notification.
const PAUSE: Duration = Duration::from_millis(5);

/// Whom to tell; clones are one.
///
/// - Call it after the commit: who is woken looks at once.
#[derive(Clone)]
pub(crate) struct News(Arc<Inner>);

struct Inner {
    hub: LiveHub,
    /// How far the logs that are followed here are known here.
    heads: Mutex<HashMap<Id<AgentRun>, Head>>,
    outgoing: Option<Outgoing>,
}

/// How far a log that is followed here is known here.
struct Head {
    tenant: Id<Tenant>,
    /// How far each has read it by itself.
    followers: BTreeMap<u64, Seq>,
    /// How far all who follow it know it.
    seq: Seq,
    fetching: Fetching,
}

/// Whether somebody reads what others have recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fetching {
    No,
    Yes,
    /// There was news since.
    Again,
}

/// What is told to other processes.
struct Outgoing {
    /// Who tells it, so that nobody is told by itself.
    me: u64,
    db: Connections,
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    notice: Notice,
    sending: bool,
}

impl AsRef<LiveHub> for News {
    fn as_ref(&self) -> &LiveHub {
        &self.0.hub
    }
}

impl News {
    /// With a database, other processes are told too.
    pub(crate) fn new(others: Option<Connections>) -> Self {
        let me = RandomState::new().build_hasher().finish();
        let outgoing = others.map(|db| Outgoing { me, db, pending: Mutex::default() });
        Self(Arc::new(Inner { hub: LiveHub::default(), heads: Mutex::default(), outgoing }))
    }

    /// Whether other processes are told, and listened to.
    pub(crate) fn has_others(&self) -> bool {
        self.0.outgoing.is_some()
    }

    /// Hands over what was recorded in a run.
    pub(crate) fn recorded(&self, run: Id<AgentRun>, events: &[RunEvent]) {
        let Some(last) = events.last() else { return };
        self.here(run, last.seq, events);
        self.tell(|notice| _ = notice.logs.insert(run.raw()));
    }

    /// Hands over what was appended at once: the pieces that are not recorded in their place among the events.
    pub(crate) fn appended(
        &self,
        run: Id<AgentRun>,
        is_ephemeral: &[bool],
        recorded: &[RunEvent],
        ephemeral: Vec<AgentEvent>,
    ) {
        if ephemeral.is_empty() {
            return self.recorded(run, recorded);
        }
        let (mut rest, mut ephemeral) = (recorded, ephemeral.into_iter());
        for group in is_ephemeral.chunk_by(|one, next| one == next) {
            if group[0] {
                self.0.hub.ephemeral(run, ephemeral.by_ref().take(group.len()).collect());
            } else {
                let (events, later) = rest.split_at(group.len().min(rest.len()));
                self.recorded(run, events);
                rest = later;
            }
        }
    }

    /// Hands over what another process has recorded, or wakes without it.
    pub(crate) fn here(&self, run: Id<AgentRun>, seq: Seq, events: &[RunEvent]) {
        if let Some(head) = self.heads().get_mut(&run) {
            head.seq = head.seq.max(seq);
        }
        self.0.hub.recorded(run, events);
    }

    /// Says that there is something to see.
    pub(crate) fn wake(&self, topic: Topic) {
        self.0.hub.wake(topic);
        self.tell(|notice| match topic {
            Topic::Log(run) => _ = notice.logs.insert(run.raw()),
            Topic::Signals(run) => _ = notice.signals.insert(run.raw()),
            Topic::Queue => notice.queue = true,
        });
    }

    fn heads(&self) -> MutexGuard<'_, HashMap<Id<AgentRun>, Head>> {
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that somebody here follows a log, who has read it up to `seq`; others may not have come so far.
    pub(crate) fn follow(&self, tenant: Id<Tenant>, run: Id<AgentRun>, seq: Seq) -> Following {
        let mut heads = self.heads();
        let head = heads.entry(run).or_insert_with(|| Head {
            tenant,
            followers: BTreeMap::new(),
            seq,
            fetching: Fetching::No,
        });
        let follower = head.followers.last_key_value().map_or(0, |(last, _)| last + 1);
        head.followers.insert(follower, seq);
        Following { news: self.clone(), run, follower }
    }

    /// What to read of a log that another process has written to, if somebody here follows it and nobody reads yet.
    pub(crate) fn fetch(&self, run: Id<AgentRun>) -> Option<(Id<Tenant>, Seq)> {
        let mut heads = self.heads();
        let Some(head) = heads.get_mut(&run) else {
            // Whoever follows it is still reading the log; it looks again at its end.
            self.0.hub.wake(Topic::Log(run));
            return None;
        };
        let idle = head.fetching == Fetching::No;
        head.fetching = if idle { Fetching::Yes } else { Fetching::Again };
        idle.then_some((head.tenant, head.seq))
    }

    /// Notes that a log was read to its end; gives from where to read on, if there was news since.
    pub(crate) fn fetched(&self, run: Id<AgentRun>) -> Option<Seq> {
        let mut heads = self.heads();
        let head = heads.get_mut(&run)?;
        let again = head.fetching == Fetching::Again;
        head.fetching = if again { Fetching::Yes } else { Fetching::No };
        again.then_some(head.seq)
    }

    /// Tells other processes, in a task of its own.
    fn tell(&self, what: impl FnOnce(&mut Notice)) {
        let Some(outgoing) = &self.0.outgoing else { return };
        let mut pending = outgoing.lock();
        what(&mut pending.notice);
        if !pending.sending {
            pending.sending = true;
            tokio::spawn(Sender { news: self.clone(), over: false }.send());
        }
    }

    /// Whether a notice is this process's own.
    pub(crate) fn is_own(&self, sender: u64) -> bool {
        self.0.outgoing.as_ref().is_some_and(|outgoing| outgoing.me == sender)
    }
}

/// One who follows a log; dropped, it is forgotten.
pub(crate) struct Following {
    news: News,
    run: Id<AgentRun>,
    follower: u64,
}

impl Following {
    /// Notes how far it has read the log by itself.
    pub(crate) fn reached(&self, seq: Seq) {
        if let Some(head) = self.news.heads().get_mut(&self.run) {
            head.followers.insert(self.follower, seq);
            let of_all = head.followers.values().min().copied();
            head.seq = head.seq.max(of_all.unwrap_or(seq));
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut heads = self.news.heads();
        if let Some(head) = heads.get_mut(&self.run) {
            head.followers.remove(&self.follower);
            if head.followers.is_empty() {
                heads.remove(&self.run);
            }
        }
    }
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Not in the transaction that it tells of, which would then wait for all others that tell something; and not
    /// durably, since what is lost in a crash is found by those who look from time to time.
    async fn notify(&self, text: String) -> Result<(), DbErr> {
        let statement = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)";
        self.db.query_one_raw(sql(statement, [CHANNEL.into(), text.into()])).await.map(|_| ())
    }
}

/// The task that tells other processes until there is nothing to tell.
struct Sender {
    news: News,
    over: bool,
}

impl Sender {
    async fn send(mut self) {
        while let Some((outgoing, notice)) = self.next() {
            if let Err(error) = outgoing.notify(notice.text(outgoing.me)).await {
                let error = crate::error::unnamed("storage.notify", &error);
                tracing::warn!(%error, "other processes were not told of news; they find it when they look");
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.over = true;
    }

    fn next(&self) -> Option<(&Outgoing, Notice)> {
        let outgoing = self.news.0.outgoing.as_ref()?;
        let mut pending = outgoing.lock();
        let notice = std::mem::take(&mut pending.notice);
        pending.sending = !notice.is_empty();
        (!notice.is_empty()).then_some((outgoing, notice))
    }
}

impl Drop for Sender {
    /// If the runtime has ended in the middle of it, the next one starts anew.
    fn drop(&mut self) {
        if let Some(outgoing) = self.news.0.outgoing.as_ref().filter(|_| !self.over) {
            outgoing.lock().sending = false;
        }
    }
}

/// What one process tells the others: in words, `1 <who> q l<run>,<run> s<run>`, or `1 <who> *` for more than fits.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Something more happened: look at everything.
    pub(crate) all: bool,
    /// There may be something to take.
    pub(crate) queue: bool,
    /// Runs with new events.
    pub(crate) logs: BTreeSet<i64>,
    /// Runs of which something may have been asked.
    pub(crate) signals: BTreeSet<i64>,
}

impl Notice {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn text(&self, sender: u64) -> String {
        let head = format!("1 {sender:x}");
        let mut text = head.clone();
        if self.queue {
            text.push_str(" q");
        }
        for (letter, runs) in [('l', &self.logs), ('s', &self.signals)] {
            for (place, run) in runs.iter().enumerate() {
                text.push_str(if place == 0 { " " } else { "," });
                if place == 0 {
                    text.push(letter);
                }
                write!(text, "{run}").expect("a text can always be written to");
                if text.len() > MOST_BYTES {
                    return head + " *";
                }
            }
        }
        if self.all { head + " *" } else { text }
    }

    /// Who tells it, and what; what this version cannot read is a reason to look at everything.
    pub(crate) fn parse(text: &str) -> (Option<u64>, Self) {
        let all = Self { all: true, ..Self::default() };
        let Some((sender, words)) =
            text.strip_prefix("1 ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            return (None, all);
        };
        let sender = u64::from_str_radix(sender, 16).ok();
        let mut notice = Self::default();
        for word in words.split(' ').filter(|word| !word.is_empty()) {
            let runs =
                |list: &str| list.split(',').map(|run| run.parse().ok()).collect::<Option<BTreeSet<i64>>>();
            let known = match word.split_at(1) {
                ("q", "") => {
                    notice.queue = true;
                    Some(())
                }
                ("l", list) => runs(list).map(|runs| notice.logs = runs),
                ("s", list) => runs(list).map(|runs| notice.signals = runs),
                _ => None,
            };
            if known.is_none() {
                return (sender, all);
            }
        }
        (sender, notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(
        logs: impl IntoIterator<Item = i64>,
        signals: impl IntoIterator<Item = i64>,
        queue: bool,
    ) -> Notice {
        let (logs, signals) = (logs.into_iter().collect(), signals.into_iter().collect());
        Notice { all: false, queue, logs, signals }
    }

    #[test]
    fn a_notice_is_read_as_it_was_said() {
        for said in [notice([], [], true), notice([7, 9], [], false), notice([i64::MAX, 1], [3, 4], true)] {
            let text = said.text(0xfeed);
            assert_eq!(Notice::parse(&text), (Some(0xfeed), said), "{text}");
        }
        assert_eq!(notice([7, 9], [3], true).text(255), "1 ff q l7,9 s3");
    }

    #[test]
    fn what_does_not_fit_or_cannot_be_read_is_everything() {
        let text = notice(1_000_000..1_002_000, [], true).text(1);
        assert!(text.len() < 8_000 && Notice::parse(&text).1.all);
        for strange in ["", "x", "2 ff q", "1 ff l", "1 ff l7,x", "1 ff w3", "1 ff *"] {
            assert!(Notice::parse(strange).1.all, "{strange}");
        }
    }

    #[test]
    fn a_log_is_fetched_once_for_all_who_follow_it_and_again_after_more_news() {
        let (news, run) = (News::new(None), Id::new(1));
        assert_eq!(news.fetch(run), None, "nobody follows");
        let first = news.follow(Id::new(5), run, 3);
        let second = news.follow(Id::new(5), run, 4);
        assert_eq!(news.fetch(run), Some((Id::new(5), 3)), "what the second one has read, the first has not");
        assert_eq!(news.fetch(run), None, "somebody reads already");
        second.reached(6);
        assert_eq!(news.fetched(run), Some(3), "there was news since");
        assert_eq!(news.fetched(run), None);
        first.reached(5);
        assert_eq!(news.fetch(run), Some((Id::new(5), 5)));
        assert_eq!(news.fetched(run), None);
        news.here(run, 7, &[]);
        assert_eq!(news.fetch(run), Some((Id::new(5), 7)), "all were told");
        drop((first, second));
        assert_eq!(news.fetched(run), None);
        assert!(news.heads().is_empty());
    }
}
