//! `lime budget`: what is spent and held.

use chrono::{DateTime, Utc};
use lime_core::Id;
use lime_core::governance::{Amount, Budget, BudgetAccount, BudgetPeriod, BudgetUnitKind};
use lime_core::ports::{BudgetStanding, Budgets};
use serde::Serialize;

use crate::args::BudgetCommand;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::{Table, say};
use crate::text::{or_dash, stamp};
use crate::whose::Whose;

pub(crate) async fn run(desk: &Desk, command: BudgetCommand) -> Result<(), Failure> {
    match command {
        BudgetCommand::Show { all_tenants } => show(desk, all_tenants).await,
    }
}

/// A budget in one period; amounts are micros of the currency, tokens or runs, by the unit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StandingView {
    id: Id<Budget>,
    tenant: String,
    subject: String,
    period: BudgetPeriod,
    window: String,
    ends_at: Option<DateTime<Utc>>,
    unit: BudgetUnitKind,
    currency: Option<String>,
    limit: i64,
    soft_limit: Option<i64>,
    spent: i64,
    held: i64,
    left: i64,
    enforce_hard_stop: bool,
    enabled: bool,
    warned: bool,
}

#[derive(Debug, Serialize)]
struct Document {
    budgets: Vec<StandingView>,
}

impl StandingView {
    fn of(tenant: &str, standing: &BudgetStanding) -> Self {
        let BudgetStanding { budget, window, counter } = standing;
        let unit = budget.unit.kind();
        Self {
            id: budget.id,
            tenant: tenant.to_owned(),
            subject: budget.subject.to_string(),
            period: budget.period,
            window: window.key.clone(),
            ends_at: window.span.map(|(_, end)| end),
            unit,
            currency: (unit == BudgetUnitKind::Money).then(|| budget.unit.currency().to_string()),
            limit: budget.limit.get(),
            soft_limit: budget.soft_limit.map(Amount::get),
            spent: counter.spent.get(),
            held: counter.held.get(),
            left: BudgetAccount { budget, window, counter: *counter }.left().get(),
            enforce_hard_stop: budget.enforce_hard_stop,
            enabled: budget.enabled,
            warned: counter.warned,
        }
    }
}

async fn show(desk: &Desk, all_tenants: bool) -> Result<(), Failure> {
    let mut table = Table::new([
        "ID", "TENANT", "WHOSE", "WINDOW", "SPENT", "HELD", "LEFT", "LIMIT", "SOFT", "AT LIMIT", "WARNED",
        "ENDS",
    ]);
    let mut budgets = Vec::new();
    for whose in Whose::list(&desk.storage, desk.tenant.as_ref(), all_tenants).await? {
        for standing in desk.storage.standings(&whose.scope).await? {
            let view = StandingView::of(whose.slug.as_str(), &standing);
            let unit = standing.budget.unit;
            let shown = |amount: i64| unit.show(Amount::new(amount));
            let at_limit = match (view.enabled, view.enforce_hard_stop) {
                (false, _) => "disabled",
                (true, true) => "stops",
                (true, false) => "warns",
            };
            table.row([
                view.id.to_string(),
                view.tenant.clone(),
                view.subject.clone(),
                format!("{} {}", view.period, view.window),
                shown(view.spent),
                shown(view.held),
                shown(view.left),
                shown(view.limit),
                or_dash(view.soft_limit.map(shown)),
                at_limit.to_owned(),
                if view.warned { "yes" } else { "no" }.to_owned(),
                or_dash(view.ends_at.map(stamp)),
            ]);
            budgets.push(view);
        }
    }
    let document = Document { budgets };
    desk.out.answer(&document, || table.text())?;
    if !desk.out.json && document.budgets.is_empty() {
        say("There are none.");
    }
    Ok(())
}
