use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{PubSub, PubSubSink};
use redis::{Client, RedisError, Value};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::backoff::Backoff;
use crate::link::{ANSWER_WITHIN, CONNECT_WITHIN};

/// What one who listens to a channel learns.
#[derive(Clone, Copy)]
pub(crate) enum Heard<'a> {
    /// From now on everything is heard; what was said before may have been missed.
    Listening,
    /// Somebody said this.
    Said(&'a [u8]),
}

type Listener = Arc<dyn Fn(Heard<'_>) + Send + Sync>;

/// The one connection of a process for all that it listens to; made when somebody first listens, and again after it
/// broke.
pub(crate) struct Ear {
    shared: Arc<Shared>,
    client: Client,
    /// The other end, until the task takes it.
    changes: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    task: Mutex<Option<AbortHandle>>,
}

struct Shared {
    channels: Mutex<HashMap<String, Channel>>,
    changed: mpsc::UnboundedSender<String>,
}

#[derive(Default)]
struct Channel {
    listeners: Vec<(u64, Listener)>,
    next: u64,
    /// Whether Redis has confirmed it.
    confirmed: bool,
}

/// Somebody who listens to a channel; dropped, it does so no longer.
pub(crate) struct Listening {
    shared: Arc<Shared>,
    channel: String,
    id: u64,
}

impl Ear {
    pub(crate) fn new(client: Client) -> Self {
        let (changed, changes) = mpsc::unbounded_channel();
        let shared = Shared { channels: Mutex::default(), changed };
        Self { shared: Arc::new(shared), client, changes: Mutex::new(Some(changes)), task: Mutex::default() }
    }

    /// Listens to a channel, from when Redis has confirmed it.
    ///
    /// - What the listener does must be quick: everybody else waits for it.
    pub(crate) fn listen(
        &self,
        channel: String,
        listener: impl Fn(Heard<'_>) + Send + Sync + 'static,
    ) -> Listening {
        let listener: Listener = Arc::new(listener);
        let (id, confirmed) = {
            let mut channels = self.shared.channels();
            let entry = channels.entry(channel.clone()).or_default();
            entry.next += 1;
            entry.listeners.push((entry.next, listener.clone()));
            (entry.next, entry.confirmed)
        };
        if confirmed {
            listener(Heard::Listening);
        } else {
            // Nobody receives it only if the task has ended with the whole.
            let _ = self.shared.changed.send(channel.clone());
        }
        self.start();
        Listening { shared: self.shared.clone(), channel, id }
    }

    /// Whether all that is said to a channel is heard at present.
    pub(crate) fn hears(&self, channel: &str) -> bool {
        self.shared.channels().get(channel).is_some_and(|channel| channel.confirmed)
    }

    fn start(&self) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(changes) = changes {
            let task = tokio::spawn(self.shared.clone().hear(self.client.clone(), changes));
            *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut channels = self.shared.channels();
        let Some(entry) = channels.get_mut(&self.channel) else { return };
        entry.listeners.retain(|(id, _)| *id != self.id);
        if entry.listeners.is_empty() {
            channels.remove(&self.channel);
            let _ = self.shared.changed.send(self.channel.clone());
        }
    }
}

impl Shared {
    /// How many channels are named in one command.
    const AT_ONCE: usize = 1_000;
    /// How often Redis is asked whether it is still there.
    const PING_EVERY: Duration = Duration::from_secs(5);

    fn channels(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn hear(self: Arc<Self>, client: Client, mut changes: mpsc::UnboundedReceiver<String>) {
        let mut backoff = Backoff::default();
        loop {
            // Who listens begins with all channels there are; changes from before say nothing more.
            while changes.try_recv().is_ok() {}
            let broken = match timeout(CONNECT_WITHIN, client.get_async_pubsub()).await {
                Ok(Ok(pubsub)) => self.hear_on(pubsub, &mut changes, &mut backoff).await,
                Ok(Err(error)) => error,
                Err(_) => late(),
            };
            self.channels().values_mut().for_each(|channel| channel.confirmed = false);
            if backoff.is_fresh() {
                tracing::warn!(error = %broken, "nothing is heard from Redis; it is connected to anew");
            }
            sleep(backoff.next()).await;
        }
    }

    fn is_confirmed(&self, channel: &str) -> bool {
        self.channels().get(channel).is_some_and(|channel| channel.confirmed)
    }

    /// Listens until the connection breaks.
    async fn hear_on(
        &self,
        pubsub: PubSub,
        changes: &mut mpsc::UnboundedReceiver<String>,
        backoff: &mut Backoff,
    ) -> RedisError {
        let (mut sink, mut said) = pubsub.split();
        let mut on = HashSet::new();
        let wanted: Vec<String> = self.channels().keys().cloned().collect();
        if let Err(error) = self.agree(&mut sink, &mut on, wanted).await {
            return error;
        }
        let mut ping = interval(Self::PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = said.next() => match message {
                    Some(message) => self.tell(message.get_channel_name(), Heard::Said(message.get_payload_bytes())),
                    None => return RedisError::from((redis::ErrorKind::Io, "the connection was closed")),
                },
                change = changes.recv() => {
                    let mut changed: Vec<String> = change.into_iter().collect();
                    while changed.len() < Self::AT_ONCE && let Ok(more) = changes.try_recv() {
                        changed.push(more);
                    }
                    if let Err(error) = self.agree(&mut sink, &mut on, changed).await {
                        return error;
                    }
                }
                _ = ping.tick() => match timeout(ANSWER_WITHIN, sink.ping::<Value>()).await {
                    Ok(Ok(_)) => { backoff.reset(); }
                    Ok(Err(error)) => return error,
                    Err(_) => return late(),
                },
            }
        }
    }

    /// Brings what Redis sends us into line with what is wanted, as far as these channels go.
    async fn agree(
        &self,
        sink: &mut PubSubSink,
        on: &mut HashSet<String>,
        changed: Vec<String>,
    ) -> Result<(), RedisError> {
        let (wanted, unwanted): (Vec<_>, Vec<_>) = {
            let channels = self.channels();
            changed.into_iter().partition(|channel| channels.contains_key(channel))
        };
        let off: Vec<_> = unwanted.into_iter().filter(|channel| on.remove(channel)).collect();
        let (new, still): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|channel| on.insert(channel.clone()));
        for off in off.chunks(Self::AT_ONCE) {
            timeout(ANSWER_WITHIN, sink.unsubscribe(off)).await.map_err(|_| late())??;
        }
        for new in new.chunks(Self::AT_ONCE) {
            timeout(ANSWER_WITHIN, sink.subscribe(new)).await.map_err(|_| late())??;
            for channel in new {
                self.tell(channel, Heard::Listening);
            }
        }
        // Left and taken up again before that was looked at: it was never off.
        for channel in still.iter().filter(|channel| !self.is_confirmed(channel)) {
            self.tell(channel, Heard::Listening);
        }
        Ok(())
    }

    fn tell(&self, channel: &str, heard: Heard<'_>) {
        let listeners: Vec<Listener> = {
            let mut channels = self.channels();
            let Some(channel) = channels.get_mut(channel) else { return };
            if matches!(heard, Heard::Listening) {
                channel.confirmed = true;
            }
            channel.listeners.iter().map(|(_, listener)| listener.clone()).collect()
        };
        listeners.iter().for_each(|listener| listener(heard));
    }
}

fn late() -> RedisError {
    RedisError::from((redis::ErrorKind::Io, "Redis did not answer in time"))
}
