//! Budgets: admission, reservations and the ledger, against a plain model; and what runs must hold.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

mod admission;
mod entities;
mod model;
mod need;
mod reservation;

use chrono::{DateTime, Utc};
use lime_core::governance::{
    Amount, Budget, BudgetCounter, BudgetPeriod, BudgetSubject, BudgetUnit, BudgetWindow, Currency, TimeZone,
};
use lime_core::{Id, Stored};

const DOLLARS: BudgetUnit = BudgetUnit::Money(Currency::USD);

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

fn window(period: BudgetPeriod) -> BudgetWindow {
    period.window(at("2026-11-22T12:00:00Z"), TimeZone::UTC, Id::new(17))
}

fn stored(id: i64, value: Budget) -> Stored<Budget> {
    let now = at("2026-11-22T12:00:00Z");
    Stored { id: Id::new(id), version: 1, created_at: now, updated_at: now, value }
}

fn budget(limit: i64) -> Budget {
    Budget::new(BudgetSubject::Tenant, BudgetPeriod::Weekly, DOLLARS, Amount::new(limit))
}

fn counter(spent: i64, held: i64) -> BudgetCounter {
    BudgetCounter { spent: Amount::new(spent), held: Amount::new(held), warned: false }
}
