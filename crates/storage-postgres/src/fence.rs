use std::sync::LazyLock;

use lime_core::runs::{Lease, RunSignal, RunStatus};
use lime_core::{Error, Result, Scope};
use sea_orm::{ConnectionTrait, Value};

use crate::error::unnamed;
use crate::storage::sql;

/// The states in quotes, for `IN (…)`.
pub(crate) fn words(states: impl IntoIterator<Item = RunStatus>) -> String {
    states.into_iter().map(|status| format!("'{status}'")).collect::<Vec<_>>().join(", ")
}

/// The states in which a run has a lease: those from which it can be handed back.
pub(crate) static LEASED_STATES: LazyLock<String> = LazyLock::new(|| words(RunSignal::HandBack.sources()));

/// The condition on `agent_runs` that a lease holds, on the database's clock; [`key`] are its `$1` to `$3`.
pub(crate) static LEASED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "tenant_id = $1 AND id = $2 AND attempt_id = $3 AND status IN ({}) AND lease_expires_at > clock_timestamp()",
        *LEASED_STATES
    )
});

/// The values of [`LEASED`], followed by those of the statement around it.
pub(crate) fn key<const N: usize>(lease: &Lease, more: [Value; N]) -> impl Iterator<Item = Value> {
    [lease.tenant.raw().into(), lease.run.raw().into(), lease.attempt.raw().into()].into_iter().chain(more)
}

/// Proves the fence of a scope, if it has one, and holds it until the transaction ends: nobody can take the lease
/// away before what is written under it is there.
pub(crate) async fn hold(db: &impl ConnectionTrait, scope: &Scope, operation: &'static str) -> Result<()> {
    let Some(lease) = scope.fence() else { return Ok(()) };
    if lease.tenant != scope.tenant() {
        return Err(Error::stale_lease(operation, lease));
    }
    let held = sql(format!("SELECT id FROM agent_runs WHERE {} FOR SHARE", *LEASED), key(lease, []));
    match db.query_one_raw(held).await.map_err(|error| unnamed(operation, &error))? {
        Some(_) => Ok(()),
        None => Err(Error::stale_lease(operation, lease)),
    }
}
