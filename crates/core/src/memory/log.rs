use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};

use super::{MemoryStorage, State};
use crate::ports::{EventLog, EventStream, Live, Progress, Record};
use crate::runs::{AgentEvent, AgentRun, Lease, RunEvent, RunStep, Seq, ToolCall};
use crate::{Editable, Error, Follower, Id, Invalid, LiveHub, Query, Result, Scope, Stored, Topic};

const APPEND: &str = "events.append";

impl State {
    /// Appends events to a run's log, and gives them as they were recorded.
    pub(super) fn record(
        &mut self,
        run: Id<AgentRun>,
        events: Vec<AgentEvent>,
        now: DateTime<Utc>,
    ) -> Vec<RunEvent> {
        let log = self.events.entry(run).or_default();
        let start = log.len();
        for event in events {
            let seq = Seq::try_from(log.len() + 1).expect("a log in memory is far shorter than 2^63");
            log.push(RunEvent { run_id: run, seq, ts: now, event: event.bounded() });
        }
        log[start..].to_vec()
    }

    /// Checks everything that a record says before any of it is kept.
    fn check_record(&mut self, scope: &Scope, lease: &Lease, record: &Record) -> Result<()> {
        let foreign = record.steps.iter().any(|step| step.run_id != lease.run)
            || record.tool_calls.iter().any(|call| call.agent_run_id != lease.run);
        if foreign {
            return Err(Error::invalid(APPEND, "a step or tool call belongs to another run than the lease"));
        }
        for step in &record.steps {
            let known = self.stored(scope, same_step(lease.run, &step.step_key));
            self.check(scope, APPEND, known.map(|known| known.id), step)?;
        }
        for call in &record.tool_calls {
            let known = self.stored(scope, same_call(lease.run, &call.call_id));
            self.check(scope, APPEND, known.map(|known| known.id), call)?;
        }
        let Some(key) = &record.step else { return Ok(()) };
        let given = record.steps.iter().any(|step| step.step_key == *key);
        if given || self.stored(scope, same_step(lease.run, key)).is_some() {
            return Ok(());
        }
        Err(Invalid::new("step", format!("the run has no step {key}")).refused(APPEND, "record"))
    }

    fn stored<E: Editable>(&mut self, scope: &Scope, query: Query<E>) -> Option<Stored<E>> {
        self.table::<E>().page(scope.tenant(), &query.limit(1)).items.pop()
    }

    /// Keeps what is known of a row that its run knows by a key.
    fn keep<E: Editable>(&mut self, scope: &Scope, same: Query<E>, value: E, now: DateTime<Utc>) {
        let known = self.stored(scope, same);
        let row = known.and_then(|known| self.table::<E>().rows.get_mut(&known.id));
        match row {
            Some(row) => {
                row.stored.value = value;
                row.stored.version += 1;
                row.stored.updated_at = now;
            }
            None => _ = self.table().push(scope.tenant(), now, value),
        }
    }

    fn progress(&mut self, run: Id<AgentRun>, progress: Progress, now: DateTime<Utc>) {
        if progress == Progress::default() {
            return;
        }
        let Progress { provider_session_id, instructions, branch, model } = progress;
        let run = self.run(run);
        run.value.provider_session_id = provider_session_id.or(run.value.provider_session_id.take());
        run.value.instructions = instructions.or(run.value.instructions.take());
        run.value.branch = branch.or(run.value.branch.take());
        run.value.model = model.or(run.value.model.take());
        run.version += 1;
        run.updated_at = now;
    }
}

fn same_step(run: Id<AgentRun>, key: &str) -> Query<RunStep> {
    Query::all().filter(RunStep::RUN_ID.eq(run)).filter(RunStep::STEP_KEY.eq(key))
}

fn same_call(run: Id<AgentRun>, call: &str) -> Query<ToolCall> {
    Query::all().filter(ToolCall::AGENT_RUN_ID.eq(run)).filter(ToolCall::CALL_ID.eq(call))
}

