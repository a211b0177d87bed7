//! What is in the stream, and how Redis answers a reader of it.

use std::time::Duration;

use lime_core::Id;
use lime_core::runs::Lease;
use redis::Value;

/// An entry of the stream: a lease, and how long it is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The stream's own id of it: the time on the clock of Redis, and a number.
    pub(crate) id: Vec<u8>,
    pub(crate) lease: Lease,
    /// When it is over, in milliseconds on the clock of Redis.
    pub(crate) until_ms: u64,
}

impl Entry {
    /// How much is left of its time.
    pub(crate) fn left(&self, now_ms: u64) -> Option<Duration> {
        let left = self.until_ms.saturating_sub(now_ms);
        (left > 0).then(|| Duration::from_millis(left))
    }
}

/// The text of a lease that is good for so long.
pub(crate) fn text(lease: &Lease, time_ms: u64) -> String {
    format!("{}.{}.{}.{time_ms}", lease.tenant, lease.run, lease.attempt)
}

fn read(id: Vec<u8>, text: &[u8]) -> Option<Entry> {
    let mut numbers = std::str::from_utf8(text).ok()?.split('.').map(str::parse::<i64>);
    let mut number = || numbers.next()?.ok().filter(|number| *number >= 0);
    let lease = Lease { tenant: Id::new(number()?), run: Id::new(number()?), attempt: Id::new(number()?) };
    let time_ms = u64::try_from(number()?).ok()?;
    let pushed_ms: u64 = std::str::from_utf8(&id).ok()?.split_once('-')?.0.parse().ok()?;
    Some(Entry { id, lease, until_ms: pushed_ms.saturating_add(time_ms) })
}

/// A list of entries, and the ids of those that nobody can read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub(crate) good: Vec<Entry>,
    pub(crate) bad: Vec<Vec<u8>>,
}

impl Entries {
    /// The entries of `[[id, [field, value]], …]`; one that was deleted meanwhile has nothing behind its id.
    pub(crate) fn read(answer: Value) -> Self {
        let mut entries = Self::default();
        let Value::Array(items) = answer else { return entries };
        for item in items {
            let Value::Array(item) = item else { continue };
            let mut item = item.into_iter();
            let Some(Value::BulkString(id)) = item.next() else { continue };
            let text = match item.next() {
                Some(Value::Array(fields)) => fields.into_iter().nth(1),
                _ => None,
            };
            let entry = match text {
                Some(Value::BulkString(text)) => read(id.clone(), &text),
                _ => None,
            };
            match entry {
                Some(entry) => entries.good.push(entry),
                None => entries.bad.push(id),
            }
        }
        entries
    }

    /// The entries of an answer to XREADGROUP on one stream: `[[key, entries]]`, or nothing.
    pub(crate) fn of_one_stream(answer: Value) -> Self {
        let first = |value: Value| match value {
            Value::Array(items) => items.into_iter().next(),
            _ => None,
        };
        match first(answer) {
            Some(Value::Array(stream)) => stream.into_iter().nth(1).map(Self::read).unwrap_or_default(),
            _ => Self::default(),
        }
    }
}

/// The answer to TIME, in milliseconds.
pub(crate) fn time_ms(answer: &Value) -> Option<u64> {
    let number = |value: &Value| match value {
        Value::BulkString(digits) => std::str::from_utf8(digits).ok()?.parse::<u64>().ok(),
        _ => None,
    };
    match answer {
        Value::Array(parts) => Some(number(parts.first()?)? * 1_000 + number(parts.get(1)?)? / 1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn lease() -> Lease {
        Lease { tenant: Id::new(1), run: Id::new(i64::MAX), attempt: Id::new(3) }
    }

    fn item(text: &str) -> Value {
        Value::Array(vec![bulk("1700000000000-5"), Value::Array(vec![bulk("l"), bulk(text)])])
    }

    #[test]
    fn a_lease_comes_back_as_it_was() {
        let text = text(&lease(), 1_500);
        let answer = Value::Array(vec![Value::Array(vec![bulk("key"), Value::Array(vec![item(&text)])])]);
        let entries = Entries::of_one_stream(answer);
        let expected = Entry { id: b"1700000000000-5".to_vec(), lease: lease(), until_ms: 1_700_000_001_500 };
        assert_eq!(entries, Entries { good: vec![expected.clone()], bad: vec![] });
        assert_eq!(expected.left(1_700_000_001_400), Some(Duration::from_millis(100)));
        assert_eq!(expected.left(1_700_000_001_500), None);
    }

    #[test]
    fn what_is_no_lease_is_told_apart() {
        for odd in ["", "1.2.3", "1.2.x.4", "1.-2.3.4", "99999999999999999999.1.1.1"] {
            let entries = Entries::read(Value::Array(vec![item(odd)]));
            assert_eq!((entries.good.len(), entries.bad.len()), (0, 1), "{odd:?}");
        }
        let deleted = Value::Array(vec![bulk("1-1"), Value::Nil]);
        assert_eq!(Entries::read(Value::Array(vec![deleted])).bad, [b"1-1".to_vec()]);
        assert_eq!(Entries::of_one_stream(Value::Nil), Entries::default());
        assert_eq!(Entries::of_one_stream(Value::Array(vec![])), Entries::default());
    }

    #[test]
    fn time_is_read() {
        assert_eq!(time_ms(&Value::Array(vec![bulk("1700000000"), bulk("123456")])), Some(1_700_000_000_123));
        assert_eq!(time_ms(&Value::Nil), None);
    }
}
