//! A length of time as an operator writes it.

use std::fmt;
use std::time::Duration;

/// How long ago, in whole minutes, hours, days or weeks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(Duration);

impl Age {
    /// Reads `90d`, `12h`, `30m` or `4w`; never nothing at all, and at most a hundred years.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no age: write a number and m, h, d or w, such as 90d");
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        let digits = &text[..text.len() - 1];
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let age = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(seconds));
        match age {
            Some(0) => Err("an age of nothing would mean everything; give at least 1m".to_owned()),
            Some(age) if age <= 100 * 366 * 86_400 => Ok(Self(Duration::from_secs(age))),
            Some(_) | None => Err(format!("`{text}` is more than a hundred years")),
        }
    }

    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            _ if seconds.is_multiple_of(86_400) => write!(f, "{} d", seconds / 86_400),
            _ if seconds.is_multiple_of(3_600) => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} min", seconds / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_number_and_a_unit() {
        let seconds = |text| Age::parse(text).map(|age| age.duration().as_secs());
        assert_eq!(seconds("90d"), Ok(7_776_000));
        assert_eq!(seconds("2w"), Ok(1_209_600));
        assert_eq!(seconds("36h"), Ok(129_600));
        assert_eq!(seconds("5m"), Ok(300));
        for wrong in ["", "d", "90", "90s", "-1d", "1.5d", "0d", "99999w", "99999999999999999999d", "9é"] {
            assert!(Age::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(Age::parse("48h").unwrap().to_string(), "2 d");
    }
}
