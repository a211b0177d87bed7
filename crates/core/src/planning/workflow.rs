//! The columns of a board, the legal moves between them, and what each column asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Invalid;

/// The key of a column, such as `in_progress`.
pub type ColumnKey = String;

/// Named columns, the legal moves, and gates (DESIGN: what unites the three documents' boards).
///
/// - Presets: [`delivery`](Workflow::delivery) (000), [`approval`](Workflow::approval) (001) and
///   [`work_order`](Workflow::work_order) (003).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workflow {
    /// The columns from left to right; a new ticket starts in the first.
    pub columns: Vec<ColumnKey>,
    /// The legal moves.
    pub moves: Vec<Move>,
    /// What must hold for a ticket to enter a column, and what entering it sets off.
    #[serde(default)]
    pub gates: BTreeMap<ColumnKey, Vec<Gate>>,
}

/// A legal move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// From this column.
    pub from: ColumnKey,
    /// To this one.
    pub to: ColumnKey,
}

/// What a column asks of a ticket that enters it, or sets off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// A person must have approved.
    NeedsApproval,
    /// There must be a diff.
    NeedsDiff,
    /// Entering it starts an agent.
    StartsAgent,
}

/// What is true of a ticket when it is moved.
#[derive(Debug, Clone, Copy, Default)]
pub struct MoveFacts {
    /// A person has approved.
    pub approved: bool,
    /// There is a diff.
    pub has_diff: bool,
}

/// Why a ticket may not be moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefused {
    /// The board has no such column.
    #[error("the board has no column `{0}`")]
    UnknownColumn(ColumnKey),
    /// The workflow has no such move.
    #[error("a ticket cannot go from `{from}` to `{to}` on this board")]
    NoSuchMove {
        /// Where the ticket is.
        from: ColumnKey,
        /// Where it was to go.
        to: ColumnKey,
    },
    /// The column asks for an approval.
    #[error("`{0}` asks for an approval first")]
    ApprovalMissing(ColumnKey),
    /// The column asks for a diff.
    #[error("`{0}` asks for a diff first")]
    DiffMissing(ColumnKey),
}

impl Workflow {
    /// 000 §0: backlog, todo, in_progress, code_review, qa, done; any column to any other, as on a free board.
    pub fn delivery() -> Self {
        let columns = ["backlog", "todo", "in_progress", "code_review", "qa", "done"];
        let moves = columns
            .iter()
            .flat_map(|from| columns.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to);
        Self::preset(&columns, moves, [])
    }

    /// 001: backlog, in_progress, waiting_approval, verified; approve goes on to verified, reject goes back.
    pub fn approval() -> Self {
        Self::preset(
            &["backlog", "in_progress", "waiting_approval", "verified"],
            [
                ("backlog", "in_progress"),
                ("in_progress", "backlog"),
                ("in_progress", "waiting_approval"),
                ("waiting_approval", "in_progress"),
                ("waiting_approval", "verified"),
            ],
            [
                ("in_progress", Gate::StartsAgent),
                ("waiting_approval", Gate::NeedsDiff),
                ("verified", Gate::NeedsApproval),
            ],
        )
    }

    /// 003 §8: backlog, ready, in_progress, in_review, done; one step forward or back.
    pub fn work_order() -> Self {
        let columns = ["backlog", "ready", "in_progress", "in_review", "done"];
        let moves = columns.windows(2).flat_map(|pair| [(pair[0], pair[1]), (pair[1], pair[0])]);
        Self::preset(&columns, moves, [])
    }

    fn preset<'a>(
        columns: &[&str],
        moves: impl IntoIterator<Item = (&'a str, &'a str)>,
        gates: impl IntoIterator<Item = (&'a str, Gate)>,
    ) -> Self {
        let mut gated = BTreeMap::<ColumnKey, Vec<Gate>>::new();
        for (column, gate) in gates {
            gated.entry(column.into()).or_default().push(gate);
        }
        Self {
            columns: columns.iter().map(|&column| column.into()).collect(),
            moves: moves.into_iter().map(|(from, to)| Move { from: from.into(), to: to.into() }).collect(),
            gates: gated,
        }
    }

    /// Checks that there is a column, that keys are unique and well formed, and that moves and gates name columns.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.columns.is_empty() || self.columns.len() > 30 {
            return Err(Invalid::new("columns", "a board has 1 to 30 columns"));
        }
        for (index, key) in self.columns.iter().enumerate() {
            let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if key.is_empty() || key.len() > 40 || !key.bytes().all(word) {
                let rule = format!("`{key}` must be 1 to 40 of a-z, 0-9 and `_`");
                return Err(Invalid::new("columns", rule));
            }
            if self.columns[..index].contains(key) {
                return Err(Invalid::new("columns", format!("`{key}` stands twice")));
            }
        }
        let named = self.moves.iter().flat_map(|m| [&m.from, &m.to]).chain(self.gates.keys());
        for key in named {
            if !self.columns.contains(key) {
                return Err(Invalid::new("workflow", format!("names `{key}`, which is not a column")));
            }
        }
        Ok(())
    }

    /// Whether a ticket may go from one column to another.
    ///
    /// - Staying where it is is always allowed.
    pub fn check(&self, from: &str, to: &str, facts: MoveFacts) -> Result<(), MoveRefused> {
        if !self.columns.iter().any(|column| column == to) {
            return Err(MoveRefused::UnknownColumn(to.into()));
        }
        if from == to {
            return Ok(());
        }
        if !self.moves.iter().any(|m| m.from == from && m.to == to) {
            return Err(MoveRefused::NoSuchMove { from: from.into(), to: to.into() });
        }
        for gate in self.gates.get(to).into_iter().flatten() {
            match gate {
                Gate::NeedsApproval if !facts.approved => {
                    return Err(MoveRefused::ApprovalMissing(to.into()));
                }
                Gate::NeedsDiff if !facts.has_diff => return Err(MoveRefused::DiffMissing(to.into())),
                Gate::NeedsApproval | Gate::NeedsDiff | Gate::StartsAgent => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPROVED: MoveFacts = MoveFacts { approved: true, has_diff: true };

    #[test]
    fn presets_are_valid() {
        for workflow in [Workflow::delivery(), Workflow::approval(), Workflow::work_order()] {
            workflow.validate().unwrap();
        }
    }

    #[test]
    fn approval_asks_for_a_diff_and_then_for_a_person() {
        let workflow = Workflow::approval();
        let none = MoveFacts::default();
        assert_eq!(
            workflow.check("in_progress", "waiting_approval", none),
            Err(MoveRefused::DiffMissing("waiting_approval".into()))
        );
        assert_eq!(
            workflow.check("waiting_approval", "verified", MoveFacts { has_diff: true, ..none }),
            Err(MoveRefused::ApprovalMissing("verified".into()))
        );
        assert_eq!(workflow.check("waiting_approval", "verified", APPROVED), Ok(()));
        assert_eq!(workflow.check("waiting_approval", "in_progress", none), Ok(()));
        assert!(matches!(
            workflow.check("backlog", "verified", APPROVED),
            Err(MoveRefused::NoSuchMove { .. })
        ));
    }

    #[test]
    fn a_workflow_that_names_no_column_is_refused() {
        let mut workflow = Workflow::work_order();
        workflow.moves.push(Move { from: "done".into(), to: "nowhere".into() });
        assert!(workflow.validate().is_err());
    }
}
