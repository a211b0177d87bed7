//! Writing lines of JSON to the agent's stdin.

use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

/// The agent's stdin: a handle to be cloned, so that one task can write while another reads.
///
/// - A line is written whole or the stream ends: dropping the future of a write does not cut a line short.
/// - Lines are written in the order in which they were handed over.
/// - After a failed or timed out write stdin is closed, because half a line may have been written.
#[derive(Debug, Clone)]
pub struct CliInput {
    requests: mpsc::Sender<Request>,
    closed: watch::Sender<bool>,
}

/// Why a line was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Stdin is closed: by the worker, by an earlier failure, or because the agent ended.
    #[error("stdin of the agent is closed")]
    Closed,
    /// The agent did not read the line in time; stdin is closed now.
    #[error("the agent did not read its stdin for {after:?}")]
    TimedOut {
        /// How long was waited: [`write_timeout`](crate::CliLimits::write_timeout).
        after: Duration,
    },
    /// The message has no JSON form; nothing was written.
    #[error("the message cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The pipe failed, as when the agent has closed its end; stdin is closed now.
    #[error("stdin of the agent could not be written")]
    Io(#[source] std::io::Error),
}

#[derive(Debug)]
struct Request {
    line: Vec<u8>,
    done: oneshot::Sender<Result<(), WriteError>>,
}

impl CliInput {
    /// Takes the pipe into a task of its own, which ends when stdin is closed.
    pub(crate) fn new(stdin: impl AsyncWrite + Unpin + Send + 'static, timeout: Duration) -> Self {
        let (requests, queue) = mpsc::channel(1);
        let (closed, watch) = watch::channel(false);
        tokio::spawn(write_lines(stdin, queue, watch, timeout));
        Self { requests, closed }
    }

    /// Writes one message as one line of JSON, and returns when the pipe has taken it.
    ///
    /// - Cancel-safe: once handed over, the line is written even if the future is dropped.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: closed, not read in time, not encodable, or a broken pipe.
    pub async fn write_json<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), WriteError> {
        let mut line = serde_json::to_vec(message).map_err(WriteError::Encode)?;
        line.push(b'\n');
        let (done, written) = oneshot::channel();
        self.requests.send(Request { line, done }).await.map_err(|_| WriteError::Closed)?;
        written.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Writes messages as they come, until nobody sends or reads any more.
    ///
    /// - What goes wrong with the pipe ends it without an error: the agent's stdout tells why it reads no more.
    pub async fn feed<T: Serialize>(&self, mut messages: mpsc::Receiver<T>) {
        while let Some(message) = messages.recv().await {
            match self.write_json(&message).await {
                Ok(()) => {}
                Err(WriteError::Closed) => return,
                Err(error) => {
                    debug!(%error, "the agent does not read its stdin");
                    return;
                }
            }
        }
    }

    /// Closes stdin now; a write that is still waiting for the agent is given up.
    ///
    /// - Closing twice is harmless.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }
}

async fn write_lines(
    mut stdin: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Request>,
    mut closed: watch::Receiver<bool>,
    timeout: Duration,
) {
    loop {
        let request = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            request = queue.recv() => match request {
                Some(request) => request,
                None => return,
            },
        };
        let result = tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => return,
            result = tokio::time::timeout(timeout, stdin.write_all(&request.line)) => match result {
                Ok(written) => written.map_err(WriteError::Io),
                Err(_) => Err(WriteError::TimedOut { after: timeout }),
            },
        };
        let failed = result.is_err();
        let _ = request.done.send(result); // the writer may have stopped waiting
        if failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_cancelled_write_is_still_whole() {
        let (stdin, mut agent) = tokio::io::duplex(4);
        let input = CliInput::new(stdin, Duration::from_secs(5));
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, input.write_json("first line")).await.is_err());
        let second = tokio::spawn(async move { input.write_json(&2).await });
        let mut read = String::new();
        agent.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "\"first line\"\n2\n");
        second.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_is_not_waited_for() {
        let (stdin, _agent) = tokio::io::duplex(4);
        let input = CliInput::new(stdin, Duration::from_millis(20));
        assert!(matches!(input.write_json("too long").await, Err(WriteError::TimedOut { .. })));
        assert!(matches!(input.write_json(&1).await, Err(WriteError::Closed)));
    }

    #[tokio::test]
    async fn closing_gives_up_a_waiting_write() {
        let (stdin, mut agent) = tokio::io::duplex(4);
        let input = CliInput::new(stdin, Duration::from_secs(60));
        let writer = input.clone();
        let waiting = tokio::spawn(async move { writer.write_json("too long").await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        input.close();
        assert!(matches!(waiting.await.unwrap(), Err(WriteError::Closed)));
        let mut read = Vec::new();
        agent.read_to_end(&mut read).await.unwrap();
    }
}
