//! What runs must hold.

use lime_core::Micros;
use lime_core::governance::{
    Amount, Budget, BudgetAccount, BudgetCounter, BudgetNeed, BudgetPeriod, BudgetUnit, Currency,
    NeedUnknown, NextStep, PriceTable, Reservation, ReservationSignal as Signal, RunCaps, UnknownPrice,
};
use lime_core::runs::Constraints;
use proptest::prelude::*;

use super::{DOLLARS, budget, stored, window};

fn prices() -> PriceTable {
    serde_json::from_value(serde_json::json!({
        "asOf": "2026-11-22",
        "models": {
            "sized": { "input": 1_000_000, "cachedInput": 100_000, "cacheWrite": 2_000_000, "output": 5_000_000,
                       "maxInputTokens": 200_000, "maxOutputTokens": 64_000 },
            "unsized": { "input": 1_000_000, "cachedInput": 100_000, "output": 5_000_000 },
        },
        "perUsd": { "EUR": 900_000 },
    }))
    .unwrap()
}

fn need(
    unit: BudgetUnit,
    model: &str,
    caps: RunCaps,
    unknown: UnknownPrice,
) -> Result<(i64, i64, Option<i64>), NeedUnknown> {
    let budget = Budget { unit, ..budget(1) };
    let need = budget.need(Some(model), &caps, &prices(), unknown)?;
    Ok((need.first.get(), need.step.get(), need.most.map(Amount::get)))
}

const NONE: RunCaps = RunCaps { turns: None, cost: None, tokens: None };
/// 200,000 tokens at 2 dollars a million, and 64,000 at 5.
const CALL: i64 = 400_000 + 320_000;

#[test]
fn a_run_holds_its_cap_or_a_call_ahead() {
    let refuse = UnknownPrice::Refuse;
    let money = |caps| need(DOLLARS, "sized", caps, refuse).unwrap();
    assert_eq!(money(NONE), (CALL, CALL, None));
    assert_eq!(money(RunCaps { turns: Some(50), ..NONE }), (CALL, CALL, Some(50 * CALL)));
    let cost = Some(Micros::from_cents(500));
    assert_eq!(money(RunCaps { turns: Some(50), cost, ..NONE }), (5_000_000, CALL, Some(5_000_000)));
    assert_eq!(money(RunCaps { turns: Some(2), cost, ..NONE }), (2 * CALL, CALL, Some(2 * CALL)));
    assert_eq!(money(RunCaps { tokens: Some(100_000), ..NONE }), (500_000, CALL, Some(500_000)));
    let euro = BudgetUnit::Money(Currency::parse("EUR").unwrap());
    assert_eq!(
        need(euro, "sized", RunCaps { cost, ..NONE }, refuse),
        Ok((4_500_000, CALL * 9 / 10, Some(4_500_000)))
    );
    assert_eq!(need(BudgetUnit::Tokens, "sized", NONE, refuse), Ok((264_000, 264_000, None)));
    let tokens = RunCaps { tokens: Some(1_000_000), ..NONE };
    assert_eq!(need(BudgetUnit::Tokens, "nobody", tokens, refuse), Ok((1_000_000, 0, Some(1_000_000))));
    assert_eq!(need(BudgetUnit::Runs, "nobody", NONE, refuse), Ok((1, 0, Some(1))));
}

