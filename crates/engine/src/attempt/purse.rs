//! What an attempt holds and uses of the budgets that mean its run.

use std::time::Duration;

use lime_core::governance::{
    Amount, Budget, BudgetNeed, BudgetWindow, NeedUnknown, NextStep, PriceTable, Reservation,
    ReservationSignal, RunCaps, UnknownPrice,
};
use lime_core::ports::{Admission, BudgetDemand, BudgetsInForce};
use lime_core::runs::{AgentRun, Limit, Usage};
use lime_core::{Micros, Result, Stored};
use tokio::time::Instant;

use super::Attempt;
use super::dialogue::Dialogue;
use super::watchdog::Reached;
use crate::patience::persist;
use crate::recorder::Recorder;

/// How often an agent at work is held against the limits, which somebody may have lowered.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// How long an agent has for its end when it may not go on: what it has used last may have been all that it wanted.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(250);

/// The budgets that mean a run, and what its attempt holds of them; none, for most runs.
#[derive(Debug)]
pub(super) struct Purse {
    accounts: Vec<Account>,
    caps: RunCaps,
    unknown: UnknownPrice,
    /// What the run was asked to use; the agent may say which it is.
    model: Option<String>,
    next_check: Option<Instant>,
}

#[derive(Debug)]
struct Account {
    budget: Stored<Budget>,
    window: BudgetWindow,
    reservation: Reservation,
    /// Whether something was admitted of it.
    is_open: bool,
}

impl Purse {
    /// A purse for an attempt whose run has used this much before.
    pub(super) fn new(
        run: &Stored<AgentRun>,
        in_force: &BudgetsInForce,
        unknown: UnknownPrice,
        model: Option<String>,
        used: Usage,
    ) -> Self {
        let accounts = in_force
            .budgets
            .iter()
            .filter(|budget| budget.applies(run.project_id, run.agent_id))
            .map(|budget| Account {
                budget: budget.clone(),
                // The store's clock, when the attempt began.
                window: budget.period.window(run.updated_at, in_force.zone, run.id),
                reservation: Reservation::default(),
                is_open: false,
            })
            .collect();
        let caps = RunCaps::from(&run.constraints);
        let spent = used.cost.unwrap_or_default();
        let cost = caps.cost.map(|most| Micros(most.0.saturating_sub(spent.0).max(0)));
        Self { accounts, caps: RunCaps { cost, ..caps }, unknown, model, next_check: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// When the limits are to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_check
    }

    /// No agent works any more.
    pub(super) fn rest(&mut self) {
        self.next_check = None;
    }

    /// The model by which usage is priced: what the agent says it is, once it has.
    fn model<'a>(&'a self, told: Option<&'a str>) -> Option<&'a str> {
        told.or(self.model.as_deref())
    }

    /// What is to be asked for before the agent's next call, or why there must be none.
    fn ahead(
        &self,
        usage: &Usage,
        told: Option<&str>,
        prices: &PriceTable,
    ) -> Result<Vec<BudgetDemand>, Broke> {
        let model = self.model(told);
        let demand = |account: &Account| {
            let need = account.budget.need(model, &self.caps, prices, self.unknown)?;
            account.demand(usage, model, prices, Some(&need)).ok_or(Broke::CapReached)
        };
        self.accounts.iter().map(demand).collect()
    }

    /// What was used since it was last told, with nothing more to be held.
    fn used(&self, usage: &Usage, told: Option<&str>, prices: &PriceTable) -> Vec<BudgetDemand> {
        let model = self.model(told);
        self.accounts
            .iter()
            .filter(|account| account.is_open)
            .filter_map(|account| {
                let demand = account.demand(usage, model, prices, None)?;
                (demand.used > account.reservation.used()).then_some(demand)
            })
            .collect()
    }

    /// Keeps what was asked for, as the store does.
    fn keep(&mut self, demands: &[BudgetDemand], admitted: bool) {
        for account in &mut self.accounts {
            let Some(demand) = demands.iter().find(|demand| demand.budget == account.budget.id) else {
                continue;
            };
            account.signal(ReservationSignal::Meter(demand.used));
            if admitted {
                let missing = demand.ahead.minus(account.reservation.held());
                account.signal(ReservationSignal::Reserve(missing));
                account.is_open = true;
            }
        }
    }
}

impl Account {
    fn signal(&mut self, signal: ReservationSignal) {
        // It is open for as long as the attempt works.
        if let Ok((after, _)) = self.reservation.after(signal) {
            self.reservation = after;
        }
    }

