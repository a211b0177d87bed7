//! How an attempt ends: with its run, or with the run given back.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use lime_core::ports::{Handback, HandbackReason, Settlement};
use lime_core::runs::{AgentRun, AttemptEnd, Failure, Lease};
use lime_core::{Error, Id, Result, Stored};

use super::held::{self, Held, Then, Which};
use super::{arrays, millis};
use crate::batch::{Batcher, together};
use crate::fence::{HELD, ITS};
use crate::storage::{Base, commit};

/// The most attempts that one transaction ends, and the most bytes of their last events, beside the last one's.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;
/// The longest that a provider's word on when to come back is taken at.
const LONGEST_WORD: TimeDelta = TimeDelta::days(1);

/// The end of an attempt.
#[derive(Debug, Clone)]
pub(super) enum Ending {
    Settled(Lease, Box<Settlement>),
    HandedBack(Lease, Box<Handback>),
}

impl Ending {
    fn lease(&self) -> &Lease {
        match self {
            Self::Settled(lease, _) | Self::HandedBack(lease, _) => lease,
        }
    }

    fn operation(&self) -> &'static str {
        match self {
            Self::Settled(..) => "queue.settle",
            Self::HandedBack(..) => "queue.hand_back",
        }
    }

    fn bytes(&self) -> usize {
        let events = match self {
            Self::Settled(_, settlement) => &settlement.events,
            Self::HandedBack(_, handback) => &handback.events,
        };
        events.iter().map(lime_core::runs::AgentEvent::text_bytes).sum()
    }

    fn apply(self, held: &mut Held) -> Result<()> {
        let operation = self.operation();
        match self {
            Self::Settled(_, settlement) => {
                held.end_attempt(settlement.outcome.attempt_end(), None);
                held.close(operation, *settlement)
            }
            Self::HandedBack(_, handback) => hand_back(operation, held, *handback),
        }
    }
}

fn hand_back(operation: &'static str, held: &mut Held, handback: Handback) -> Result<()> {
    held.run.value.add(handback.usage, &handback.tool_calls);
    held.say(handback.events);
    let (then, detail) = match handback.why {
        HandbackReason::Released => {
            held.end_attempt(AttemptEnd::Released, None);
            (Then::Waits(None), None)
        }
        HandbackReason::Retry { failure, pause } => {
            let from = again(held.now, &failure, millis(pause));
            let detail =
                format!("tried again from {} on: {}", from.format("%Y-%m-%d %H:%M:%S UTC"), failure.message);
            held.run.value.failure_count += 1;
            held.run.value.run_at = Some(from);
            held.end_attempt(AttemptEnd::Failed, Some(failure.message));
            (Then::Waits(Some(from)), Some(detail))
        }
    };
    held.put_down(operation, then, detail)
}

/// When a run that failed is tried again.
fn again(now: DateTime<Utc>, failure: &Failure, pause_ms: i64) -> DateTime<Utc> {
    let word = failure.retry_at.unwrap_or(now).min(now + LONGEST_WORD);
    (now + TimeDelta::milliseconds(pause_ms)).max(word)
}

/// Ends the attempts of many callers in one transaction.
pub(super) fn batcher(base: &Base) -> Batcher<Ending, Stored<AgentRun>> {
    let of_all = base.clone();
    Batcher::weighed(
        "queue.settle",
        MOST,
        MOST_BYTES,
        Ending::bytes,
        base.in_flight,
        move |endings: Vec<Ending>| {
            let base = of_all.clone();
            async move {
                let ended = together(&endings, |endings| {
                    let base = base.clone();
                    Box::pin(async move { end(&base, endings).await })
                });
                ended.await.into_iter().map(|ended| ended.and_then(|ended| ended)).collect()
            }
        },
    )
}

async fn end(base: &Base, endings: &[Ending]) -> Result<Vec<Result<Stored<AgentRun>>>> {
    const OPERATION: &str = "queue.settle";
    let tx = base.begin(OPERATION).await?;
    let condition = format!("{ITS} AND {HELD}");
    let given = "UNNEST((SELECT $1), $2, $3) AS given (tenant_id, run_id, token)";
    let mut leases: Vec<&Lease> = endings.iter().map(Ending::lease).collect();
    leases.sort_unstable_by_key(|lease| lease.run);
    let values = arrays(leases.into_iter());
    let which = Which { table: "run_leases", given: Some(given), condition: &condition, skip_locked: false };
    let found = held::lock(&tx, OPERATION, which, values).await?;
    let mut found: HashMap<Id<AgentRun>, Result<Held>> = found.into_iter().collect();
    let (mut results, mut ended) = (Vec::with_capacity(endings.len()), Vec::new());
    for ending in endings {
        let lease = ending.lease();
        let is_other = |held: &Result<Held>| matches!(held, Ok(held) if held.token != Some(lease.attempt));
        let held = match found.get(&lease.run) {
            Some(held) if !is_other(held) => found.remove(&lease.run),
            // Who comes second with the same lease is too late, too.
            Some(_) | None => None,
        };
        let held = held.unwrap_or_else(|| Err(Error::stale_lease(ending.operation(), lease)));
        results.push(held.and_then(|mut held| {
            ending.clone().apply(&mut held)?;
            ended.push(held);
            Ok(ended.len() - 1)
        }));
    }
    let saved = held::save(&tx, OPERATION, ended).await?;
    commit(OPERATION, tx).await?;
    held::tell(base, &saved);
    Ok(results.into_iter().map(|ended| ended.map(|at| saved[at].stored.clone())).collect())
}
