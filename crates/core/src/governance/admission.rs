use chrono::{DateTime, Utc};

use super::{Amount, Budget, BudgetPeriod, BudgetSubject, BudgetUnit, BudgetWindow, Posting};
use crate::{Id, Stored};

/// What is spent and held of a budget in one period.
///
/// - A store keeps one row of it for each budget and window, made when the first attempt asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetCounter {
    /// What was used.
    pub spent: Amount,
    /// What attempts hold for what they may use.
    pub held: Amount,
    /// Whether the soft limit has been warned of: it is kept with the counter, so once a period.
    pub warned: bool,
}

/// A budget in one period, as it stands.
#[derive(Debug, Clone, Copy)]
pub struct BudgetAccount<'a> {
    /// The budget.
    pub budget: &'a Stored<Budget>,
    /// The period.
    pub window: &'a BudgetWindow,
    /// What is spent and held.
    pub counter: BudgetCounter,
}

/// What a posting has done to a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// The counter afterwards, to be stored.
    pub counter: BudgetCounter,
    /// The soft limit was passed for the first time in this period: whoever stores the counter tells of it.
    pub warning: Option<SoftLimitPassed>,
    /// More is spent than the limit, which a hard stop does not let be: the agent is to be stopped.
    pub exceeded: Option<BudgetExceeded>,
}

/// A budget has not enough left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {period} budget {budget} of {subject} ({window}) has {} left of {}{}: raise its limit{}",
    unit.show(limit.minus(spent.plus(*held))), unit.show(*limit), needed(*unit, *asked), until(*ends_at)
)]
pub struct BudgetExceeded {
    /// The budget that said no.
    pub budget: Id<Budget>,
    /// Whose it is.
    pub subject: BudgetSubject,
    /// For how long.
    pub period: BudgetPeriod,
    /// What it counts.
    pub unit: BudgetUnit,
    /// The key of the period.
    pub window: String,
    /// When the next period begins; never, for a run's.
    pub ends_at: Option<DateTime<Utc>>,
    /// The limit.
    pub limit: Amount,
    /// What is spent.
    pub spent: Amount,
    /// What is held.
    pub held: Amount,
    /// What was asked for.
    pub asked: Amount,
}

/// A budget is used beyond its soft limit, or beyond its limit where that stops nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {period} budget {budget} of {subject} ({window}) has {} spent and held, above {}",
    unit.show(*committed), unit.show(*above)
)]
pub struct SoftLimitPassed {
    /// The budget.
    pub budget: Id<Budget>,
    /// Whose it is.
    pub subject: BudgetSubject,
    /// For how long.
    pub period: BudgetPeriod,
    /// What it counts.
    pub unit: BudgetUnit,
    /// The key of the period.
    pub window: String,
    /// The limit that was passed.
    pub above: Amount,
    /// What is spent and held.
    pub committed: Amount,
}

impl SoftLimitPassed {
    /// What the log of the run tells that passed it.
    pub fn told(&self) -> String {
        format!("Budget warning: {self}.")
    }
}

fn needed(unit: BudgetUnit, asked: Amount) -> String {
    match asked {
        Amount::ZERO => String::new(),
        asked => format!(", and {} may be needed", unit.show(asked)),
    }
}

fn until(end: Option<DateTime<Utc>>) -> String {
    end.map_or(String::new(), |end| format!(", or wait until {}", end.format("%Y-%m-%dT%H:%M:%SZ")))
}

