//! Budgets: their counters, and what attempts hold of them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{MemoryStorage, State};
use crate::governance::{
    Amount, Budget, BudgetAccount, BudgetCounter, BudgetEntry, BudgetPeriod, BudgetUnit, BudgetWindow,
    Posting, Reservation, ReservationSignal, SoftLimitPassed, TimeZone,
};
use crate::identity::Tenant;
use crate::ports::{Admission, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce};
use crate::runs::{AgentEvent, AgentRun, Lease, RunAttempt};
use crate::{Error, Id, LookupExt, Query, Result, Scope, Stored};

/// What is spent and held, and by whom.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    counters: BTreeMap<(Id<Budget>, String), BudgetCounter>,
    /// What attempts at work hold; gone with their leases.
    holdings: BTreeMap<(Id<RunAttempt>, Id<Budget>), Holding>,
}

#[derive(Debug, Clone)]
struct Holding {
    run: Id<AgentRun>,
    window: BudgetWindow,
    reservation: Reservation,
    /// The limit under which it was admitted; none, if nothing stopped it.
    admitted_under: Option<Amount>,
}

/// A demand on a budget that is there.
struct Asked {
    budget: Stored<Budget>,
    demand: BudgetDemand,
    holding: Holding,
    /// Nothing is held or used of it yet.
    is_new: bool,
}

impl Asked {
    fn missing(&self) -> Amount {
        self.demand.ahead.minus(self.holding.reservation.held())
    }
}

impl State {
    pub(super) fn budget(&self, tenant: Id<Tenant>, id: Id<Budget>) -> Option<Stored<Budget>> {
        let row = self.table_ref::<Budget>()?.rows.get(&id).filter(|row| row.tenant == tenant)?;
        let mut budget = row.stored.clone();
        budget.value.enforce_hard_stop &= budget.enabled;
        Some(budget)
    }

    fn zone(&self, operation: &'static str, tenant: Id<Tenant>) -> Result<TimeZone> {
        let found = self.tenants.iter().find(|stored| stored.id == tenant);
        let found = found.ok_or_else(|| Error::not_found(operation, "tenant", tenant))?;
        Ok(found.time_zone)
    }

    fn counter(&self, budget: Id<Budget>, window: &str) -> BudgetCounter {
        self.accounts.counters.get(&(budget, window.to_owned())).copied().unwrap_or_default()
    }

    /// Signals a reservation, and writes what comes of it.
    fn signal_budget(
        &mut self,
        lease: &Lease,
        budget: &Stored<Budget>,
        holding: &mut Holding,
        signal: ReservationSignal,
        now: DateTime<Utc>,
    ) {
        let (after, postings) =
            holding.reservation.after(signal).unwrap_or((holding.reservation, Vec::new()));
        holding.reservation = after;
        for posting in postings {
            self.post(lease, budget, &holding.window, posting, now);
        }
    }

    fn post(
        &mut self,
        lease: &Lease,
        budget: &Stored<Budget>,
        window: &BudgetWindow,
        posting: Posting,
        now: DateTime<Utc>,
    ) {
        let counter = self.counter(budget.id, &window.key);
        let posted = BudgetAccount { budget, window, counter }.post(posting).counter;
        // Whoever holds something looks for warnings once, when all is written.
        let counter = BudgetCounter { warned: counter.warned, ..posted };
        self.accounts.counters.insert((budget.id, window.key.clone()), counter);
        let entry = BudgetEntry::new(budget, window, lease.run, lease.attempt, posting);
        self.table().push(lease.tenant, now, entry);
    }

    /// The warnings that are due of budgets that were asked, which are told from now on.
    fn warn(&mut self, tenant: Id<Tenant>, asked: &[(Id<Budget>, BudgetWindow)]) -> Vec<SoftLimitPassed> {
        let mut passed = Vec::new();
        for (budget, window) in asked {
            let Some(budget) = self.budget(tenant, *budget).filter(|budget| budget.enabled) else { continue };
            let counter = self.counter(budget.id, &window.key);
            if let Some(warning) = (BudgetAccount { budget: &budget, window, counter }).warning() {
                let counter = BudgetCounter { warned: true, ..counter };
                self.accounts.counters.insert((budget.id, window.key.clone()), counter);
                passed.push(warning);
            }
        }
        passed
    }

