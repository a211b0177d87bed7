use std::fmt;

use crate::Micros;

/// How much of what a budget counts: micros of its currency, tokens, or runs. Never below 0.
///
/// - Arithmetic stops at 0 and at [`MAX`](Amount::MAX), nine million million units of a currency, which no factory
///   reaches: nothing wraps, and what would be above it counts as it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that there is.
    pub const MAX: Self = Self(i64::MAX);

    /// This much; nothing, if it is below 0.
    pub const fn new(raw: i64) -> Self {
        Self(if raw < 0 { 0 } else { raw })
    }

    /// The number, as an adapter writes it into a row.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left without the other; nothing, if the other is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self::new(self.0 - other.0)
    }

    /// The same, moved by an entry of the ledger.
    #[must_use]
    pub(crate) const fn moved(self, by: i64) -> Self {
        Self::new(self.0.saturating_add(by))
    }

    /// The same so many times.
    #[must_use]
    pub const fn times(self, count: u32) -> Self {
        Self(self.0.saturating_mul(count as i64))
    }
}

impl From<Micros> for Amount {
    fn from(money: Micros) -> Self {
        Self::new(money.0)
    }
}
impl From<u64> for Amount {
    /// A count; what does not fit is [`Amount::MAX`].
    fn from(count: u64) -> Self {
        i64::try_from(count).map_or(Self::MAX, Self)
    }
}
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
