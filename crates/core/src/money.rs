//! Money in integer micro-units.

use std::fmt;
use std::ops::{Add, AddAssign};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An amount in millionths of a currency unit (1 US dollar is 1,000,000 micros).
///
/// - Integers only; a float never enters (DESIGN, rule 12). Arithmetic saturates.
/// - Cents exist at the edge: [`to_cents`](Micros::to_cents) rounds up, so that a cost is never shown as less
///   than it was.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    const PER_CENT: i64 = 10_000;

    /// This many cents.
    pub const fn from_cents(cents: i64) -> Self {
        Self(cents.saturating_mul(Self::PER_CENT))
    }

    /// The amount in cents, rounded up.
    pub const fn to_cents(self) -> i64 {
        self.0.saturating_add(Self::PER_CENT - 1).div_euclid(Self::PER_CENT)
    }

    /// Reads a decimal text such as `0.01269` or `1.2e-5`, exactly; digits below a micro are rounded up.
    ///
    /// - `None` for a negative amount, for what is not a number, and for what does not fit.
    pub fn from_decimal(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = [whole, fraction].concat();
        if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut amount: i128 = digits.parse().ok()?;
        let scale = 6 + exponent - i32::try_from(fraction.len()).ok()?;
        for _ in 0..scale.unsigned_abs().min(60) {
            amount = if scale > 0 { amount.checked_mul(10)? } else { (amount + 9) / 10 };
        }
        i64::try_from(amount).ok().map(Self)
    }
}

impl Add for Micros {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Micros {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Micros {
    /// Units with four decimals, such as `0.0127`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hundredths_of_cents = self.0.saturating_add(50).div_euclid(100);
        write!(f, "{}.{:04}", hundredths_of_cents.div_euclid(10_000), hundredths_of_cents.rem_euclid(10_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly() {
        assert_eq!(Micros::from_decimal("0.01269"), Some(Micros(12_690)));
        assert_eq!(Micros::from_decimal("12"), Some(Micros(12_000_000)));
        assert_eq!(Micros::from_decimal("1.2e-5"), Some(Micros(12)));
        assert_eq!(Micros::from_decimal("0.0000001"), Some(Micros(1)));
        assert_eq!(Micros::from_decimal("1e2"), Some(Micros(100_000_000)));
        for bad in ["", "-1", "x", "1.2.3", "1e99", "99999999999999999999"] {
            assert_eq!(Micros::from_decimal(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn cents_round_up() {
        assert_eq!(Micros(1).to_cents(), 1);
        assert_eq!(Micros(10_000).to_cents(), 1);
        assert_eq!(Micros(10_001).to_cents(), 2);
        assert_eq!(Micros(0).to_cents(), 0);
        assert_eq!(Micros(12_690).to_string(), "0.0127");
    }
}
