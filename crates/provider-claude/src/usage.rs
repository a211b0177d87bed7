use std::collections::VecDeque;

use lime_core::Micros;
use lime_core::runs::Usage;

use crate::wire::{ModelTokens, RunResult, Tokens};

/// How many messages are remembered, so that a later line about one of them counts only what is new.
///
/// - One message has a line for its start, one for each block and one for its end; those of sub-agents that
///   work side by side come in between.
const RECENT: usize = 64;

/// What a process has used, from what each of its messages says and from what it says in the end.
///
/// - The end is right: it knows retries and side calls. Until then, and where an interrupted turn ends with
///   zeros, the sum over the messages stands in; nobody knows its cost.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// As the last result line said.
    reported: Usage,
    /// The sum over the messages since then.
    since: Usage,
    recent: VecDeque<(String, Usage)>,
}

impl Tally {
    /// Counts what a message says that it used so far.
    pub(crate) fn message(&mut self, id: &str, tokens: &Tokens) {
        let now = Usage {
            turns: 1,
            ..count(
                &tokens.input_tokens,
                &tokens.cache_read_input_tokens,
                &tokens.cache_creation_input_tokens,
                &tokens.output_tokens,
            )
        };
        let before = match self.recent.iter().position(|(known, _)| known == id) {
            Some(at) => self.recent.remove(at).map(|(_, before)| before).unwrap_or_default(),
            None => Usage::default(),
        };
        let now = larger(before, now);
        self.since = self.since.plus(Usage {
            turns: now.turns - before.turns,
            input_tokens: now.input_tokens - before.input_tokens,
            cached_input_tokens: now.cached_input_tokens - before.cached_input_tokens,
            cache_write_tokens: now.cache_write_tokens - before.cache_write_tokens,
            output_tokens: now.output_tokens - before.output_tokens,
            cost: None,
        });
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((id.to_owned(), now));
    }

    /// Takes the totals of a result line: tokens and cost since the process began, turns of this one.
    pub(crate) fn result(&mut self, result: &RunResult) {
        let turns = self.reported.turns.saturating_add(result.num_turns.unwrap_or(0));
        let models = result.model_usage.as_ref().filter(|models| !models.is_empty());
        let totals = match models {
            Some(models) => models.values().map(of_model).fold(Usage::default(), Usage::plus),
            None => self.since,
        };
        let silent = models.is_none() && (totals.input_tokens > 0 || totals.output_tokens > 0);
        let cost = result.total_cost_usd.as_ref().and_then(|cost| Micros::from_decimal(&cost.to_string()));
        self.reported = Usage {
            turns,
            cost: if silent { None } else { cost },
            ..if models.is_none() { self.reported.plus(totals) } else { totals }
        };
        self.since = Usage::default();
        self.recent.clear();
    }

    /// All in all, as far as it is known.
    pub(crate) fn total(&self) -> Usage {
        self.reported.plus(self.since)
    }
}

fn of_model(tokens: &ModelTokens) -> Usage {
    count(
        &tokens.input_tokens,
        &tokens.cache_read_input_tokens,
        &tokens.cache_creation_input_tokens,
        &tokens.output_tokens,
    )
}

fn count(fresh: &Option<u64>, read: &Option<u64>, written: &Option<u64>, output: &Option<u64>) -> Usage {
    let [fresh, read, written, output] = [fresh, read, written, output].map(|tokens| tokens.unwrap_or(0));
    Usage {
        turns: 0,
        input_tokens: fresh.saturating_add(read).saturating_add(written),
        cached_input_tokens: read,
        cache_write_tokens: written,
        output_tokens: output,
        cost: None,
    }
}

/// Each count as large as in either; a line about the end of a message may leave its input out.
fn larger(a: Usage, b: Usage) -> Usage {
    Usage {
        turns: a.turns.max(b.turns),
        input_tokens: a.input_tokens.max(b.input_tokens),
        cached_input_tokens: a.cached_input_tokens.max(b.cached_input_tokens),
        cache_write_tokens: a.cache_write_tokens.max(b.cache_write_tokens),
        output_tokens: a.output_tokens.max(b.output_tokens),
        cost: None,
    }
}
