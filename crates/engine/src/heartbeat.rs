//! Keeps the lease of an attempt, and hears what is asked of its run.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lime_core::ports::Storage;
use lime_core::runs::Lease;
use lime_core::{ErrorKind, Result};
use tokio::time::{sleep, timeout};

use crate::asked::{Asked, Stop};
use crate::config::WorkerConfig;
use crate::patience::Backoff;

/// When the first beat comes at the latest: what was asked between the claim and the first listening is heard then.
const FIRST: Duration = Duration::from_millis(500);
/// The least between two beats, however often something wakes them.
const LEAST: Duration = Duration::from_millis(50);

/// Beats until it is dropped or the lease is lost: from time to time, and at once when something may have been asked.
pub(crate) async fn beat(storage: &dyn Storage, lease: Lease, config: &WorkerConfig, asked: Asked) {
    let mut held_until = Instant::now() + config.lease;
    let mut wait = config.heartbeat.min(FIRST);
    let mut trouble = Backoff::new(LEAST, config.heartbeat);
    let mut signalled = storage.signalled(&lease);
    let mut heard = false;
    loop {
        if !heard {
            tokio::select! {
                () = &mut signalled => heard = true,
                () = sleep(wait) => {}
            }
        }
        if heard {
            asked.knock();
        }
        // Listens before it looks, so that nothing is asked unheard in between.
        signalled = storage.signalled(&lease);
        heard = (&mut signalled).now_or_never().is_some();
        let begun = Instant::now();
        // A connection that has died without a word answers after minutes; the lease is over before.
        let left = held_until.saturating_duration_since(begun);
        let Ok(beaten) = timeout(left, once(storage, lease, config, &asked)).await else {
            tracing::warn!(run = %lease.run, attempt = %lease.attempt, "no heartbeat until the lease was over");
            return asked.ask(Stop::Lost);
        };
        match beaten {
            Ok(()) => {
                held_until = begun + config.lease;
                wait = config.heartbeat;
                trouble = Backoff::new(LEAST, config.heartbeat);
            }
            Err(error) if error.kind() == ErrorKind::StaleLease => {
                tracing::warn!(run = %lease.run, attempt = %lease.attempt, "the lease is lost");
                return asked.ask(Stop::Lost);
            }
            Err(error) => {
                tracing::warn!(run = %lease.run, %error, "no heartbeat");
                wait = trouble.pause();
                if Instant::now() >= held_until {
                    return asked.ask(Stop::Lost);
                }
            }
        }
        sleep(LEAST.saturating_sub(begun.elapsed())).await;
    }
}

/// Beats once, and passes on what is asked.
pub(crate) async fn once(
    storage: &dyn Storage,
    lease: Lease,
    config: &WorkerConfig,
    asked: &Asked,
) -> Result<()> {
    let signals = storage.heartbeat(&lease, config.lease).await?;
    if signals.pause {
        asked.ask(Stop::Pause);
    }
    if signals.cancel {
        asked.ask(Stop::Cancel);
    }
    asked.inputs(signals.inputs);
    Ok(())
}
