use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lime_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::time::Instant;

use crate::backoff::Backoff;

/// How long a connection may take to be made.
pub(crate) const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long Redis may take to answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The connection for commands: made when it is first used, shared by everybody, and made anew after it broke.
///
/// - While Redis cannot be reached, or is a replica, calls fail at once, and one of them tries again after a pause that
///   grows.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    state: Mutex<State>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts the connections, so that only the one that failed is dropped.
    epoch: u64,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("connected", &self.connection.is_some()).finish_non_exhaustive()
    }
}

/// Reads the URL of a Redis; the error does not repeat it, since it may hold a password.
pub(crate) fn client(url: &str, operation: &'static str) -> Result<Client> {
    #[cfg(feature = "tls")]
    if url.starts_with("rediss:") && rustls::crypto::CryptoProvider::get_default().is_none() {
        // Where a program has several of them, rustls wants to be told which; if it was just now, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::open(url).map_err(|error| {
        let message =
            "the URL of Redis must be like redis://:password@host:6379/0, or rediss:// with the feature tls";
        Error::new(ErrorKind::Invalid, operation, message).with("reason", error.category())
    })
}

/// What a caller outside is told when Redis fails.
pub(crate) fn unavailable(operation: &'static str, error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, operation, "Redis does not answer as it should").because(error)
}

impl Link {
    pub(crate) fn new(client: Client) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::default(), connecting: tokio::sync::Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether Redis could not be reached, and is not tried again yet.
    pub(crate) fn is_down(&self) -> bool {
        let state = self.state();
        state.connection.is_none() && state.retry_at.is_some_and(|retry_at| Instant::now() < retry_at)
    }

    /// Sends commands in one go, and gives the answer of each; one that the server refuses is an answer, too.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let (epoch, mut connection) = self.connection().await?;
        let answers = connection.send_packed_commands(commands, 0, commands.len()).await;
        match &answers {
            Ok(answers) => match answers.iter().find_map(demotion) {
                Some(error) => self.lost(epoch, &error, true),
                None => self.answered(),
            },
            Err(error) if error.is_unrecoverable_error() || error.is_timeout() || error.is_io_error() => {
                self.lost(epoch, error, false);
            }
            Err(_) => {}
        }
        answers
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        if let Some(connected) = self.connected()? {
            return Ok(connected);
        }
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(connected) = self.connected()? {
            return Ok(connected);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut state = self.state();
        match connection {
            Ok(connection) => {
                state.retry_at = None;
                state.epoch += 1;
                state.connection = Some(connection.clone());
                Ok((state.epoch, connection))
            }
            Err(error) => {
                if state.backoff.is_fresh() {
                    tracing::warn!(%error, "Redis cannot be reached; the storage behind it does its work meanwhile");
                }
                state.retry_at = Some(Instant::now() + state.backoff.next());
                Err(error)
            }
        }
    }

    fn connected(&self) -> Result<Option<(u64, MultiplexedConnection)>, RedisError> {
        let state = self.state();
        if let Some(connection) = &state.connection {
            return Ok(Some((state.epoch, connection.clone())));
        }
        match state.retry_at {
            Some(retry_at) if Instant::now() < retry_at => Err(RedisError::from((
                redis::ErrorKind::Io,
                "Redis could not be reached, and is not tried again yet",
            ))),
            _ => Ok(None),
        }
    }

    fn answered(&self) {
        if self.state().backoff.reset() {
            tracing::info!("Redis answers again");
        }
    }

    /// Drops a connection, so that it is made anew: at once, or after a pause if it would lead to the same server yet.
    fn lost(&self, epoch: u64, error: &RedisError, pause: bool) {
        let mut state = self.state();
        if state.epoch != epoch || state.connection.take().is_none() {
            return;
        }
        if state.backoff.is_fresh() {
            tracing::warn!(%error, "the connection to Redis is of no use; it is made anew");
        }
        if pause {
            state.retry_at = Some(Instant::now() + state.backoff.next());
        }
    }
}

/// That the server has become a replica, which refuses to be written to: a failover made another the one to ask.
fn demotion(answer: &Value) -> Option<RedisError> {
    match answer {
        Value::ServerError(error) if error.kind() == Some(ServerErrorKind::ReadOnly) => {
            Some(error.clone().into())
        }
        _ => None,
    }
}

/// The first answer that is an error of the server.
pub(crate) fn refusal(answers: &[Value]) -> Option<RedisError> {
    answers.iter().find_map(|answer| match answer {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    })
}
