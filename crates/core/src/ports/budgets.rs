use async_trait::async_trait;

use crate::governance::{Amount, Budget, BudgetCounter, BudgetExceeded, BudgetWindow, TimeZone};
use crate::runs::Lease;
use crate::{Id, Result, Scope, Stored};

/// What is spent and held of budgets, and who may have more of them.
///
/// - Every movement of a counter is an entry of the ledger, [`BudgetEntry`](crate::governance::BudgetEntry), in the same
///   transaction: their sums are the counter.
/// - What an attempt holds lives and dies with its lease. Whatever ends the lease, the settlement, the hand-back, or that
///   it was found lost, frees what is held in the same transaction, and counts a run that ends.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Budgets: Send + Sync {
    /// The budgets of the tenant that count, and where its days begin.
    ///
    /// - Fails with `NotFound` for a tenant that is not there.
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce>;

    /// Records what an attempt has used of budgets, and holds what it may need next: of all of them, or of none.
    ///
    /// - What it used is a total since the attempt began, and is recorded in full, also where nothing more is admitted:
    ///   the same total again, or a lower one, adds nothing.
    /// - What it shall hold is a level above that, and nothing is taken away down to it: only what is missing is asked for,
    ///   and admitted as by [`BudgetAccount::admit`](crate::governance::BudgetAccount::admit). The same call again asks for
    ///   nothing.
    /// - Where nothing is missing, it is refused all the same if
    ///   [`BudgetAccount::covers`](crate::governance::BudgetAccount::covers) says so: after its limit was lowered.
    /// - Concurrent calls never admit together what a limit does not.
    /// - A budget that is not there any more limits nothing; one that was disabled counts, and limits nothing.
    /// - Of several that refuse, the one with the lowest id is named.
    /// - The first in a period to find a soft limit passed, itself or not, has that told in the log of its run, once.
    /// - Fails with [`StaleLease`](crate::ErrorKind::StaleLease), and changes nothing, once the lease is lost or the run
    ///   has ended.
    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission>;

    /// Every budget of the tenant as it stands, in the order of their ids: in its period now, or for each run that holds
    /// something of it.
    ///
    /// - Fails with `NotFound` for a tenant that is not there.
    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>>;
}

/// The budgets of a tenant that count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetsInForce {
    /// Where the tenant's days, weeks and months begin.
    pub zone: TimeZone,
    /// The budgets, in the order of their ids.
    pub budgets: Vec<Stored<Budget>>,
}

/// What an attempt has used of a budget, and may need next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetDemand {
    /// The budget.
    pub budget: Id<Budget>,
    /// The period in which the attempt began.
    pub window: BudgetWindow,
    /// What the attempt has used, all in all.
    pub used: Amount,
    /// What it shall hold beyond that.
    pub ahead: Amount,
}

/// What budgets say to a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// What was asked for is held.
    Admitted,
    /// This one has not enough left; nothing more is held of any.
    Refused(Box<BudgetExceeded>),
}

/// A budget in one period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetStanding {
    /// The budget.
    pub budget: Stored<Budget>,
    /// The period.
    pub window: BudgetWindow,
    /// What is spent and held in it.
    pub counter: BudgetCounter,
}
