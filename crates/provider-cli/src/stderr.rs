//! Keeping the end of stderr while never letting the agent wait on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

/// A task that reads all of stderr, and the ring it fills.
#[derive(Debug)]
pub(crate) struct StderrTail {
    ring: Arc<Mutex<Ring>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Ring {
    bytes: VecDeque<u8>,
    room: usize,
    dropped: u64,
}

impl StderrTail {
    pub(crate) fn new(stderr: impl AsyncRead + Unpin + Send + 'static, room: usize) -> Self {
        let ring = Arc::new(Mutex::new(Ring { bytes: VecDeque::new(), room, dropped: 0 }));
        let task = tokio::spawn(drain(stderr, Arc::clone(&ring)));
        Self { ring, task }
    }

    /// Waits until stderr has ended, but no longer than `bound`.
    pub(crate) async fn settle(&mut self, bound: Duration) {
        if !self.task.is_finished() {
            let _ = tokio::time::timeout(bound, &mut self.task).await; // the tail so far is the answer
        }
    }

    /// The tail so far, and how many bytes before it were dropped.
    pub(crate) fn snapshot(&self) -> (String, u64) {
        let ring = lock(&self.ring);
        let bytes: Vec<u8> = ring.bytes.iter().copied().collect();
        (String::from_utf8_lossy(&bytes).into_owned(), ring.dropped)
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ring {
    fn push(&mut self, bytes: &[u8]) {
        let keep = &bytes[bytes.len().saturating_sub(self.room)..];
        let over = (self.bytes.len() + keep.len()).saturating_sub(self.room);
        self.bytes.drain(..over);
        self.bytes.extend(keep);
        self.dropped += (bytes.len() - keep.len() + over) as u64;
    }
}

/// The ring is whole between any two statements, so a panic elsewhere cannot have spoilt it.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn drain(mut stderr: impl AsyncRead + Unpin, ring: Arc<Mutex<Ring>>) {
    let mut chunk = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
        lock(&ring).push(&chunk[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_kept_and_the_rest_counted() {
        let mut tail = StderrTail::new(&b"0123456789"[..], 4);
        tail.settle(Duration::from_secs(5)).await;
        assert_eq!(tail.snapshot(), ("6789".to_owned(), 6));
    }

    #[test]
    fn the_ring_never_outgrows_its_room() {
        let mut ring = Ring { bytes: VecDeque::new(), room: 3, dropped: 0 };
        for piece in ["a", "bc", "d", "", "efghij", "k"] {
            ring.push(piece.as_bytes());
            assert!(ring.bytes.len() <= 3);
        }
        assert_eq!(ring.bytes, b"ijk");
        assert_eq!(ring.dropped, 8);
    }
}