#[test]
fn what_nobody_knows_is_refused_unless_the_project_says_otherwise() {
    let cap = RunCaps { cost: Some(Micros::from_cents(100)), ..NONE };
    let nobody = || Some("nobody".to_owned());
    for caps in [NONE, cap] {
        let refused = need(DOLLARS, "nobody", caps, UnknownPrice::Refuse).unwrap_err();
        assert_eq!(refused, NeedUnknown::Price { model: nobody() });
    }
    let refused = need(DOLLARS, "unsized", NONE, UnknownPrice::Refuse).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "nobody knows how much the model `unsized` may use: put its largest call into the price table, \
         or give the run a cap"
    );
    let refused = need(BudgetUnit::Tokens, "nobody", NONE, UnknownPrice::Refuse).unwrap_err();
    assert_eq!(refused, NeedUnknown::Size { model: nobody() });
    assert_eq!(need(DOLLARS, "unsized", cap, UnknownPrice::Refuse), Ok((1_000_000, 0, Some(1_000_000))));
    assert_eq!(need(DOLLARS, "nobody", cap, UnknownPrice::Admit), Ok((1_000_000, 0, Some(1_000_000))));
    assert_eq!(need(DOLLARS, "nobody", NONE, UnknownPrice::Admit), Ok((0, 0, None)));
    let yen = Currency::parse("JPY").unwrap();
    let refused = need(BudgetUnit::Money(yen), "sized", cap, UnknownPrice::Admit).unwrap_err();
    assert_eq!(refused, NeedUnknown::Rate { currency: yen });
    let default = budget(1).need(None, &NONE, &prices(), UnknownPrice::Refuse).unwrap_err();
    assert!(
        default.to_string().starts_with("nobody knows what the provider's default model costs"),
        "{default}"
    );
    let constraints = Constraints { max_cost_cents: Some(100), max_turns: Some(7), ..Constraints::default() };
    assert_eq!(RunCaps::from(&constraints), RunCaps { turns: Some(7), ..cap });
}

#[test]
fn a_call_is_covered_before_it_is_made() {
    let need = BudgetNeed { first: Amount::new(10), step: Amount::new(10), most: Some(Amount::new(25)) };
    let go = |before: Reservation, signal| before.after(signal).unwrap().0;
    let n = Amount::new;
    let mut reservation = Reservation::default();
    assert_eq!(need.next(&reservation), NextStep::TopUp(n(10)));
    reservation = go(reservation, Signal::Reserve(need.first));
    assert_eq!(need.next(&reservation), NextStep::Covered);
    reservation = go(reservation, Signal::Meter(n(4)));
    assert_eq!(need.next(&reservation), NextStep::TopUp(n(4)));
    reservation = go(go(reservation, Signal::Reserve(n(4))), Signal::Meter(n(18)));
    assert_eq!(
        need.next(&reservation),
        NextStep::TopUp(n(7)),
        "no further than the cap, and beside what was over"
    );
    reservation = go(go(reservation, Signal::Reserve(n(7))), Signal::Meter(n(24)));
    assert_eq!(need.next(&reservation), NextStep::Covered);
    assert_eq!(need.next(&go(reservation, Signal::Meter(n(25)))), NextStep::Stop);
    assert_eq!(need.next(&go(reservation, Signal::Release)), NextStep::Stop);
}

proptest! {
    /// If each call costs at most a step, and is made only when covered, nothing is ever used that was not held.
    #[test]
    fn who_asks_before_each_call_uses_nothing_that_is_not_held(
        step in 1..50_i64, limit in 0..500_i64, calls in prop::collection::vec(0..50_i64, 0..30),
    ) {
        let weekly = window(BudgetPeriod::Weekly);
        let budget = stored(1, budget(limit));
        let need = BudgetNeed { first: Amount::new(step), step: Amount::new(step), most: None };
        let (mut counter, mut reservation) = (BudgetCounter::default(), Reservation::default());
        for call in calls {
            let mut signals = Vec::new();
            match need.next(&reservation) {
                NextStep::Covered => {}
                NextStep::TopUp(missing) => {
                    let account = BudgetAccount { budget: &budget, window: &weekly, counter };
                    if account.admit(missing).is_err() {
                        prop_assert!(reservation.used().get() + step > limit, "it stops only where it must");
                        break;
                    }
                    signals.push(Signal::Reserve(missing));
                }
                NextStep::Stop => unreachable!(),
            }
            signals.push(Signal::Meter(reservation.used().plus(Amount::new(call.min(step)))));
            for signal in signals {
                let (after, postings) = reservation.after(signal).unwrap();
                reservation = after;
                for posting in postings {
                    counter = BudgetAccount { budget: &budget, window: &weekly, counter }.post(posting).counter;
                }
            }
        }
        prop_assert_eq!(reservation.over(), Amount::ZERO);
        prop_assert!(counter.committed() <= budget.limit);
    }
}
