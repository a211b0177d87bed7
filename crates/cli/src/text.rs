//! Text from agents and people, made fit for a terminal, and times as a person says them.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use console::{strip_ansi_codes, truncate_str};

/// The text without anything that a terminal could take for an order.
///
/// - Escape sequences, control characters and marks that turn the direction of writing are taken out: text from an
///   agent is not to be trusted. Line ends stay; a tab becomes four spaces.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in strip_ansi_codes(text).chars() {
        match c {
            '\n' => clean.push(c),
            '\t' => clean.push_str("    "),
            _ if c.is_control() || turns_direction(c) => {}
            _ => clean.push(c),
        }
    }
    clean
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first line that is not blank, clean, and cut to this many columns.
pub(crate) fn first_line(text: &str, columns: usize) -> String {
    let clean = clean(text);
    let line = clean.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    truncate_str(line, columns, "…").into_owned()
}

/// A time as it is on every wire: `2026-01-31T12:00:00Z`.
pub(crate) fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// This machine's time.
pub(crate) fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}

/// How long ago that was, as far as this machine's clock is right.
pub(crate) fn ago(time: DateTime<Utc>) -> String {
    span(now() - time)
}

/// A length of time in its greatest unit: `12s`, `5m`, `3h`, `90d`; nothing below zero.
pub(crate) fn span(length: TimeDelta) -> String {
    let seconds = length.num_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number and its noun.
pub(crate) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

/// The text, or a dash for nothing.
pub(crate) fn or_dash(text: Option<impl ToString>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let evil = "a\u{1b}[31mred\u{1b}]0;title\u{7}b\u{1b}[2J\rc\u{8}\u{9b}5m\u{202e}d\u{0}\te\r\nf\u{1b}";
        let safe = clean(evil);
        assert!(!safe.chars().any(|c| c != '\n' && (c.is_control() || turns_direction(c))), "{safe:?}");
        assert!(safe.contains("    e\nf"), "{safe:?}");
    }

    #[test]
    fn spans_are_said_in_one_unit() {
        let said = [0, 119, 120, 7_199, 7_200, 172_800, -5].map(|s| span(TimeDelta::seconds(s)));
        assert_eq!(said, ["0s", "119s", "2m", "119m", "2h", "2d", "0s"]);
    }
}