    /// What to ask for; none, once the run's own caps are used up.
    fn demand(
        &self,
        usage: &Usage,
        model: Option<&str>,
        prices: &PriceTable,
        need: Option<&BudgetNeed>,
    ) -> Option<BudgetDemand> {
        // What nobody can price stays what it was; a project that admits such runs said so. Runs count as they end.
        let used = self.budget.unit.used(usage, model, prices, false).unwrap_or(self.reservation.used());
        let Ok((metered, _)) = self.reservation.after(ReservationSignal::Meter(used)) else { return None };
        let ahead = match need.map(|need| (need, need.next(&metered))) {
            None => Amount::ZERO,
            Some((_, NextStep::Stop)) => return None,
            Some((need, _)) if !self.is_open => need.first.minus(used),
            Some((_, NextStep::Covered)) => metered.held(),
            Some((_, NextStep::TopUp(missing))) => metered.held().plus(missing),
        };
        Some(BudgetDemand { budget: self.budget.id, window: self.window.clone(), used, ahead })
    }
}

/// Why an agent may not go on.
#[derive(Debug)]
enum Broke {
    CapReached,
    Unknown(NeedUnknown),
}

impl From<NeedUnknown> for Broke {
    fn from(unknown: NeedUnknown) -> Self {
        Self::Unknown(unknown)
    }
}

impl Attempt {
    /// Holds what the agent may need next of every budget, and settles what it has used; gives why it may not go on.
    ///
    /// - While the storage does not answer it waits; the lease ends that, and whoever wants the run to stop.
    pub(super) async fn afford(
        &self,
        recorder: &mut Recorder,
        dialogue: &mut Dialogue,
    ) -> Result<Option<Reached>> {
        let purse = &mut dialogue.purse;
        if purse.is_empty() {
            return Ok(None);
        }
        purse.next_check = Some(Instant::now() + CHECK_EVERY);
        let usage = recorder.usage();
        let prices = &self.parts.prices;
        let demands = match purse.ahead(&usage, recorder.model(), prices) {
            Ok(demands) => demands,
            Err(Broke::CapReached) => return Ok(Some(Reached::cost())),
            Err(Broke::Unknown(unknown)) => return Ok(Some(broke(&unknown))),
        };
        let lease = &self.claim.lease;
        let hold = persist(|| self.parts.storage.hold(lease, demands.clone()));
        let admission = tokio::select! {
            admission = recorder.during(hold) => admission?,
            _ = self.asked.stopped() => return Ok(None),
        };
        purse.keep(&demands, admission == Admission::Admitted);
        Ok(match admission {
            Admission::Admitted => None,
            Admission::Refused(refusal) => Some(broke(&*refusal)),
        })
    }

    /// Settles what the agent has used, once it has come to its end.
    pub(super) async fn pay(&self, recorder: &mut Recorder, dialogue: &mut Dialogue) -> Result<()> {
        let purse = &mut dialogue.purse;
        purse.rest();
        let demands = purse.used(&recorder.usage(), recorder.model(), &self.parts.prices);
        if demands.is_empty() {
            return Ok(());
        }
        // What budgets say to it makes no difference any more: it has been used.
        persist(|| self.parts.storage.hold(&self.claim.lease, demands.clone())).await?;
        purse.keep(&demands, false);
        Ok(())
    }
}

fn broke(why: &dyn std::fmt::Display) -> Reached {
    Reached { limit: Limit::Budget, message: format!("A budget stops this run: {why}.") }
}
