use super::{Amount, Budget, BudgetUnit, Currency, ModelPrice, PriceTable, Reservation, ReservationStatus};
use crate::Micros;
use crate::runs::Constraints;
use crate::words::words;

/// What an attempt must hold of a budget: at first, and while it works.
///
/// - A run with a cap in the budget's own unit holds all of it from the start, and never lacks it later.
/// - Any other holds the worst case of one call of the model ahead of what it has used. A step at a time, since the
///   worst case of fifty calls is many times what runs use, and few budgets would admit it.
/// - A cap can be passed by the call that is in flight when it is reached, as [`Constraints`] say; what that costs is
///   recorded in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetNeed {
    /// What to reserve before the attempt begins.
    pub first: Amount,
    /// The worst case of one call of the model; 0, where it is not known.
    pub step: Amount,
    /// The most that the attempt can use, by the run's caps; no bound, if none.
    pub most: Option<Amount>,
}

/// How far a run may go, from its constraints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCaps {
    /// The most calls of the model.
    pub turns: Option<u32>,
    /// The most money, in micros of a US dollar.
    pub cost: Option<Micros>,
    /// The most tokens, read and written.
    pub tokens: Option<u64>,
}

impl From<&Constraints> for RunCaps {
    /// The caps of a run; it has none on its tokens.
    fn from(constraints: &Constraints) -> Self {
        Self {
            turns: constraints.max_turns,
            cost: constraints.max_cost_cents.map(Micros::from_cents),
            tokens: None,
        }
    }
}

words! {
    /// What is done about a run of which nobody knows what it may use.
    pub enum UnknownPrice: "unknown_price" {
        /// It is refused.
        Refuse = "refuse",
        /// It holds its cap, or nothing, and what it uses is recorded as far as it is known; the project says so.
        Admit = "admit",
    }
}

/// A run of which nobody knows what it may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NeedUnknown {
    /// The model, or which it is, is not known to the table.
    #[error(
        "nobody knows what {} costs: put its price into the table, or let the project admit unknown prices",
        model_named(model.as_deref())
    )]
    Price {
        /// The model; the provider's default, if none.
        model: Option<String>,
    },
    /// The model's largest call is not known, and the run has no cap.
    #[error(
        "nobody knows how much {} may use: put its largest call into the price table, or give the run a cap",
        model_named(model.as_deref())
    )]
    Size {
        /// The model; the provider's default, if none.
        model: Option<String>,
    },
    /// The budget's currency has no rate.
    #[error(
        "the table has no rate for {currency}: put it into `perUsd`, or give the budget another currency"
    )]
    Rate {
        /// The currency.
        currency: Currency,
    },
}

fn model_named(model: Option<&str>) -> String {
    model.map_or("the provider's default model".to_owned(), |model| format!("the model `{model}`"))
}

/// What an attempt is to do before its agent goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Let it go on: its next call is covered.
    Covered,
    /// Hold this much more first. If a budget refuses, the agent must stop: its next call may cost what is not there.
    TopUp(Amount),
    /// Stop it: its cap is used up, or its reservation is closed.
    Stop,
}

impl Budget {
    /// What an attempt must hold of this budget.
    ///
    /// - The worst case is the least of what the run's caps and the price table say: its cap in money, its tokens at
    ///   their dearest, its turns at the dearest call each.
    /// - What nobody knows is refused, unless the project says otherwise; a missing exchange rate always is.
    pub fn need(
        &self,
        model: Option<&str>,
        caps: &RunCaps,
        prices: &PriceTable,
        unknown: UnknownPrice,
    ) -> Result<BudgetNeed, NeedUnknown> {
        let price = model.and_then(|model| prices.price(model));
        let (own_cap, step, tokens, priced) = match self.unit {
            BudgetUnit::Runs => {
                let one = Amount::new(1);
                return Ok(BudgetNeed { first: one, step: Amount::ZERO, most: Some(one) });
            }
            BudgetUnit::Tokens => {
                let step = price.and_then(ModelPrice::largest_call);
                (caps.tokens.map(Amount::from), step.map(Amount::from), None, true)
            }
            BudgetUnit::Money(currency) => {
                let rate = NeedUnknown::Rate { currency };
                prices.convert(Micros::ZERO, currency).ok_or(rate)?;
                let here = |usd: Option<Micros>| {
                    usd.map(|usd| prices.convert(usd, currency).map_or(Amount::MAX, Amount::from))
                };
                let tokens = caps.tokens.and_then(|tokens| price?.dearest(tokens));
                (
                    here(caps.cost),
                    here(price.and_then(ModelPrice::dearest_call)),
                    here(tokens),
                    price.is_some(),
                )
            }
        };
        let turns = caps.turns.and_then(|turns| Some(step?.times(turns)));
        let most = [own_cap, tokens, turns].into_iter().flatten().min();
        let model = || model.map(str::to_owned);
        match unknown {
            UnknownPrice::Refuse if !priced => return Err(NeedUnknown::Price { model: model() }),
            UnknownPrice::Refuse if step.is_none() && most.is_none() => {
                return Err(NeedUnknown::Size { model: model() });
            }
            UnknownPrice::Refuse | UnknownPrice::Admit => {}
        }
        let first = if own_cap.is_some() { most } else { [step, most].into_iter().flatten().min() };
        Ok(BudgetNeed { first: first.unwrap_or_default(), step: step.unwrap_or_default(), most })
    }
}

impl BudgetNeed {
    /// What is to be done before the agent's next call of the model, which must be covered by what is held.
    pub fn next(&self, reservation: &Reservation) -> NextStep {
        let used = reservation.used();
        match reservation.status() {
            ReservationStatus::Closed => return NextStep::Stop,
            ReservationStatus::Open if self.most.is_some_and(|most| used >= most) => return NextStep::Stop,
            ReservationStatus::Open => {}
        }
        let ahead = used.plus(self.step);
        let covered = self.most.map_or(ahead, |most| ahead.min(most));
        match covered.minus(used.plus(reservation.held())) {
            Amount::ZERO => NextStep::Covered,
            missing => NextStep::TopUp(missing),
        }
    }
}
