//! Cutting stdout into lines, in bounded memory.

use std::io::BufRead;

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is asked of the pipe at once, in bytes: what a Linux pipe holds.
const CHUNK: usize = 64 << 10;

/// One line that the agent wrote to stdout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line without its line ending; bytes that are not UTF-8 are replaced by U+FFFD.
    pub text: String,
    /// The line's true length in bytes, if it was longer than
    /// [`max_line_bytes`](crate::CliLimits::max_line_bytes) and `text` is only its beginning.
    pub truncated: Option<u64>,
}

/// Why no line could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The agent wrote more than [`max_output_bytes`](crate::CliLimits::max_output_bytes); no more is read.
    #[error("the agent wrote more than the {limit} bytes allowed to stdout")]
    OutputLimit {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The pipe could not be read.
    #[error("stdout of the agent could not be read")]
    Io(#[source] std::io::Error),
}

/// Lines pulled from a reader; every state is in the struct, so a dropped `next` loses nothing.
#[derive(Debug)]
pub(crate) struct LineReader<R> {
    source: R,
    chunk: Vec<u8>,
    at: usize,
    line: Vec<u8>,
    line_bytes: u64,
    total: u64,
    cut: u64,
    ended: bool,
    max_line: usize,
    max_total: Option<u64>,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(crate) fn new(source: R, max_line: usize, max_total: Option<u64>) -> Self {
        Self {
            source,
            chunk: Vec::with_capacity(CHUNK),
            at: 0,
            line: Vec::new(),
            line_bytes: 0,
            total: 0,
            cut: 0,
            ended: false,
            max_line,
            max_total,
        }
    }

    /// How many lines were cut so far.
    pub(crate) fn cut(&self) -> u64 {
        self.cut
    }

    /// The next line, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok((self.line_bytes > 0).then(|| self.finish_line()));
            }
            if let Some(limit) = self.max_total.filter(|limit| self.total > *limit) {
                return Err(ReadError::OutputLimit { limit });
            }
            self.fill().await.map_err(ReadError::Io)?;
        }
    }

    /// Reads and throws away whatever is left, up to the end of the stream.
    pub(crate) async fn drain(&mut self) {
        while !self.ended {
            if self.fill().await.is_err() {
                self.ended = true;
            }
        }
        self.at = self.chunk.len();
    }

    /// Replaces the used chunk by the next one; the only place that waits.
    async fn fill(&mut self) -> std::io::Result<()> {
        self.chunk.clear();
        self.at = 0;
        let read = self.source.read_buf(&mut self.chunk).await?;
        self.total += read as u64;
        self.ended = read == 0;
        Ok(())
    }

    /// Moves the chunk's bytes to the line, up to and without the next newline.
    fn take_line(&mut self) -> Option<Line> {
        let rest = &self.chunk[self.at..];
        // The standard library's way to a vectorised search; reading from a slice cannot fail.
        let used = (&mut &*rest).skip_until(b'\n').unwrap_or(rest.len());
        let (piece, ends) = match rest[..used].split_last() {
            Some((b'\n', piece)) => (piece, true),
            Some(_) | None => (&rest[..used], false),
        };
        let room = self.max_line.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        self.line_bytes += piece.len() as u64;
        self.at += used;
        ends.then(|| self.finish_line())
    }

    fn finish_line(&mut self) -> Line {
        let truncated = (self.line_bytes > self.line.len() as u64).then_some(self.line_bytes);
        self.cut += u64::from(truncated.is_some());
        self.line_bytes = 0;
        let mut bytes = std::mem::take(&mut self.line);
        if truncated.is_none() && bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Line { text, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, ReadBuf};

    async fn all(input: &[u8], max_line: usize) -> Vec<Line> {
        let mut reader = LineReader::new(input, max_line, None);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await.unwrap() {
            lines.push(line);
        }
        lines
    }

    fn whole(text: &str) -> Line {
        Line { text: text.into(), truncated: None }
    }

    #[tokio::test]
    async fn lines_end_at_newlines_and_at_the_end() {
        let lines = all(b"one\r\n\ntwo\nlast", 10).await;
        assert_eq!(lines, [whole("one"), whole(""), whole("two"), whole("last")]);
        assert_eq!(all(b"", 10).await, []);
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_says_so() {
        let lines = all(b"12345\n123456\nok\n1234567", 5).await;
        let cut = |length| Line { text: "12345".into(), truncated: Some(length) };
        assert_eq!(lines, [whole("12345"), cut(6), whole("ok"), cut(7)]);
    }

    #[tokio::test]
    async fn what_is_not_utf8_is_replaced() {
        assert_eq!(all(b"a\xffb\n", 10).await, [whole("a\u{fffd}b")]);
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let (mut writer, source) = tokio::io::duplex(64);
        let mut reader = LineReader::new(source, 100, None);
        writer.write_all(b"half ").await.unwrap();
        let wait = std::time::Duration::from_millis(10);
        assert!(tokio::time::timeout(wait, reader.next()).await.is_err());
        writer.write_all(b"whole\n").await.unwrap();
        assert_eq!(reader.next().await.unwrap(), Some(whole("half whole")));
    }

    #[tokio::test]
    async fn the_total_is_limited() {
        let mut reader = LineReader::new(&b"1234\n5678\n"[..], 100, Some(5));
        let mut read = 0;
        let error = loop {
            match reader.next().await {
                Ok(line) => read += line.map_or(0, |line| line.text.len()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ReadError::OutputLimit { limit: 5 }));
        assert!(read <= CHUNK);
        assert!(reader.next().await.is_err(), "the limit stays reached");
    }

    /// A child that writes the same letters for ever; counts what was asked of it.
    struct Flood(u64);

    impl AsyncRead for Flood {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let length = usize::try_from(self.0).unwrap().min(buffer.remaining());
            buffer.put_slice(&vec![b'x'; length]);
            self.0 -= length as u64;
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_flood_without_newline_is_never_held() {
        let mut reader = LineReader::new(Flood(50 << 20), 1000, None);
        let line = reader.next().await.unwrap().unwrap();
        assert_eq!((line.text.len(), line.truncated), (1000, Some(50 << 20)));
        assert!(reader.chunk.capacity() <= 2 * CHUNK && reader.line.capacity() <= 2 * CHUNK);
    }
}
