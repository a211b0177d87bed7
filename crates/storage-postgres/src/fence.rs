use lime_core::runs::{Lease, RunStatus};
use lime_core::{Error, Result, Scope};
use sea_orm::sea_query::{Expr, ExprTrait, LockType, Query, SelectStatement, SimpleExpr};
use sea_orm::{ConnectionTrait, Value};

use crate::error::unnamed;

/// The states in quotes, for `IN (…)`.
pub(crate) fn words(states: impl IntoIterator<Item = RunStatus>) -> String {
    states.into_iter().map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ")
}

/// The condition on `run_leases AS place` that a lease whose attempt has begun still holds, on the database's clock.
pub(crate) const HELD: &str = "place.started AND place.expires_at > clock_timestamp()";

/// A condition on what is `given` in arrays that every run there is fulfils, and that the planner takes for one in two
/// hundred: it then looks each run up by its id, instead of reading all runs for the few of a call.
pub(crate) const FEW: &str = "given.run_id BETWEEN 1 AND 9223372036854775807";

/// The condition that a `place` is that of a `given` lease.
pub(crate) const ITS: &str =
    "place.run_id = given.run_id AND place.tenant_id = given.tenant_id AND place.token = given.token";

/// The places of leases that are `given`, as far as the condition holds, each looked up and locked by itself in the order
/// in which they are given: by their ids, as everybody locks places.
///
/// - Not by a join: right after an idle time the planner believes that `run_leases` has next to nothing, and would compare
///   all that is there with all that is given. What is written then is written by [`change`] for the same reason.
pub(crate) fn places(columns: &str, condition: &str, lock: &str) -> String {
    format!(
        "CROSS JOIN LATERAL (
             SELECT {columns} FROM run_leases AS place
             WHERE {ITS} AND {condition} {lock}
         ) AS place
         WHERE {FEW}"
    )
}

/// The columns of a place.
const COLUMNS: [&str; 15] = [
    "run_id",
    "tenant_id",
    "project_id",
    "agent_id",
    "provider",
    "priority",
    "queued_at",
    "inputs",
    "token",
    "started",
    "cancel_requested",
    "pause_requested",
    "last_seq",
    "expires_at",
    "due_at",
];

/// Writes some columns anew of places that are locked, which `from` has with all their columns.
pub(crate) fn change(from: &str, changes: &[(&str, &str)]) -> String {
    let value = |column| changes.iter().find(|(name, _)| *name == column).map_or(column, |(_, value)| *value);
    let set: Vec<_> = changes.iter().map(|(column, _)| format!("{column} = excluded.{column}")).collect();
    format!(
        "INSERT INTO run_leases ({}) SELECT {} FROM {from} ON CONFLICT (run_id) DO UPDATE SET {}",
        COLUMNS.join(", "),
        COLUMNS.map(value).join(", "),
        set.join(", ")
    )
}

/// Where to look for the place of a run of which it is not known whether a worker has it: its row may move from one
/// table to the other while one waits for its lock.
pub(crate) const PLACES: [&str; 4] = ["run_leases", "run_queue", "run_leases", "run_queue"];

/// The values of a lease: tenant, run, token.
pub(crate) fn key<const N: usize>(lease: &Lease, more: [Value; N]) -> impl Iterator<Item = Value> {
    [lease.tenant.raw().into(), lease.run.raw().into(), lease.attempt.raw().into()].into_iter().chain(more)
}

/// The proof of a scope's fence, for a `WHERE`: whether its lease holds, which nobody can take away before what is
/// written under it is there.
///
/// - `FOR SHARE`, since that keeps others from changing the row, which `FOR KEY SHARE` does not, and lets others of
///   the same attempt prove it at once.
fn proof(lease: &Lease) -> SelectStatement {
    Query::select()
        .expr(Expr::val(1))
        .from_as("run_leases", "place")
        .and_where(Expr::col(("place", "tenant_id")).eq(lease.tenant.raw()))
        .and_where(Expr::col(("place", "run_id")).eq(lease.run.raw()))
        .and_where(Expr::col(("place", "token")).eq(lease.attempt.raw()))
        .and_where(Expr::cust(HELD))
        .lock(LockType::Share)
        .take()
}

/// The lease that a scope is fenced by, if it is.
fn of<'a>(scope: &'a Scope, operation: &'static str) -> Result<Option<&'a Lease>> {
    match scope.fence() {
        Some(lease) if lease.tenant != scope.tenant() => Err(Error::stale_lease(operation, lease)),
        fence => Ok(fence),
    }
}

/// The condition under which a statement may write by itself: the proof of the scope's fence, if it has one.
///
/// - It knows no column of what is written, so that it is evaluated once, before anything is written.
pub(crate) fn condition(scope: &Scope, operation: &'static str) -> Result<Option<SimpleExpr>> {
    Ok(of(scope, operation)?.map(|lease| Expr::exists(proof(lease))))
}

/// Proves the fence of a scope, if it has one, and holds it until the transaction ends.
pub(crate) async fn hold(db: &impl ConnectionTrait, scope: &Scope, operation: &'static str) -> Result<()> {
    let Some(lease) = of(scope, operation)? else { return Ok(()) };
    match db.query_one(&proof(lease)).await.map_err(|error| unnamed(operation, &error))? {
        Some(_) => Ok(()),
        None => Err(Error::stale_lease(operation, lease)),
    }
}