    /// Frees what an attempt holds whose lease is over; a run that ends with it counts as one.
    pub(super) fn free_budgets(&mut self, lease: &Lease, ends: bool, now: DateTime<Utc>) {
        let of_attempt = (lease.attempt, Id::new(0))..=(lease.attempt, Id::new(i64::MAX));
        let holdings: Vec<_> = self.accounts.holdings.range(of_attempt).map(|(key, _)| *key).collect();
        for key in holdings {
            let Some(mut holding) = self.accounts.holdings.remove(&key) else { continue };
            let Some(budget) = self.budget(lease.tenant, key.1) else { continue };
            let signal = match budget.unit {
                BudgetUnit::Runs if ends => ReservationSignal::Settle(Amount::new(1)),
                BudgetUnit::Money(_) | BudgetUnit::Tokens | BudgetUnit::Runs => ReservationSignal::Release,
            };
            self.signal_budget(lease, &budget, &mut holding, signal, now);
        }
    }

    /// Forgets what a budget that is deleted has counted.
    pub(super) fn forget_budget(&mut self, budget: Id<Budget>) {
        self.accounts.counters.retain(|(of, _), _| *of != budget);
        self.accounts.holdings.retain(|(_, of), _| *of != budget);
    }

    fn hold(&mut self, lease: &Lease, demands: Vec<BudgetDemand>, now: DateTime<Utc>) -> Admission {
        let mut all = Vec::new();
        for demand in demands {
            let Some(budget) = self.budget(lease.tenant, demand.budget) else { continue };
            let known = self.accounts.holdings.get(&(lease.attempt, budget.id)).cloned();
            let is_new = known.is_none() && demand.used == Amount::ZERO;
            let mut holding = known.unwrap_or_else(|| Holding {
                run: lease.run,
                window: demand.window.clone(),
                reservation: Reservation::default(),
                admitted_under: None,
            });
            let meter = ReservationSignal::Meter(demand.used);
            self.signal_budget(lease, &budget, &mut holding, meter, now);
            if !is_new {
                self.accounts.holdings.insert((lease.attempt, budget.id), holding.clone());
            }
            all.push(Asked { budget, demand, holding, is_new });
        }
        all.sort_by_key(|asked| asked.budget.id);
        for asked in &all {
            let Holding { window, admitted_under, .. } = &asked.holding;
            let counter = self.counter(asked.budget.id, &window.key);
            let account = BudgetAccount { budget: &asked.budget, window, counter };
            let answer = if asked.is_new || asked.missing() > Amount::ZERO {
                account.admit(asked.missing()).map(|_| ())
            } else {
                account.covers(*admitted_under)
            };
            if let Err(refusal) = answer {
                return Admission::Refused(Box::new(refusal));
            }
        }
        for mut asked in all {
            let missing = asked.missing();
            if asked.is_new || missing > Amount::ZERO {
                let reserve = ReservationSignal::Reserve(missing);
                self.signal_budget(lease, &asked.budget, &mut asked.holding, reserve, now);
                asked.holding.admitted_under = asked.budget.enforce_hard_stop.then_some(asked.budget.limit);
                self.accounts.holdings.insert((lease.attempt, asked.budget.id), asked.holding);
            }
        }
        Admission::Admitted
    }
}

#[async_trait]
impl Budgets for MemoryStorage {
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce> {
        let zone = self.lock().zone("budgets.in_force", scope.tenant())?;
        let budgets = self.all(scope, Query::all().filter(Budget::ENABLED.eq(true))).await?;
        Ok(BudgetsInForce { zone, budgets })
    }

    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission> {
        let now = self.now();
        let mut state = self.lock();
        state.leased(lease, "budgets.hold", now)?;
        let asked: Vec<_> = demands.iter().map(|demand| (demand.budget, demand.window.clone())).collect();
        let admission = state.hold(lease, demands, now);
        let warnings =
            state.warn(lease.tenant, &asked).iter().map(|passed| AgentEvent::system(passed.told())).collect();
        let recorded = state.record(lease.run, warnings, now);
        drop(state);
        self.announce(&vec![(lease.run, recorded)]);
        Ok(admission)
    }

    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>> {
        const OPERATION: &str = "budgets.standings";
        let now = self.now();
        let budgets: Vec<Stored<Budget>> = self.all(scope, Query::all()).await?;
        let state = self.lock();
        let zone = state.zone(OPERATION, scope.tenant())?;
        let mut standings = Vec::new();
        for budget in budgets {
            let windows = match budget.period {
                BudgetPeriod::Run => {
                    let holdings = state.accounts.holdings.iter();
                    let of_budget = holdings.filter(|((_, of), _)| *of == budget.id);
                    of_budget.map(|(_, holding)| budget.period.window(now, zone, holding.run)).collect()
                }
                BudgetPeriod::Daily | BudgetPeriod::Weekly | BudgetPeriod::Monthly => {
                    // Which run does not matter to these.
                    vec![budget.period.window(now, zone, Id::new(0))]
                }
            };
            standings.extend(windows.into_iter().map(|window| {
                let counter = state.counter(budget.id, &window.key);
                BudgetStanding { budget: budget.clone(), window, counter }
            }));
        }
        Ok(standings)
    }
}