/// Asks several budgets for what an attempt may need; all must admit it.
///
/// - What comes back is in the order of the accounts. Nothing is stored: a store does the same in one update, under the
///   condition that [`BudgetAccount::admit`] names, and locks its rows by the budgets' ids.
/// - Of several that refuse, the one with the lowest id is named.
pub fn admit(asks: &[(BudgetAccount<'_>, Amount)]) -> Result<Vec<Posted>, BudgetExceeded> {
    let answers: Vec<_> = asks.iter().map(|(account, asked)| account.admit(*asked)).collect();
    match answers.iter().filter_map(|answer| answer.as_ref().err()).min_by_key(|refusal| refusal.budget) {
        Some(refusal) => Err(refusal.clone()),
        None => Ok(answers.into_iter().flatten().collect()),
    }
}

impl BudgetCounter {
    /// What is spent or held.
    pub const fn committed(&self) -> Amount {
        self.spent.plus(self.held)
    }
}

impl BudgetAccount<'_> {
    /// Whether the budget has this much left, and what becomes of its counter then.
    ///
    /// - `spent + held + asked <= limit`, or no hard stop. Who asks for nothing, since nobody knows what it may cost,
    ///   must find something left all the same: 1 is compared then.
    pub fn admit(&self, asked: Amount) -> Result<Posted, BudgetExceeded> {
        let BudgetCounter { spent, held, .. } = self.counter;
        let compared = asked.max(Amount::new(1));
        // Amounts end at a maximum, where a sum is no longer exact: what does not fit is refused.
        let committed = spent.get().checked_add(held.get()).and_then(|sum| sum.checked_add(compared.get()));
        if self.budget.enforce_hard_stop && committed.is_none_or(|sum| sum > self.budget.limit.get()) {
            return Err(self.exceeded(asked));
        }
        let counter = BudgetCounter { held: held.plus(asked), ..self.counter };
        let (counter, warning) = self.warned(counter);
        Ok(Posted { counter, warning, exceeded: None })
    }

    /// Whether an attempt may go on with what it holds, which was admitted under this limit; none, if nothing stops then.
    ///
    /// - What is held was admitted, so only what is spent counts; but once the limit was lowered since, what is held must
    ///   fit into it too.
    pub fn covers(&self, admitted_under: Option<Amount>) -> Result<(), BudgetExceeded> {
        let is_lowered = admitted_under.is_none_or(|limit| self.budget.limit < limit);
        let counted = if is_lowered { self.counter.committed() } else { self.counter.spent };
        if self.budget.enforce_hard_stop && counted > self.budget.limit {
            return Err(self.exceeded(Amount::ZERO));
        }
        Ok(())
    }

    /// What an entry of the ledger does to the counter.
    pub fn post(&self, posting: Posting) -> Posted {
        let counter = BudgetCounter {
            spent: self.counter.spent.moved(posting.spent),
            held: self.counter.held.moved(posting.held),
            ..self.counter
        };
        let (counter, warning) = self.warned(counter);
        let passed = self.budget.enforce_hard_stop && counter.spent > self.budget.limit;
        let exceeded = passed.then(|| Self { counter, ..*self }.exceeded(Amount::ZERO));
        Posted { counter, warning, exceeded }
    }

    /// The warning that is due: a soft limit is passed, and nobody was warned in this period.
    pub fn warning(&self) -> Option<SoftLimitPassed> {
        self.warned(self.counter).1
    }

    /// What is neither spent nor held.
    pub fn left(&self) -> Amount {
        self.budget.limit.minus(self.counter.committed())
    }

    fn warned(&self, counter: BudgetCounter) -> (BudgetCounter, Option<SoftLimitPassed>) {
        let passed = |above: &Amount| counter.committed() > *above;
        match self.budget.warns_above().filter(passed) {
            Some(above) if !counter.warned => {
                let warning = SoftLimitPassed {
                    budget: self.budget.id,
                    subject: self.budget.subject,
                    period: self.budget.period,
                    unit: self.budget.unit,
                    window: self.window.key.clone(),
                    above,
                    committed: counter.committed(),
                };
                (BudgetCounter { warned: true, ..counter }, Some(warning))
            }
            Some(_) | None => (counter, None),
        }
    }

    fn exceeded(&self, asked: Amount) -> BudgetExceeded {
        BudgetExceeded {
            budget: self.budget.id,
            subject: self.budget.subject,
            period: self.budget.period,
            unit: self.budget.unit,
            window: self.window.key.clone(),
            ends_at: self.window.span.map(|(_, end)| end),
            limit: self.budget.limit,
            spent: self.counter.spent,
            held: self.counter.held,
            asked,
        }
    }
}
