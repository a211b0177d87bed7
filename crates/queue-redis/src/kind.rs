use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lime_core::runs::ProviderId;

/// The kind of a worker: the providers whose runs it can work.
///
/// - Workers of one kind share a line, so a run reaches whoever can work it, and no line waits for a worker that
///   nobody has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind(Arc<str>);

/// A kind of workers, and how long their leases are good for: what can be taken in one go.
pub(crate) type Lane = (Kind, Duration);

impl Kind {
    /// No provider's name has it.
    const BETWEEN: char = '+';

    /// The kind of a worker with these providers, in any order; none without providers.
    pub(crate) fn of(providers: &[ProviderId]) -> Option<Self> {
        let mut names: Vec<&str> = providers.iter().map(ProviderId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| Self(names.join(&Self::BETWEEN.to_string()).into()))
    }

    /// Reads what [`Display`](fmt::Display) has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let providers: Result<Vec<_>, _> = text.split(Self::BETWEEN).map(ProviderId::parse).collect();
        Self::of(&providers.ok()?)
    }

    pub(crate) fn providers(&self) -> Vec<ProviderId> {
        self.0.split(Self::BETWEEN).filter_map(|name| ProviderId::parse(name).ok()).collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProviderId = ProviderId::from_static("a");
    const B: ProviderId = ProviderId::from_static("b-2");

    #[test]
    fn the_order_of_providers_makes_no_other_kind() {
        let kind = Kind::of(&[B, A, B]).unwrap();
        assert_eq!(kind, Kind::of(&[A, B]).unwrap());
        assert_eq!(kind.providers(), [A, B]);
        assert_eq!(Kind::parse(&kind.to_string()), Some(kind));
        assert_eq!(Kind::of(&[]), None);
        assert_eq!(Kind::parse("a+*"), None);
    }
}
