//! From the settings to the end.

use std::sync::Arc;
use std::time::Duration;

use assembly_lime::Worker;
use futures_util::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::assemble::Assembled;
use crate::exit::{Exit, Refusal};
use crate::http;
use crate::settings::Settings;
use crate::signals::Wishes;
use crate::upkeep;

/// How long each of what is left in the end may take, which are tasks, the runtime and traces; agents are gone by then.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(2);
/// How long runs may take to be handed back, their agents' ends included; the database may not answer.
///
/// With three times [`LAST_WAIT`] it is the 15 s after the grace that `docs/operate.md` asks service managers for.
const HANDING_BACK: Duration = Duration::from_secs(9);
/// For how many polls and heartbeats the queue may be silent before the worker is not ready, and at least this long.
const SILENT: u32 = 3;
const LEAST_SILENCE: Duration = Duration::from_secs(15);

/// Works until it is told to stop, and leaves nothing behind.
pub(crate) async fn work(settings: Settings) -> Result<Exit, Refusal> {
    let wishes = Wishes::listen()?;
    let listener = http::listen(settings.http_addr).await?;
    let address = listener.local_addr().map_err(|error| Refusal::failed(error.to_string()))?;
    let assembled = tokio::select! {
        assembled = Assembled::new(&settings) => assembled?,
        () = wishes.reach(1) => return Ok(Exit::Stopped),
    };
    let Settings { worker: config, grace, .. } = settings;
    let most_silence = (config.poll.max(config.heartbeat) * SILENT).max(LEAST_SILENCE);
    let (drain, hand_back, stop) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (name, concurrency) = (config.name.clone(), config.concurrency);
    let worker = Worker::new(&assembled.factory, config)?;
    let storage = assembled.storage.clone();
    let kept_up = tokio::spawn(upkeep::keep_up(storage.clone(), stop.clone()));
    let relayed = assembled.relay(stop.clone());
    let report = Arc::new(assembled.report(most_silence, drain.clone()));
    let served = tokio::spawn(http::serve(listener, report, stop.clone()));
    tracing::info!(name = name.as_str(), concurrency, http = %address, "working");

    let stopping = tokio::spawn(stop_in_time(wishes, grace, drain.clone(), hand_back.clone()));
    let mut working = tokio::spawn(worker.run(drain, hand_back.clone()));
    let ended = tokio::select! {
        ended = &mut working => ended,
        () = overdue(hand_back) => {
            working.abort();
            working.await
        }
    };
    stopping.abort();
    stop.cancel();
    let others = async {
        join_all([Some(served), Some(kept_up), relayed].into_iter().flatten()).await;
        storage.close().await;
    };
    if timeout(LAST_WAIT, others).await.is_err() {
        tracing::debug!("a task or a connection takes too long to end, and is left");
    }
    match ended {
        Ok(()) => {
            tracing::info!("stopped");
            Ok(Exit::Stopped)
        }
        Err(error) if error.is_cancelled() => {
            let why = "it took too long to hand runs back; others take them up once their leases run out";
            Err(Refusal::failed(why))
        }
        Err(error) => Err(Refusal::failed(format!("the worker ended badly: {error}"))),
    }
}

/// Comes when runs should have been handed back by now.
async fn overdue(hand_back: CancellationToken) {
    hand_back.cancelled().await;
    sleep(HANDING_BACK).await;
}

/// Ends the worker when it is asked to: at first nothing new, then, after the grace or when asked again, nothing at all.
async fn stop_in_time(
    wishes: Wishes,
    grace: Duration,
    drain: CancellationToken,
    hand_back: CancellationToken,
) {
    wishes.reach(1).await;
    tracing::info!(grace_secs = grace.as_secs(), "stopping: nothing new is taken");
    drain.cancel();
    tokio::select! {
        () = sleep(grace) => tracing::info!("the time is up: runs are handed back"),
        () = wishes.reach(2) => tracing::info!("asked again: runs are handed back"),
    }
    hand_back.cancel();
}
