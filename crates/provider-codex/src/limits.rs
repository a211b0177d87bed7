//! The limits of a run, which Codex itself does not know.

use lime_core::Micros;
use lime_core::runs::{Constraints, Failure, FailureKind, Limit, Usage};

/// The most calls of the model and the most money that a run may use.
///
/// - A call in flight cannot be stopped at the limit: the cost can be passed by one call, and so can the turns
///   if the model asked for a tool that it does not have.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    max_turns: Option<u32>,
    max_cost: Option<Micros>,
}

impl Limits {
    pub(crate) fn of(constraints: Option<&Constraints>) -> Self {
        Self {
            max_turns: constraints.and_then(|constraints| constraints.max_turns),
            max_cost: constraints.and_then(|constraints| constraints.max_cost_cents).map(Micros::from_cents),
        }
    }

    /// The limit that ends the run now, if it is to go on with another call.
    pub(crate) fn reached(&self, usage: &Usage, goes_on: bool) -> Option<Limit> {
        if let Some(max) = self.max_turns
            && (usage.turns > max || (usage.turns == max && goes_on))
        {
            return Some(Limit::Turns);
        }
        match (self.max_cost, usage.cost) {
            (Some(max), Some(cost)) if cost >= max && goes_on => Some(Limit::Cost),
            _ => None,
        }
    }

    /// Why a run on a model whose price is not known cannot be held to its limits: one that is not kept is worse
    /// than no run.
    pub(crate) fn objection(&self, unpriced_model: &str) -> Option<Failure> {
        self.max_cost.map(|_| {
            let message = format!(
                "The price of {unpriced_model} is not known, so constraints.maxCostCents cannot be kept. Add the model \
                 to the price table, or leave the limit out."
            );
            Failure::new(FailureKind::InvalidRequest, message)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(turns: u32, cost: i64) -> Usage {
        Usage { turns, cost: Some(Micros(cost)), ..Usage::default() }
    }

    #[test]
    fn a_limit_ends_only_what_goes_on() {
        let limits = Limits { max_turns: Some(2), max_cost: Some(Micros(100)) };
        assert_eq!(limits.reached(&used(1, 99), true), None);
        assert_eq!(limits.reached(&used(2, 0), true), Some(Limit::Turns));
        assert_eq!(limits.reached(&used(2, 0), false), None);
        assert_eq!(limits.reached(&used(3, 0), false), Some(Limit::Turns));
        assert_eq!(limits.reached(&used(1, 100), true), Some(Limit::Cost));
        assert_eq!(limits.reached(&used(1, 100), false), None);
        assert_eq!(Limits::default().reached(&used(9, 9_000), true), None);
    }

    #[test]
    fn a_price_that_is_not_known_is_an_objection_only_to_a_limit() {
        let limited = Limits { max_turns: None, max_cost: Some(Micros(1)) };
        assert!(limited.objection("m").is_some());
        assert!(Limits::default().objection("m").is_none());
    }
}