#[async_trait]
impl EventLog for MemoryStorage {
    async fn append(&self, lease: &Lease, record: Record) -> Result<Vec<RunEvent>> {
        let now = self.now();
        let mut state = self.lock();
        state.leased(lease, APPEND, now)?;
        let scope = Scope::system(lease.tenant, "keeping the log");
        state.check_record(&scope, lease, &record)?;
        for step in record.steps {
            state.keep(&scope, same_step(lease.run, &step.step_key), step, now);
        }
        for call in record.tool_calls {
            state.keep(&scope, same_call(lease.run, &call.call_id), call, now);
        }
        state.progress(lease.run, record.progress, now);
        let order: Vec<_> = record.events.iter().map(AgentEvent::is_ephemeral).collect();
        let (ephemeral, lasting): (Vec<_>, Vec<_>) =
            record.events.into_iter().partition(AgentEvent::is_ephemeral);
        let recorded = state.record(lease.run, lasting, now);
        drop(state);
        self.announce_in_order(lease.run, &order, &recorded, ephemeral);
        Ok(recorded)
    }

    async fn read(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<RunEvent>> {
        self.page(scope, run, after, limit).map(|(page, _)| page)
    }

    fn subscribe(&self, scope: &Scope, run: Id<AgentRun>, after: Seq) -> EventStream {
        let follower = LiveHub::follow(self.clone(), Topic::Log(run));
        let reader =
            Reader { storage: self.clone(), scope: scope.clone(), run, after, follower, read_log: true };
        stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next_items().await {
                Ok(items) if items.is_empty() => None,
                Ok(items) => Some((items.into_iter().map(Ok).collect(), Some(reader))),
                Err(error) => Some((vec![Err(error)], None)),
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }
}

impl MemoryStorage {
    /// A page of a log, and whether its run has ended.
    fn page(
        &self,
        scope: &Scope,
        run: Id<AgentRun>,
        after: Seq,
        limit: usize,
    ) -> Result<(Vec<RunEvent>, bool)> {
        let mut state = self.lock();
        let ended = state.row(scope, "events.read", run)?.stored.status.is_final();
        let log = state.events.get(&run).map_or(&[][..], Vec::as_slice);
        let page = log.iter().filter(|event| event.seq > after).take(limit).cloned().collect();
        Ok((page, ended))
    }

    /// Hands over what was appended at once, the pieces in their place among the events.
    fn announce_in_order(
        &self,
        run: Id<AgentRun>,
        is_ephemeral: &[bool],
        recorded: &[RunEvent],
        ephemeral: Vec<AgentEvent>,
    ) {
        let mut recorded = recorded;
        let mut ephemeral = ephemeral.into_iter();
        for group in is_ephemeral.chunk_by(|a, b| a == b) {
            if group[0] {
                self.0.hub.ephemeral(run, ephemeral.by_ref().take(group.len()).collect());
            } else {
                let (events, rest) = recorded.split_at(group.len());
                self.0.hub.recorded(run, events);
                recorded = rest;
            }
        }
    }
}

/// Reads a log page by page, and at its end takes what is handed over.
struct Reader {
    storage: MemoryStorage,
    scope: Scope,
    run: Id<AgentRun>,
    after: Seq,
    follower: Follower<MemoryStorage>,
    /// Whether there may be more in the log than was seen.
    read_log: bool,
}

impl Reader {
    /// What comes next; nothing, if nothing comes any more.
    async fn next_items(&mut self) -> Result<Vec<Live>> {
        const PAGE: usize = 256;
        loop {
            if self.read_log {
                let (page, ended) = self.storage.page(&self.scope, self.run, self.after, PAGE)?;
                if page.is_empty() && ended {
                    return Ok(Vec::new());
                }
                if let Some(last) = page.last() {
                    self.after = last.seq;
                    return Ok(page.into_iter().map(Live::Recorded).collect());
                }
                self.read_log = false;
            }
            let news = self.follower.changed().await;
            let items = self.unseen(&news);
            if !items.is_empty() {
                return Ok(items);
            }
            self.read_log = true;
        }
    }

    /// What of the news is new and goes on from what was seen, without a gap.
    fn unseen(&mut self, news: &[Arc<Live>]) -> Vec<Live> {
        // What was read from the log has come before: the pieces in front of it have lost their place.
        let seen = |live: &Arc<Live>| matches!(&**live, Live::Recorded(event) if event.seq <= self.after);
        let start = news.iter().rposition(seen).map_or(0, |at| at + 1);
        let mut items = Vec::new();
        let mut in_place = 0;
        for live in &news[start..] {
            if let Live::Recorded(event) = &**live {
                if event.seq != self.after + 1 {
                    // What is between is announced later; the pieces since then belong behind it.
                    items.truncate(in_place);
                    self.read_log = true;
                    break;
                }
                self.after = event.seq;
                self.read_log |= event.event.is_final();
                in_place = items.len() + 1;
            }
            items.push(Live::clone(live));
        }
        items
    }
}
