//! What the agents sent, kept for a test to look at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::HeaderMap;
use bytes::Bytes;
use serde_json::Value;

/// What stands in the place of a secret header's value.
const REDACTED: &str = "[redacted]";

/// Parts of a header's name that mark its value as a secret.
const SECRET_WORDS: [&str; 5] = ["auth", "key", "token", "cookie", "secret"];

/// One request that the server received.
///
/// - The values of headers that may carry a secret (any whose name holds `auth`, `key`, `token`, `cookie` or
///   `secret`) are `[redacted]`, and were never stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RecordedRequest {
    /// The HTTP method, in capitals.
    pub method: String,
    /// The path and query, with the script's prefix: `/s/main/v1/messages?beta=true`.
    pub path: String,
    /// The name of the script that was asked; `None` when the path names none.
    pub script: Option<String>,
    /// What the server took the request for.
    pub kind: RequestKind,
    /// The headers, with names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// The JSON body; `Null` when it was empty or not JSON.
    pub body: Value,
}

impl RecordedRequest {
    /// Finds a header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the server took a request for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestKind {
    /// A request for this turn of the script, from 0; a retry asks for the same one again.
    Turn(usize),
    /// A request beside the conversation, which uses up no turn.
    Side,
    /// A request to count tokens.
    CountTokens,
    /// Anything else: a probe of the address, or a path that is not served.
    Other,
}

/// The newest requests, within limits of number and size.
#[derive(Debug)]
pub(crate) struct Record {
    kept: Mutex<Kept>,
    max_requests: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    entries: VecDeque<Entry>,
    bytes: usize,
    count: u64,
}

/// A request as it is kept: its body is read as JSON only when someone looks.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) script: Option<String>,
    pub(crate) kind: RequestKind,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Record {
    pub(crate) fn new(max_requests: usize, max_bytes: usize) -> Self {
        Self { kept: Mutex::default(), max_requests, max_bytes }
    }

    /// Keeps a request, and lets the oldest go where a limit is passed.
    pub(crate) fn keep(&self, entry: Entry) {
        let mut kept = self.lock();
        kept.count += 1;
        kept.bytes += entry.size();
        kept.entries.push_back(entry);
        while kept.entries.len() > self.max_requests || kept.bytes > self.max_bytes {
            let Some(oldest) = kept.entries.pop_front() else {
                break;
            };
            kept.bytes -= oldest.size();
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    pub(crate) fn requests(&self) -> Vec<RecordedRequest> {
        self.lock().entries.iter().map(Entry::read).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.path.len() + headers + self.body.len()
    }

    fn read(&self) -> RecordedRequest {
        RecordedRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            script: self.script.clone(),
            kind: self.kind,
            headers: self.headers.clone(),
            body: serde_json::from_slice(&self.body).unwrap_or(Value::Null),
        }
    }
}

/// Copies headers, without their secrets.
pub(crate) fn redacted(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let secret = SECRET_WORDS.iter().any(|word| name.as_str().contains(word));
            let value = if secret { REDACTED.into() } else { String::from_utf8_lossy(value.as_bytes()) };
            (name.as_str().to_owned(), value.into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, body: &'static str) -> Entry {
        Entry {
            method: "POST".into(),
            path: path.into(),
            script: None,
            kind: RequestKind::Other,
            headers: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn the_oldest_requests_go_first() {
        let record = Record::new(2, 1_000);
        for path in ["/1", "/2", "/3"] {
            record.keep(entry(path, "{}"));
        }
        assert_eq!(record.count(), 3);
        let paths: Vec<_> = record.requests().into_iter().map(|request| request.path).collect();
        assert_eq!(paths, ["/2", "/3"]);
    }

    #[test]
    fn a_request_beyond_the_size_limit_is_only_counted() {
        let record = Record::new(10, 8);
        record.keep(entry("/1", "\"0123456789\""));
        assert_eq!((record.count(), record.requests().len()), (1, 0));
        record.keep(entry("/2", "{}"));
        assert_eq!(record.requests().len(), 1);
    }
}
