//! Typed ids over `BIGINT` identity columns.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The id of one `E`.
///
/// - A 64-bit integer that the database gives out, never a UUID (000 §5.1).
/// - On every wire it is a decimal string, since JavaScript cannot hold a bigint (000 §6).
/// - An id of another entity does not compile where this one is asked for:
///
/// ```
/// use lime_core::{Id, planning::{Project, Ticket}};
/// fn open(ticket: Id<Ticket>) {}
/// open(Id::<Ticket>::new(1));
/// ```
/// ```compile_fail,E0308
/// # use lime_core::{Id, planning::{Project, Ticket}};
/// # fn open(ticket: Id<Ticket>) {}
/// open(Id::<Project>::new(1));
/// ```
pub struct Id<E: ?Sized> {
    raw: i64,
    entity: PhantomData<fn() -> Box<E>>,
}

impl<E: ?Sized> Id<E> {
    /// The id with this number, as an adapter reads it from a row.
    pub const fn new(raw: i64) -> Self {
        Self { raw, entity: PhantomData }
    }

    /// The number, as an adapter writes it into a row.
    pub const fn raw(self) -> i64 {
        self.raw
    }
}

impl<E: ?Sized> Clone for Id<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E: ?Sized> Copy for Id<E> {}
impl<E: ?Sized> PartialEq for Id<E> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}
impl<E: ?Sized> Eq for Id<E> {}
impl<E: ?Sized> PartialOrd for Id<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E: ?Sized> Ord for Id<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.raw.cmp(&other.raw)
    }
}
impl<E: ?Sized> Hash for Id<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.raw.hash(state);
    }
}
impl<E: ?Sized> fmt::Debug for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.raw)
    }
}
impl<E: ?Sized> fmt::Display for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.raw.fmt(f)
    }
}

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: an id is a whole number above 0 in decimal digits, such as \"42\"")]
pub struct ParseIdError(String);

impl<E: ?Sized> FromStr for Id<E> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        match text.parse() {
            Ok(raw) if digits => Ok(Self::new(raw)),
            _ => Err(ParseIdError(text.chars().take(40).collect())),
        }
    }
}

impl<E: ?Sized> Serialize for Id<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, E: ?Sized> Deserialize<'de> for Id<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<E: ?Sized> JsonSchema for Id<E> {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,18}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing;

    #[test]
    fn a_decimal_string_on_the_wire() {
        let id = Id::<Thing>::new(9_007_199_254_740_993);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, "\"9007199254740993\"");
        assert_eq!(serde_json::from_str::<Id<Thing>>(&json).unwrap(), id);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["", "0", "-1", "+1", "01", "1.0", "1e3", " 1", "9223372036854775808", "abc"] {
            assert!(bad.parse::<Id<Thing>>().is_err(), "{bad:?} was taken");
        }
        assert!(serde_json::from_str::<Id<Thing>>("42").is_err(), "a JSON number was taken");
    }
}
