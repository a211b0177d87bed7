//! What somebody has to do from time to time: room for the events of the coming months.

use std::time::Duration;

use assembly_lime::postgres::PgStorage;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How often; a random tenth is added, so that workers that began together do not come together.
const EVERY: Duration = Duration::from_secs(3_600);

/// Keeps the database up until it is told to stop; a failure is tried again next time.
///
/// - Every worker does it, and the storage lets one at a time through, which leaves the others nothing to do.
pub(crate) async fn keep_up(storage: PgStorage, stop: CancellationToken) {
    loop {
        tokio::select! {
            done = storage.maintain() => match done {
                Ok(done) => tracing::debug!(?done, "maintained"),
                Err(error) => tracing::warn!(error = %error.report(), "the database could not be maintained"),
            },
            () = stop.cancelled() => return,
        }
        tokio::select! {
            () = sleep(EVERY.mul_f64(1.0 + fastrand::f64() / 10.0)) => {}
            () = stop.cancelled() => return,
        }
    }
}
