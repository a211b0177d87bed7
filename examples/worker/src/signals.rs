use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Refusal;

/// How often somebody has asked the worker to stop, by SIGTERM or SIGINT.
#[derive(Debug, Clone)]
pub(crate) struct Wishes(watch::Receiver<u32>);

impl Wishes {
    /// Takes the signals over from the system, which would end the process at the first.
    pub(crate) fn listen() -> Result<Self, Refusal> {
        let failed = |error| Refusal::failed(format!("the signals of the system cannot be heard: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(counted))
    }

    /// Waits until it was asked this often. Safe to cancel.
    pub(crate) async fn reach(&self, times: u32) {
        let mut counted = self.0.clone();
        if counted.wait_for(|&count| count >= times).await.is_err() {
            // The task that listens has ended with the runtime, so nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}
