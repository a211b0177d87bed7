use lime_core::runs::{Lease, RunStatus};
use lime_core::{Error, Result, Scope};
use sea_orm::{ConnectionTrait, Value};

use crate::error::unnamed;
use crate::storage::sql;

/// The states in quotes, for `IN (…)`.
pub(crate) fn words(states: impl IntoIterator<Item = RunStatus>) -> String {
    states.into_iter().map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ")
}

/// The condition on `run_queue AS place` that a lease whose attempt has begun still holds, on the database's clock.
///
/// - It does not name the state, which has a partial index: right after many runs were taken, while the planner
///   believes that few are, it would read all of that index for each lease.
pub(crate) const HELD: &str = "place.started AND place.lease_expires_at > clock_timestamp()";

/// The values of a lease: tenant, run, token.
pub(crate) fn key<const N: usize>(lease: &Lease, more: [Value; N]) -> impl Iterator<Item = Value> {
    [lease.tenant.raw().into(), lease.run.raw().into(), lease.attempt.raw().into()].into_iter().chain(more)
}

/// Proves the fence of a scope, if it has one, and holds it until the transaction ends: nobody can take the lease
/// away before what is written under it is there.
///
/// - `FOR SHARE`, since that keeps others from changing the row, which `FOR KEY SHARE` does not, and lets others of
///   the same attempt prove it at once.
pub(crate) async fn hold(db: &impl ConnectionTrait, scope: &Scope, operation: &'static str) -> Result<()> {
    let Some(lease) = scope.fence() else { return Ok(()) };
    if lease.tenant != scope.tenant() {
        return Err(Error::stale_lease(operation, lease));
    }
    let held = format!(
        "SELECT place.run_id FROM run_queue AS place
         WHERE place.tenant_id = $1 AND place.run_id = $2 AND place.token = $3 AND {HELD} FOR SHARE"
    );
    match db.query_one_raw(sql(held, key(lease, []))).await.map_err(|error| unnamed(operation, &error))? {
        Some(_) => Ok(()),
        None => Err(Error::stale_lease(operation, lease)),
    }
}
