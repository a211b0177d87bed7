use std::fmt;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveTime, TimeZone as _, Utc};
use chrono_tz::{GapInfo, Tz};

use crate::runs::AgentRun;
use crate::words::words;
use crate::{Id, Invalid};

words! {
    /// For how long a budget's limit is.
    pub enum BudgetPeriod: "period" {
        /// From midnight to midnight.
        Daily = "daily",
        /// From Monday to Monday.
        Weekly = "weekly",
        /// From the first of a month to the first of the next.
        Monthly = "monthly",
        /// For each run by itself, all its attempts together (ours).
        Run = "run",
    }
}

/// A time zone by its IANA name, such as `Europe/Berlin`.
///
/// - Its rules are compiled in, so an older release has older rules; periods that have begun under them stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeZone(Tz);

impl TimeZone {
    /// Universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// The zone with this name.
    pub fn parse(name: &str) -> Result<Self, Invalid> {
        let unknown = |_| Invalid::new("time_zone", "must be an IANA name, such as `Europe/Berlin` or `UTC`");
        name.parse().map(Self).map_err(unknown)
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        self.0.name()
    }

    /// The first instant of a day; where the clocks go back over midnight, the first of the two.
    fn midnight(self, day: NaiveDate) -> DateTime<Utc> {
        let midnight = day.and_time(NaiveTime::MIN);
        let after_gap = || GapInfo::new(&midnight, &self.0)?.end;
        let instant = self.0.from_local_datetime(&midnight).earliest().or_else(after_gap);
        instant.map_or_else(|| midnight.and_utc(), |instant| instant.to_utc())
    }

    /// The day that an instant belongs to.
    fn day(self, at: DateTime<Utc>) -> NaiveDate {
        let day = at.with_timezone(&self.0).date_naive();
        // Where the clocks have gone back over midnight, an hour of the day before is shown again.
        let next = next_day(day);
        if self.midnight(next) <= at { next } else { day }
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One period of a budget, with a counter of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetWindow {
    /// Its name: `2026-11-22`, `2026-W47` (ISO 8601), `2026-11`, or `run-17`.
    pub key: String,
    /// Its first instant and the first one after it; none for a run's.
    pub span: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl BudgetPeriod {
    /// The period in which an attempt begins, in a tenant's time zone.
    ///
    /// - An instant is in exactly one, however the clocks change: a day has 23 or 25 hours then. A day that a zone
    ///   leaves out (Samoa, 30 December 2011) has no instant.
    /// - What an attempt uses counts in the period in which it began, also after the period's end.
    pub fn window(self, at: DateTime<Utc>, zone: TimeZone, run: Id<AgentRun>) -> BudgetWindow {
        let day = zone.day(at);
        let (key, first, next) = match self {
            Self::Daily => (day.to_string(), day, next_day(day)),
            Self::Weekly => {
                let week = day.iso_week();
                let monday = day.week(chrono::Weekday::Mon).checked_first_day().unwrap_or(day);
                let key = format!("{:04}-W{:02}", week.year(), week.week());
                (key, monday, monday.checked_add_days(Days::new(7)).unwrap_or(NaiveDate::MAX))
            }
            Self::Monthly => {
                let first = day.with_day(1).unwrap_or(day);
                let next = first.checked_add_months(Months::new(1)).unwrap_or(NaiveDate::MAX);
                (format!("{:04}-{:02}", day.year(), day.month()), first, next)
            }
            Self::Run => return BudgetWindow { key: format!("run-{run}"), span: None },
        };
        BudgetWindow { key, span: Some((zone.midnight(first), zone.midnight(next))) }
    }
}

fn next_day(day: NaiveDate) -> NaiveDate {
    day.succ_opt().unwrap_or(NaiveDate::MAX)
}
