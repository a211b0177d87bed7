//! What workers and relays say to each other, as text with spaces between.

use std::fmt;
use std::time::Duration;

use crate::kind::Kind;

/// How long a worker is thought to wait, unless it says so again.
pub(crate) const WAITS: Duration = Duration::from_secs(3);

/// What a worker says to the relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Who asks: what its channel ends with.
    pub(crate) from: String,
    /// The number that the answer shall have; none if the worker goes to sleep until there is something.
    pub(crate) answer: Option<u64>,
    /// How many leases it could take.
    pub(crate) room: usize,
    /// How long they shall be good for.
    pub(crate) lease: Duration,
    /// Of which kind they shall be.
    pub(crate) kind: Kind,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, answer, room, lease, kind } = self;
        write!(f, "{from} {} {room} {} {kind}", answer.unwrap_or_default(), lease.as_millis())
    }
}

impl Ask {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        let mut next = || parts.next();
        Some(Self {
            from: next()?.to_owned(),
            answer: Some(next()?.parse().ok()?).filter(|answer| *answer > 0),
            room: next()?.parse().ok()?,
            lease: Duration::from_millis(next()?.parse().ok()?),
            kind: Kind::parse(next()?)?,
        })
    }
}

/// What a relay says to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// So many leases were put into the line for this question.
    Pushed(u64, usize),
    /// The relay cannot look into the queue; the worker shall do so itself.
    Failed(u64),
    /// There is something in the line.
    Wake,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pushed(number, pushed) => write!(f, "pushed {number} {pushed}"),
            Self::Failed(number) => write!(f, "failed {number}"),
            Self::Wake => f.write_str("wake"),
        }
    }
}

impl Answer {
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(' ');
        match parts.next()? {
            "pushed" => Some(Self::Pushed(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)),
            "failed" => Some(Self::Failed(parts.next()?.parse().ok()?)),
            "wake" => Some(Self::Wake),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were() {
        for answer in [None, Some(7)] {
            let ask = Ask {
                from: "3f".into(),
                answer,
                room: 32,
                lease: Duration::from_millis(1_500),
                kind: Kind::parse("claude+codex").unwrap(),
            };
            assert_eq!(Ask::parse(ask.to_string().as_bytes()), Some(ask));
        }
        for answer in [Answer::Pushed(3, 4), Answer::Failed(5), Answer::Wake] {
            assert_eq!(Answer::parse(answer.to_string().as_bytes()), Some(answer));
        }
    }

    #[test]
    fn other_words_are_not_understood() {
        for odd in ["", "a 1 2", "a 1 2 3 A", "a x 2 3 claude", "a 1 -2 3 claude"] {
            assert_eq!(Ask::parse(odd.as_bytes()), None, "{odd:?}");
        }
        for odd in ["", "pushed", "pushed 1 x", "later"] {
            assert_eq!(Answer::parse(odd.as_bytes()), None, "{odd:?}");
        }
        assert_eq!(Answer::parse(&[0xff]), None);
    }
}
