//! The line of runs, and what is left of those that went wrong.

use chrono::TimeDelta;
use lime_core::ports::{Queue, QueueDepth};
use lime_storage_postgres::{LineState, PgStorage};

use super::{Finding, Level};
use crate::text::{count, span};

/// How long a run may be ready before somebody should look, in milliseconds.
const LONG_READY_MS: u64 = 60_000;
/// How long a lease may be overdue: workers take such runs up within their poll, so then there is none.
const LONG_OVERDUE_MS: u64 = 60_000;

pub(super) async fn look(storage: &PgStorage) -> Vec<Finding> {
    let depth = match storage.depth().await {
        Ok(depth) => depth,
        Err(error) => return vec![Finding::error("queue", &error, "run `lime migrate --check`")],
    };
    let state = match storage.line_state().await {
        Ok(state) => state,
        Err(error) => {
            return vec![waiting(&depth), Finding::error("leases", &error, "run `lime migrate --check`")];
        }
    };
    vec![
        waiting(&depth),
        leases(&depth, &state),
        places(&state),
        dead(&state),
        effects(&state),
        questions(&state),
    ]
}

fn waiting(depth: &QueueDepth) -> Finding {
    let ms = i64::try_from(depth.oldest_ready_ms).unwrap_or(i64::MAX);
    let oldest = match depth.ready {
        0 => String::new(),
        _ => format!(", the oldest for {}", span(TimeDelta::milliseconds(ms))),
    };
    let said = format!(
        "{} ready{oldest}, {} scheduled, {} leased, {} paused",
        depth.ready, depth.scheduled, depth.leased, depth.paused
    );
    if depth.ready == 0 || depth.oldest_ready_ms <= LONG_READY_MS {
        return Finding::ok("queue", said);
    }
    let advice = if depth.leased == 0 {
        "no worker takes them: start one that has their provider, and look at its log"
    } else {
        "add workers or LIME_CONCURRENCY, or look whether a tenant's or project's limit holds them (`lime tenants list`)"
    };
    Finding::warn("queue", said, advice)
}

fn leases(depth: &QueueDepth, state: &LineState) -> Finding {
    if state.overdue == 0 {
        return Finding::ok("leases", format!("none of {} is overdue", depth.leased));
    }
    let ms = i64::try_from(state.longest_overdue_ms).unwrap_or(i64::MAX);
    let said = format!(
        "{} overdue, the first since {}",
        count(state.overdue, "lease"),
        span(TimeDelta::milliseconds(ms))
    );
    let advice = "their workers are gone, and none looks for work: start one; it takes these runs up first";
    let level = if state.longest_overdue_ms > LONG_OVERDUE_MS { Level::Fail } else { Level::Warn };
    Finding { level, ..Finding::warn("leases", said, advice) }
}

fn places(state: &LineState) -> Finding {
    match state.unplaced {
        0 => Finding::ok("places", "every queued run has its place in the line"),
        lost => {
            let said = format!("{} without a place in the line", count(lost, "queued run"));
            Finding::warn(
                "places",
                said,
                "run `lime queue sweep`; a worker does so too, so look whether one runs",
            )
        }
    }
}

fn dead(state: &LineState) -> Finding {
    match state.dead_letters {
        0 => Finding::ok("dead", "there are no dead letters"),
        dead => Finding::warn(
            "dead",
            count(dead, "dead letter"),
            "`lime dead-letters list --all-tenants`, then look at the workers' logs and requeue",
        ),
    }
}

fn effects(state: &LineState) -> Finding {
    if state.unsettled.is_empty() {
        return Finding::ok("effects", "no run has ended with a change half done");
    }
    let runs: Vec<_> = state.unsettled.iter().map(ToString::to_string).collect();
    let said = format!("runs have ended with a change that may be half done: {}", runs.join(", "));
    Finding::warn(
        "effects",
        said,
        "`lime runs show ID` says which; look in the repository whether it is there",
    )
}

fn questions(state: &LineState) -> Finding {
    match state.open_questions {
        0 => Finding::ok("questions", "nobody is asked anything"),
        open => Finding::ok("questions", format!("{} open", count(open, "question"))),
    }
}
