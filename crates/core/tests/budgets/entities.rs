//! Budgets and entries as they are stored, and what counts as used.

use lime_core::agents::Agent;
use lime_core::governance::{
    Amount, Budget, BudgetEntry, BudgetPeriod, BudgetSubject, BudgetUnit, EntryKind, Posting, PriceTable,
};
use lime_core::planning::Project;
use lime_core::runs::Usage;
use lime_core::{Entity, Id, Micros, Value};

use super::{DOLLARS, budget, stored, window};

#[test]
fn a_budget_means_the_runs_of_its_subject() {
    let (project, agent) = (Id::<Project>::new(3), Id::<Agent>::new(7));
    let of = |subject| Budget { subject, ..budget(1) };
    assert!(of(BudgetSubject::Tenant).applies(project, None));
    assert!(of(BudgetSubject::Project(project)).applies(project, Some(agent)));
    assert!(!of(BudgetSubject::Project(Id::new(4))).applies(project, Some(agent)));
    assert!(of(BudgetSubject::Agent(agent)).applies(project, Some(agent)));
    assert!(!of(BudgetSubject::Agent(agent)).applies(project, None));
    assert!(!Budget { enabled: false, ..budget(1) }.applies(project, None));
}

#[test]
fn columns_and_rules() {
    let agents = Budget { subject: BudgetSubject::Agent(Id::new(7)), ..budget(10) };
    assert_eq!((Budget::SUBJECT.column.value)(&agents), Value::Text("agent 7".into()));
    assert_eq!((Budget::PROJECT_ID.column.value)(&agents), Value::Null);
    assert_eq!((Budget::UNIT.column.value)(&agents), Value::Text("money".into()));
    assert!(agents.validate().is_ok());
    assert!(Budget { soft_limit: Some(Amount::new(11)), ..budget(10) }.validate().is_err());
    let each_run = |unit| Budget { period: BudgetPeriod::Run, unit, ..budget(10) }.validate();
    assert!(
        each_run(DOLLARS).is_ok()
            && each_run(BudgetUnit::Tokens).is_ok()
            && each_run(BudgetUnit::Runs).is_err()
    );
    let entry = |kind, held, spent| {
        let posting = Posting { kind, held, spent };
        BudgetEntry::new(&stored(1, budget(1)), &window(BudgetPeriod::Run), Id::new(17), Id::new(2), posting)
    };
    assert_eq!(entry(EntryKind::Reserve, 1, 0).window, "run-17");
    for (kind, held, spent) in [
        (EntryKind::Reserve, 0, 0),
        (EntryKind::Reserve, 1, 1),
        (EntryKind::Settle, 1, 1),
        (EntryKind::Settle, -1, 0),
        (EntryKind::Release, 1, 0),
        (EntryKind::Release, -1, 1),
    ] {
        assert!(entry(kind, held, spent).validate().is_err(), "{kind} {held} {spent}");
    }
}

#[test]
fn what_a_run_has_used() {
    let prices = PriceTable::shipped();
    let usage = Usage { input_tokens: 1_000_000, output_tokens: 10, ..Usage::default() };
    let said = Usage { cost: Some(Micros(7)), ..usage };
    assert_eq!(
        DOLLARS.used(&said, None, &prices, true),
        Some(Amount::new(7)),
        "the provider's word comes first"
    );
    assert_eq!(DOLLARS.used(&usage, Some("gpt-5"), &prices, true), Some(Amount::new(1_250_100)));
    assert_eq!(DOLLARS.used(&usage, None, &prices, true), None);
    assert_eq!(BudgetUnit::Tokens.used(&usage, None, &prices, true), Some(Amount::new(1_000_010)));
    assert_eq!(BudgetUnit::Runs.used(&usage, None, &prices, true), Some(Amount::new(1)));
    assert_eq!(BudgetUnit::Runs.used(&usage, None, &prices, false), Some(Amount::ZERO));
    assert_eq!(BudgetUnit::Tokens.show(Amount::new(40)), "40 tokens");
}
