//! The periods of budgets in the world's time zones.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use chrono::{DateTime, Duration, TimeZone as _, Utc};
use lime_core::Id;
use lime_core::governance::{BudgetPeriod, BudgetWindow, TimeZone};
use proptest::prelude::*;

const CALENDAR: [BudgetPeriod; 3] = [BudgetPeriod::Daily, BudgetPeriod::Weekly, BudgetPeriod::Monthly];
/// Zones that change their clocks at midnight, over midnight, by half an hour, by a day, or not at all.
const ZONES: &[&str] = &[
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/Scoresbysund",
    "Africa/Casablanca",
    "Antarctica/Troll",
];

fn window(period: BudgetPeriod, zone: &str, at: &str) -> BudgetWindow {
    period.window(at.parse().unwrap(), TimeZone::parse(zone).unwrap(), Id::new(17))
}

/// The key, and the hours from start to end.
fn told(period: BudgetPeriod, zone: &str, at: &str) -> (String, String, i64) {
    let window = window(period, zone, at);
    let (start, end) = window.span.unwrap();
    (window.key, start.to_rfc3339().replace("+00:00", "Z"), (end - start).num_minutes())
}

#[test]
fn days_are_as_long_as_the_clocks_make_them() {
    for (zone, at, key, start, minutes) in [
        ("UTC", "2026-11-22T23:59:59Z", "2026-11-22", "2026-11-22T00:00:00Z", 24 * 60),
        ("Europe/Berlin", "2026-11-22T23:00:00Z", "2026-11-23", "2026-11-22T23:00:00Z", 24 * 60),
        ("Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29", "2026-03-28T23:00:00Z", 23 * 60),
        ("Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25", "2026-10-24T22:00:00Z", 25 * 60),
        ("America/New_York", "2026-11-01T04:00:00Z", "2026-11-01", "2026-11-01T04:00:00Z", 25 * 60),
        ("Australia/Lord_Howe", "2026-10-04T00:00:00Z", "2026-10-04", "2026-10-03T13:30:00Z", 23 * 60 + 30),
        // The clocks skip midnight: the day begins at 1:00.
        ("Africa/Cairo", "2026-04-23T22:00:00Z", "2026-04-24", "2026-04-23T22:00:00Z", 23 * 60),
        ("Africa/Cairo", "2026-04-23T21:59:59Z", "2026-04-23", "2026-04-22T22:00:00Z", 24 * 60),
        // The clocks go from 1:00 back to midnight: the first midnight counts.
        ("America/Havana", "2026-11-01T04:30:00Z", "2026-11-01", "2026-11-01T04:00:00Z", 25 * 60),
        ("America/Havana", "2026-11-01T05:30:00Z", "2026-11-01", "2026-11-01T04:00:00Z", 25 * 60),
        // The clocks go from 0:01 back over midnight, to 23:01: the new day has begun.
        ("America/St_Johns", "2010-11-07T02:29:00Z", "2010-11-06", "2010-11-06T02:30:00Z", 24 * 60),
        ("America/St_Johns", "2010-11-07T02:45:00Z", "2010-11-07", "2010-11-07T02:30:00Z", 25 * 60),
        // A day that was left out.
        ("Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29", "2011-12-29T10:00:00Z", 24 * 60),
        ("Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-31", "2011-12-30T10:00:00Z", 24 * 60),
    ] {
        let expected = (key.to_owned(), start.to_owned(), minutes);
        assert_eq!(told(BudgetPeriod::Daily, zone, at), expected, "{zone} {at}");
    }
}

#[test]
fn weeks_begin_on_monday_and_belong_to_the_year_of_their_thursday() {
    let week = |zone, at| told(BudgetPeriod::Weekly, zone, at);
    let hours = |week: i64| week * 60;
    assert_eq!(
        week("UTC", "2026-11-22T23:59:59Z"),
        ("2026-W47".into(), "2026-11-16T00:00:00Z".into(), hours(168))
    );
    assert_eq!(week("UTC", "2026-11-23T00:00:00Z").0, "2026-W48");
    assert_eq!(week("UTC", "2027-01-03T12:00:00Z").0, "2026-W53");
    assert_eq!(week("UTC", "2024-12-30T00:00:00Z").0, "2025-W01");
    assert_eq!(
        week("Europe/Berlin", "2026-03-29T12:00:00Z"),
        ("2026-W13".into(), "2026-03-22T23:00:00Z".into(), hours(167))
    );
    assert_eq!(week("Asia/Kolkata", "2026-11-22T18:30:00Z").0, "2026-W48");
}

#[test]
fn months_and_runs() {
    let month = |zone, at| told(BudgetPeriod::Monthly, zone, at);
    assert_eq!(
        month("UTC", "2028-02-29T12:00:00Z"),
        ("2028-02".into(), "2028-02-01T00:00:00Z".into(), 29 * 24 * 60)
    );
    assert_eq!(
        month("America/New_York", "2027-01-01T04:59:59Z"),
        ("2026-12".into(), "2026-12-01T05:00:00Z".into(), 31 * 24 * 60)
    );
    assert_eq!(month("Europe/Berlin", "2026-10-31T12:00:00Z").2, 31 * 24 * 60 + 60);
    let run = window(BudgetPeriod::Run, "UTC", "2026-11-22T00:00:00Z");
    assert_eq!(run, BudgetWindow { key: "run-17".into(), span: None });
}

#[test]
fn zones_have_iana_names() {
    assert_eq!(TimeZone::parse("Europe/Berlin").unwrap().to_string(), "Europe/Berlin");
    assert_eq!(TimeZone::UTC.as_str(), "UTC");
    for bad in ["", "Mars/Base", "+01:00", "europe berlin"] {
        assert_eq!(TimeZone::parse(bad).unwrap_err().field, "time_zone", "{bad}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Periods follow each other without a gap or an overlap, each known by one key.
    #[test]
    fn an_instant_is_in_one_period(
        name in prop::sample::select(ZONES), period in prop::sample::select(&CALENDAR[..]),
        // 1995 to 2060.
        seconds in 788_918_400..2_840_140_800_i64,
    ) {
        let zone = TimeZone::parse(name).unwrap();
        let at = Utc.timestamp_opt(seconds, 0).unwrap();
        let of = |at: DateTime<Utc>| period.window(at, zone, Id::new(1));
        let window = of(at);
        let (start, end) = window.span.unwrap();
        prop_assert!(start <= at && at < end);
        let last = end - Duration::seconds(1);
        prop_assert_eq!(&of(start), &window);
        prop_assert_eq!(&of(last), &window);
        let (next, before) = (of(end), of(start - Duration::seconds(1)));
        prop_assert_eq!(next.span.unwrap().0, end);
        prop_assert_eq!(before.span.unwrap().1, start);
        prop_assert!(before.key < window.key && window.key < next.key);
        if period == BudgetPeriod::Daily {
            let middle = (start + (end - start) / 2).with_timezone(&name.parse::<chrono_tz::Tz>().unwrap());
            prop_assert_eq!(window.key, middle.date_naive().to_string());
        }
    }
}
