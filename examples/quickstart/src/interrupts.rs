use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Refusal;

/// How often the user has asked to stop, by Ctrl-C or SIGTERM.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts(watch::Receiver<u32>);

impl Interrupts {
    /// Takes the signals over from the system, which would end the process at the first.
    pub(crate) fn listen() -> Result<Self, Refusal> {
        let failed = |error| Refusal::new(format!("the signals of the system cannot be heard: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (count, counted) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(counted))
    }

    /// Waits until the user has asked this often. Safe to cancel.
    pub(crate) async fn reach(&self, times: u32) {
        let mut counted = self.0.clone();
        if counted.wait_for(|&count| count >= times).await.is_err() {
            // The task that listens has ended with the runtime, so nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }
}
