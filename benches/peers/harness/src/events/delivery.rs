//! From one who publishes to many who listen.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::Outcome;

/// How many listen.
pub(super) const SUBSCRIBERS: usize = 50;
/// How long it is quiet between two messages.
pub(super) const PAUSE: Duration = Duration::from_millis(5);
/// How many messages are published in one measurement; each is heard by all.
const MESSAGES: u32 = 300;
/// Messages before them that don't count: they warm up everybody.
const WARM: u32 = 20;
/// How long one message may be on its way.
const LIMIT: Duration = Duration::from_secs(5);

/// How long each message took to each subscriber, from the call that publishes it; `heard` says when each heard one.
pub(super) async fn delivering(
    heard: &mut mpsc::UnboundedReceiver<Instant>,
    mut publish: impl AsyncFnMut() -> Outcome<()>,
) -> Outcome<Vec<Duration>> {
    let mut took = Vec::new();
    for number in 0..WARM + MESSAGES {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        publish().await?;
        for _ in 0..SUBSCRIBERS {
            let at = tokio::time::timeout(LIMIT, heard.recv()).await.map_err(|_| "a message was lost")?;
            let at = at.ok_or("the subscribers have ended")?;
            if number >= WARM {
                took.push(at.saturating_duration_since(began));
            }
        }
    }
    Ok(took)
}
