//! Budgets: what is in force, what attempts hold of them, and how they stand.
//!
//! - All that moves a counter is in two functions of the database, `budgets_hold` and `budgets_free`: the counters are
//!   locked for one statement, and never while the network is waited for.

mod hold;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lime_core::governance::{Amount, Budget, BudgetCounter, BudgetPeriod, BudgetWindow, TimeZone};
use lime_core::identity::Tenant;
use lime_core::ports::{Admission, BudgetDemand, BudgetStanding, Budgets, BudgetsInForce};
use lime_core::runs::Lease;
use lime_core::{Entity, Error, ErrorKind, Id, Result, Scope, Stored};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, QueryResult};
use tracing::Instrument;

pub(crate) use self::hold::{Holder, holder};
use crate::PgStorage;
use crate::error::unnamed;
use crate::storage::{span, sql};
use crate::store::read;
use crate::tables::budget::Model;

/// The zone of a tenant and the time, and its budgets that fulfil a condition.
async fn budgets(
    db: &impl ConnectionTrait,
    operation: &'static str,
    tenant: Id<Tenant>,
    condition: &str,
) -> Result<(TimeZone, DateTime<Utc>, Vec<Stored<Budget>>)> {
    let statement = format!(
        "SELECT tenant.time_zone, clock_timestamp() AS clock, budget.*
         FROM tenants AS tenant LEFT JOIN project_budgets AS budget ON budget.tenant_id = tenant.id AND {condition}
         WHERE tenant.id = $1 ORDER BY budget.id"
    );
    let rows = db.query_all_raw(sql(statement, [tenant.raw().into()])).await;
    let rows = rows.map_err(|error| unnamed(operation, &error))?;
    let first = rows.first().ok_or_else(|| Error::not_found(operation, "tenant", tenant))?;
    let columns =
        |row: &QueryResult| Ok((row.try_get::<String>("", "time_zone")?, row.try_get("", "clock")?));
    let (zone, clock) = columns(first).map_err(|error: DbErr| unnamed(operation, &error))?;
    let zone = TimeZone::parse(&zone).map_err(|invalid| {
        let message = format!("the tenant's time zone {zone} is not known to this version: {invalid}");
        Error::new(ErrorKind::Corrupt, operation, message)
    })?;
    let mut found = Vec::new();
    for row in &rows {
        let is_there: Option<i64> = row.try_get("", "id").map_err(|error| unnamed(operation, &error))?;
        if is_there.is_some() {
            let model = Model::from_query_result(row, "").map_err(|error| unnamed(operation, &error))?;
            found.push(read::<Budget>(operation, model)?);
        }
    }
    Ok((zone, clock, found))
}

/// What is spent and held of budgets in windows; nothing, where there is no counter yet.
async fn counters(
    db: &impl ConnectionTrait,
    operation: &'static str,
    tenant: Id<Tenant>,
    of: &[(Stored<Budget>, BudgetWindow)],
) -> Result<Vec<BudgetCounter>> {
    let budgets: Vec<i64> = of.iter().map(|(budget, _)| budget.id.raw()).collect();
    let windows: Vec<String> = of.iter().map(|(_, window)| window.key.clone()).collect();
    let statement = "SELECT coalesce(counter.spent, 0) AS spent, coalesce(counter.held, 0) AS held,
            coalesce(counter.warned, FALSE) AS warned
        FROM UNNEST((SELECT $2), $3) WITH ORDINALITY AS given (budget_id, key, place)
        LEFT JOIN budget_counters AS counter ON counter.tenant_id = $1 AND counter.budget_id = given.budget_id
            AND counter.\"window\" = given.key
        ORDER BY given.place";
    let rows = db.query_all_raw(sql(statement, [tenant.raw().into(), budgets.into(), windows.into()])).await;
    let counter = |row: &QueryResult| {
        Ok(BudgetCounter {
            spent: Amount::new(row.try_get("", "spent")?),
            held: Amount::new(row.try_get("", "held")?),
            warned: row.try_get("", "warned")?,
        })
    };
    let counters = rows.and_then(|rows| rows.iter().map(counter).collect());
    counters.map_err(|error: DbErr| unnamed(operation, &error))
}

/// The runs that hold something of budgets for each run.
async fn runs_at_work(
    db: &impl ConnectionTrait,
    operation: &'static str,
    tenant: Id<Tenant>,
) -> Result<Vec<(i64, i64)>> {
    let statement =
        "SELECT DISTINCT budget_id, run_id FROM budget_reservations WHERE tenant_id = $1 ORDER BY 1, 2";
    let rows = db.query_all_raw(sql(statement, [tenant.raw().into()])).await;
    let pair = |row: &QueryResult| Ok((row.try_get("", "budget_id")?, row.try_get("", "run_id")?));
    let pairs = rows.and_then(|rows| rows.iter().map(pair).collect());
    pairs.map_err(|error: DbErr| unnamed(operation, &error))
}

#[async_trait]
impl Budgets for PgStorage {
    async fn budgets_in_force(&self, scope: &Scope) -> Result<BudgetsInForce> {
        const OPERATION: &str = "budgets.in_force";
        let span = span(OPERATION, scope.tenant(), Budget::TABLE);
        let db = self.connection_of(scope);
        let found = budgets(&db, OPERATION, scope.tenant(), "budget.enabled").instrument(span);
        let (zone, _, budgets) = found.await?;
        Ok(BudgetsInForce { zone, budgets })
    }

    async fn hold(&self, lease: &Lease, demands: Vec<BudgetDemand>) -> Result<Admission> {
        hold::hold(self, lease, demands).await
    }

    async fn standings(&self, scope: &Scope) -> Result<Vec<BudgetStanding>> {
        const OPERATION: &str = "budgets.standings";
        let tenant = scope.tenant();
        let look = async {
            let db = &self.connection_of(scope);
            let (zone, now, budgets) = budgets(db, OPERATION, tenant, "TRUE").await?;
            let at_work = runs_at_work(db, OPERATION, tenant).await?;
            let mut of = Vec::new();
            for budget in budgets {
                match budget.period {
                    BudgetPeriod::Run => {
                        let runs = at_work.iter().filter(|(of, _)| *of == budget.id.raw());
                        of.extend(runs.map(|(_, run)| {
                            (budget.clone(), budget.period.window(now, zone, Id::new(*run)))
                        }));
                    }
                    BudgetPeriod::Daily | BudgetPeriod::Weekly | BudgetPeriod::Monthly => {
                        // Which run does not matter to these.
                        let window = budget.period.window(now, zone, Id::new(0));
                        of.push((budget, window));
                    }
                }
            }
            let counters = counters(db, OPERATION, tenant, &of).await?;
            let standing = |((budget, window), counter)| BudgetStanding { budget, window, counter };
            Ok(of.into_iter().zip(counters).map(standing).collect())
        };
        look.instrument(span(OPERATION, tenant, Budget::TABLE)).await
    }
}
