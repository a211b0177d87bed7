use super::{Budget, BudgetWindow};
use crate::runs::{AgentRun, RunAttempt};
use crate::words::words;
use crate::{Id, Invalid, Stored, entity};

/// One movement of a budget's counters, for good (ours).
///
/// - Append-only, and written with the counters in one transaction: the sums of `held` and `spent` over a budget and a
///   window are its counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetEntry {
    /// The budget.
    pub budget_id: Id<Budget>,
    /// The [key](BudgetWindow::key) of the period.
    pub window: String,
    /// The run; none, once it is deleted.
    pub run_id: Option<Id<AgentRun>>,
    /// The attempt whose lease it was written under; none, once it is deleted.
    pub attempt_id: Option<Id<RunAttempt>>,
    /// What it does.
    pub posting: Posting,
}

/// What an entry does to the counters of its budget, in the budget's unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Why.
    pub kind: EntryKind,
    /// What is held becomes this much more, or less.
    pub held: i64,
    /// What is spent becomes this much more; never less.
    pub spent: i64,
}

words! {
    /// Why the counters of a budget move.
    pub enum EntryKind: "kind" {
        /// An attempt begins, or needs more: its worst case is held.
        Reserve = "reserve",
        /// It has used something, which is no longer held but spent.
        Settle = "settle",
        /// It has ended, or lost its lease: the rest is held no longer. The last of a reservation.
        Release = "release",
    }
}

impl BudgetEntry {
    /// The entry of a posting.
    pub fn new(
        budget: &Stored<Budget>,
        window: &BudgetWindow,
        run: Id<AgentRun>,
        attempt: Id<RunAttempt>,
        posting: Posting,
    ) -> Self {
        let (run_id, attempt_id) = (Some(run), Some(attempt));
        Self { budget_id: budget.id, window: window.key.clone(), run_id, attempt_id, posting }
    }
}

entity! {
    BudgetEntry as "budget entry" in "budget_entries" {
        BUDGET_ID: Id<Budget> = budget_id => |entry| entry.budget_id;
        WINDOW: String = window => |entry| entry.window.clone();
        RUN_ID: Option<Id<AgentRun>> = run_id => |entry| entry.run_id;
        ATTEMPT_ID: Option<Id<RunAttempt>> = attempt_id => |entry| entry.attempt_id;
        KIND: EntryKind = kind => |entry| entry.posting.kind;
    }
    refers BUDGET_ID -> Budget Cascade;
    refers RUN_ID -> AgentRun SetNull(|entry| entry.run_id = None);
    refers ATTEMPT_ID -> RunAttempt SetNull(|entry| entry.attempt_id = None);
    validate |entry| {
        Invalid::text("window", &entry.window, 1, 40)?;
        let Posting { kind, held, spent } = entry.posting;
        let right = match kind {
            EntryKind::Reserve => held > 0 && spent == 0,
            EntryKind::Settle => held <= 0 && spent > 0,
            EntryKind::Release => held <= 0 && spent == 0,
        };
        if right {
            Ok(())
        } else {
            Err(Invalid::new("held", "must rise by a reserve only, spent by a settle only, and neither the other way"))
        }
    };
}
