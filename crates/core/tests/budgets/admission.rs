//! What a budget admits.

use lime_core::Id;
use lime_core::governance::{
    Amount, Budget, BudgetAccount, BudgetCounter, BudgetPeriod, BudgetSubject, EntryKind, Posting, admit,
};

use super::{budget, counter, stored, window};

#[test]
fn what_fits_is_held_and_what_does_not_is_refused_with_the_numbers() {
    let weekly = window(BudgetPeriod::Weekly);
    let subject = BudgetSubject::Project(Id::new(3));
    let budget = stored(7, Budget { subject, ..budget(50_000_000) });
    let account = BudgetAccount { budget: &budget, window: &weekly, counter: counter(40_000_000, 8_800_000) };
    assert_eq!(account.left(), Amount::new(1_200_000));
    let posted = account.admit(Amount::new(1_200_000)).unwrap();
    assert_eq!(posted.counter, counter(40_000_000, 10_000_000));
    let refused = account.admit(Amount::new(1_200_001)).unwrap_err();
    assert_eq!(
        (refused.budget, refused.spent, refused.asked),
        (Id::new(7), Amount::new(40_000_000), Amount::new(1_200_001))
    );
    assert_eq!(
        refused.to_string(),
        "the weekly budget 7 of project 3 (2026-W47) has 1.2000 USD left of 50.0000 USD, and 1.2000 USD may be needed: \
         raise its limit, or wait until 2026-11-23T00:00:00Z"
    );
}

#[test]
fn the_soft_limit_warns_once_and_a_limit_that_stops_nothing_warns_too() {
    let weekly = window(BudgetPeriod::Weekly);
    let soft = stored(1, Budget { soft_limit: Some(Amount::new(80)), ..budget(100) });
    let account = |counter| BudgetAccount { budget: &soft, window: &weekly, counter };
    assert_eq!(account(counter(0, 0)).admit(Amount::new(80)).unwrap().warning, None);
    let first = account(counter(0, 80)).admit(Amount::new(1)).unwrap();
    assert_eq!(
        first.warning.unwrap().to_string(),
        "the weekly budget 1 of tenant (2026-W47) has 0.0001 USD spent and held, above 0.0001 USD"
    );
    assert_eq!(account(first.counter).admit(Amount::new(1)).unwrap().warning, None);
    let gone = Posting { kind: EntryKind::Settle, held: 0, spent: 90 };
    assert!(account(counter(0, 0)).post(gone).warning.is_some(), "use beyond what was held warns as well");

    let open = stored(2, Budget { enforce_hard_stop: false, ..budget(10) });
    let account = BudgetAccount { budget: &open, ..account(counter(9, 0)) };
    let posted = account.admit(Amount::new(100)).unwrap();
    assert_eq!((posted.counter.held, posted.warning.is_some()), (Amount::new(100), true));
    assert_eq!(account.post(gone).exceeded, None);
}

#[test]
fn all_budgets_must_admit_and_the_lowest_id_that_refuses_is_named() {
    let weekly = window(BudgetPeriod::Weekly);
    let budgets = [stored(9, budget(10)), stored(2, budget(5)), stored(4, budget(5))];
    let ask = |amounts: [i64; 3]| {
        let asks: Vec<_> = budgets
            .iter()
            .zip(amounts)
            .map(|(budget, amount)| {
                let account = BudgetAccount { budget, window: &weekly, counter: counter(0, 0) };
                (account, Amount::new(amount))
            })
            .collect();
        admit(&asks).map_err(|refusal| refusal.budget.raw())
    };
    assert_eq!(ask([10, 5, 5]).unwrap().len(), 3);
    assert_eq!(ask([11, 5, 6]), Err(4));
    assert_eq!(ask([11, 6, 6]), Err(2));
    assert_eq!(ask([11, 5, 5]), Err(9));
    assert_eq!(admit(&[]), Ok(vec![]));
}

#[test]
fn nothing_overflows_and_nothing_begins_without_anything_left() {
    let weekly = window(BudgetPeriod::Weekly);
    let vast = stored(1, budget(i64::MAX));
    let account = BudgetAccount { budget: &vast, window: &weekly, counter: counter(i64::MAX - 1, 1) };
    assert!(account.admit(Amount::MAX).is_err() && account.admit(Amount::ZERO).is_err());
    let posting = Posting { kind: EntryKind::Settle, held: i64::MIN, spent: i64::MAX };
    assert_eq!(account.post(posting).counter, counter(i64::MAX, 0));
    let frozen = stored(1, budget(0));
    assert!(
        BudgetAccount { budget: &frozen, counter: counter(0, 0), ..account }.admit(Amount::ZERO).is_err()
    );
}

#[test]
fn an_agent_is_to_stop_when_more_is_spent_than_the_limit() {
    let weekly = window(BudgetPeriod::Weekly);
    let budget = stored(1, budget(10));
    let account = BudgetAccount { budget: &budget, window: &weekly, counter: counter(4, 6) };
    let used = |spent| account.post(Posting { kind: EntryKind::Settle, held: -6, spent }).exceeded.is_some();
    assert!(!used(6) && used(7));
}

#[test]
fn who_holds_enough_goes_on_until_the_limit_is_lowered_below_it() {
    let weekly = window(BudgetPeriod::Weekly);
    let lower = stored(7, budget(50));
    let account = |counter| BudgetAccount { budget: &lower, window: &weekly, counter };
    let before = Some(Amount::new(100));
    assert_eq!(account(counter(20, 30)).covers(before), Ok(()));
    let refused = account(counter(20, 31)).covers(before).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the weekly budget 7 of tenant (2026-W47) has 0.0000 USD left of 0.0001 USD: raise its limit, or wait until \
         2026-11-23T00:00:00Z"
    );
    assert!(account(counter(20, 31)).covers(None).is_err(), "nothing stopped it then");
    let same = Some(Amount::new(50));
    assert_eq!(account(counter(20, 31)).covers(same), Ok(()), "another one has used more than it held");
    assert!(account(counter(51, 0)).covers(same).is_err());
    let open = stored(7, Budget { enforce_hard_stop: false, ..budget(0) });
    assert_eq!(BudgetAccount { budget: &open, ..account(counter(51, 0)) }.covers(before), Ok(()));
}

#[test]
fn a_warning_is_due_until_somebody_is_warned() {
    let weekly = window(BudgetPeriod::Weekly);
    let soft = stored(1, Budget { soft_limit: Some(Amount::new(8)), ..budget(10) });
    let account = |counter| BudgetAccount { budget: &soft, window: &weekly, counter };
    assert_eq!(account(counter(8, 0)).warning(), None);
    let due = account(counter(4, 5)).warning().unwrap();
    assert!(due.told().starts_with("Budget warning: the weekly budget 1 of tenant (2026-W47) has"), "{due}");
    assert_eq!(account(BudgetCounter { warned: true, ..counter(4, 5) }).warning(), None);
}
