use std::fmt;

use chrono::{DateTime, Utc};
use lime_core::runs::{Failure, FailureKind, Limit, Outcome};

use crate::failure::{Trouble, quote};
use crate::wire::RunResult;

/// SIGINT and SIGTERM, and how a shell tells them as exit codes: somebody asked the process to end.
const ASKED_TO_END: [i32; 2] = [2, 15];
const SHELL_SIGNAL_BASE: i32 = 128;

/// How the CLI's process ended.
#[derive(Debug, Clone, Default)]
pub struct ExitFacts {
    /// Its exit code; none if a signal ended it, or if nobody knows.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The last lines that it wrote to stderr.
    pub stderr: String,
    /// More for the report's diagnostics, such as leftovers that were killed.
    pub notes: Vec<String>,
}

impl ExitFacts {
    fn was_asked_to_end(&self) -> bool {
        let shell = self.code.map(|code| code.saturating_sub(SHELL_SIGNAL_BASE));
        [self.signal, shell].into_iter().flatten().any(|signal| ASKED_TO_END.contains(&signal))
    }

    fn how(&self) -> String {
        match (self.code, self.signal) {
            (_, Some(signal)) => format!("signal {signal}"),
            (Some(code), None) => format!("exit code {code}"),
            (None, None) => "an unknown exit code".to_owned(),
        }
    }
}

impl fmt::Display for ExitFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how())?;
        for note in &self.notes {
            write!(f, "; {note}")?;
        }
        let stderr = self.stderr.trim();
        if !stderr.is_empty() {
            write!(f, "\nstderr: {stderr}")?;
        }
        Ok(())
    }
}

/// What speaks for and against each outcome, gathered line by line.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    began: bool,
    own_key: bool,
    cancelled: bool,
    interrupted: bool,
    trouble: Option<Trouble>,
    resets_at: Option<DateTime<Utc>>,
    result: Option<Box<RunResult>>,
}

impl Verdict {
    /// The session began, with a key from the environment or without.
    pub(crate) fn own_key(&mut self, own: bool) {
        self.began = true;
        self.own_key = own;
    }

    /// It was cancelled from this side.
    pub(crate) fn cancel(&mut self) {
        self.cancelled = true;
    }

    /// The CLI says that it was interrupted.
    pub(crate) fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// Something went wrong, and perhaps ends the session.
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// The agent goes on, so what went wrong before is over.
    pub(crate) fn progress(&mut self) {
        self.trouble = None;
        self.interrupted = false;
    }

    pub(crate) fn resets_at(&mut self, at: Option<DateTime<Utc>>) {
        self.resets_at = at;
    }

    pub(crate) fn result(&mut self, result: RunResult) {
        self.result = Some(Box::new(result));
    }

    pub(crate) fn has_result(&self) -> bool {
        self.result.is_some()
    }

    /// Another turn begins, and its result is the one that counts.
    pub(crate) fn next_turn(&mut self) {
        self.result = None;
    }

    /// Whether a limit ended the turn, after which there is no other.
    pub(crate) fn is_limited(&self) -> bool {
        self.result.as_ref().is_some_and(|result| limit(result).is_some())
    }

    pub(crate) fn outcome(&self, exit: &ExitFacts) -> Outcome {
        if self.cancelled {
            return Outcome::Cancelled;
        }
        match &self.result {
            Some(result) => self.of_result(result),
            None => self.without_result(exit),
        }
    }

    /// `is_error` decides: an error of the API comes with the subtype `success`, and exit codes say less.
    fn of_result(&self, result: &RunResult) -> Outcome {
        if let Some(limit) = limit(result) {
            return Outcome::Limited(limit);
        }
        let subtype = result.subtype.as_deref().unwrap_or_default();
        if !result.is_error.unwrap_or(subtype != "success") {
            return Outcome::Succeeded {
                summary: result.result.clone().filter(|text| !text.trim().is_empty()),
            };
        }
        let aborted = result.terminal_reason.as_deref().is_some_and(|why| why.starts_with("aborted"));
        if self.interrupted || aborted {
            return Outcome::Cancelled;
        }
        let said = self.trouble.clone().filter(|trouble| !trouble.retrying).unwrap_or_default();
        let errors = result.errors.as_ref().map(|errors| errors.join(" ")).unwrap_or_default();
        Outcome::Failed(
            Trouble {
                status: result.api_error_status.or(said.status),
                text: result.result.clone().unwrap_or(errors),
                stop_reason: result.stop_reason.clone().or(said.stop_reason),
                word: said.word,
                retrying: false,
                resets_at: self.resets_at,
                own_key: self.own_key,
            }
            .failure(),
        )
    }

    /// Asked to end, the CLI goes without a result: by the signal, or with 0 if it was SIGINT.
    fn without_result(&self, exit: &ExitFacts) -> Outcome {
        let asked = exit.was_asked_to_end() || (self.began && exit.code == Some(0));
        if self.interrupted || asked {
            return Outcome::Cancelled;
        }
        let trouble =
            self.trouble.clone().unwrap_or(Trouble { text: exit.stderr.clone(), ..Trouble::default() });
        let failure = Trouble { resets_at: self.resets_at, own_key: self.own_key, ..trouble }.failure();
        if failure.kind != FailureKind::Crashed {
            return Outcome::Failed(failure);
        }
        let last = exit.stderr.lines().rev().find(|line| !line.trim().is_empty());
        Outcome::Failed(Failure::new(
            FailureKind::Crashed,
            format!(
                "Claude Code ended without a result ({}){}. Look at the run's log, then try again.",
                exit.how(),
                quote(last.unwrap_or_default())
            ),
        ))
    }
}

/// The limit that ended a turn.
fn limit(result: &RunResult) -> Option<Limit> {
    match result.subtype.as_deref()? {
        "error_max_turns" => Some(Limit::Turns),
        "error_max_budget_usd" => Some(Limit::Cost),
        _ => None,
    }
}
