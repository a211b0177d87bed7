//! Following a log.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use lime_core::ports::{EventStream, Live};
use lime_core::runs::{AgentRun, Seq};
use lime_core::{Follower, Id, LiveHub, Result, Scope, Topic};
use tokio::time::timeout;

use super::Page;
use crate::PgStorage;
use crate::news::{Following, News};

/// How many events are read at once.
const PAGE: usize = 256;
/// How often one who is told of news looks by itself, should a word be lost with the process that said it.
const LOOK: Duration = Duration::from_secs(10);

pub(super) fn subscribe(storage: PgStorage, scope: Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
    let follower = LiveHub::follow(storage.news().clone(), Topic::Log(run));
    let reader = Reader { storage, scope, run, after, follower, following: None, reads_log: true };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next_items().await {
            Ok(items) if items.is_empty() => None,
            Ok(items) => Some((items.into_iter().map(Ok).collect::<Vec<_>>(), Some(reader))),
            Err(error) => Some((vec![Err(error)], None)),
        }
    })
    .flat_map(stream::iter)
    .boxed()
}

/// Reads a log page by page, and at its end takes what is handed over.
struct Reader {
    storage: PgStorage,
    scope: Scope,
    run: Id<AgentRun>,
    /// The last position that was seen.
    after: Seq,
    follower: Follower<News>,
    /// Once the end of the log was seen: what others record is read once for all who follow.
    following: Option<Following>,
    /// Whether there may be more in the log than was seen.
    reads_log: bool,
}

impl Reader {
    /// What comes next; nothing, if nothing comes any more.
    async fn next_items(&mut self) -> Result<Vec<Live>> {
        self.storage.listen();
        loop {
            if self.reads_log {
                let Page { events, is_end } = self.page().await?;
                if let Some(last) = events.last() {
                    self.after = last.seq;
                    return Ok(events.into_iter().map(Live::Recorded).collect());
                }
                if is_end {
                    return Ok(Vec::new());
                }
                self.reads_log = false;
                match &self.following {
                    Some(following) => following.reached(self.after),
                    None => {
                        let tenant = self.scope.tenant();
                        self.following = Some(self.storage.news().follow(tenant, self.run, self.after));
                    }
                }
            }
            let poll = self.storage.base().live_poll;
            let look = if self.storage.is_listening() { poll.max(LOOK) } else { poll };
            let news = timeout(look, self.follower.changed()).await.unwrap_or_default();
            let items = self.unseen(&news);
            if !items.is_empty() {
                return Ok(items);
            }
            self.reads_log = true;
        }
    }

    /// Reads a page to its end even while nobody polls the stream, which may last: a connection that such a stream
    /// held could be the only one.
    async fn page(&self) -> Result<Page> {
        let (db, tenant, run, after) =
            (self.storage.connection_of(&self.scope), self.scope.tenant(), self.run, self.after);
        let work = async move { super::page(&db, tenant, run, after, PAGE).await };
        self.storage.detached("events.subscribe", tracing::Span::current(), work).await
    }

    /// What of the news is new and goes on from what was seen, without a gap.
    fn unseen(&mut self, news: &[Arc<Live>]) -> Vec<Live> {
        // What was read from the log has come before: the pieces in front of it have lost their place.
        let seen = |live: &Arc<Live>| matches!(&**live, Live::Recorded(event) if event.seq <= self.after);
        let start = news.iter().rposition(seen).map_or(0, |at| at + 1);
        let mut items = Vec::new();
        for live in &news[start..] {
            if let Live::Recorded(event) = &**live {
                if event.seq != self.after + 1 {
                    self.reads_log = true;
                    break;
                }
                self.after = event.seq;
                self.reads_log |= event.event.is_final();
            }
            items.push(Live::clone(live));
        }
        items
    }
}
