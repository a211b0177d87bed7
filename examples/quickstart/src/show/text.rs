//! Text from agents and repositories, made fit for a terminal.

use std::path::Path;
use std::time::Duration;

use console::{measure_text_width, strip_ansi_codes, truncate_str};

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

/// The first line that is not blank, clean.
pub(crate) fn first_line(text: &str) -> String {
    let clean = clean(text);
    let line = clean.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or_default().to_owned()
}

/// The text, cut to this many columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    truncate_str(text, columns, "…").into_owned()
}

/// The lines of a clean text, none wider than this many columns; a line that is broken keeps its indentation.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    text.lines().flat_map(|line| wrap_line(line.trim_end(), columns)).collect()
}

fn wrap_line(line: &str, columns: usize) -> Vec<String> {
    let words = line.trim_start();
    let indent: String = line.chars().take_while(|c| c.is_whitespace()).take(columns / 2).collect();
    let margin = measure_text_width(&indent);
    let (mut lines, mut current, mut at) = (Vec::new(), indent.clone(), margin);
    for word in words.split(' ') {
        if at > margin {
            if at + 1 + measure_text_width(word) > columns {
                lines.push(std::mem::replace(&mut current, indent.clone()));
                at = margin;
            } else {
                current.push(' ');
                at += 1;
            }
        }
        for c in word.chars() {
            let wide = measure_text_width(c.encode_utf8(&mut [0; 4]));
            if at > margin && at + wide > columns {
                lines.push(std::mem::replace(&mut current, indent.clone()));
                at = margin;
            }
            current.push(c);
            at += wide;
        }
    }
    lines.push(current);
    lines
}

/// A time as a person says it: `12 ms`, `1.2 s`, `2 m 05 s`.
pub(crate) fn time(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        _ => format!("{} m {:02} s", millis / 60_000, millis / 1_000 % 60),
    }
}

/// A path as a person writes it: with `~` for the home folder.
pub(crate) fn tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok()) {
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

/// A number and its noun.
pub(crate) fn count(number: impl Into<u64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let evil = "a\u{1b}[31mred\u{1b}]0;title\u{7}b\u{1b}[2J\rc\u{8}\u{9b}5m\u{202e}d\u{0}\te\r\nf\u{1b}";
        let safe = clean(evil);
        assert!(!safe.chars().any(|c| c != '\n' && (c.is_control() || turns_direction(c))), "{safe:?}");
        assert!(safe.starts_with("aredb"), "{safe:?}");
        assert!(safe.contains("    e\nf"), "{safe:?}");
    }

    #[test]
    fn lines_are_broken_between_words_and_keep_their_indentation() {
        assert_eq!(wrap("one two three\n\n  four five", 8), ["one two", "three", "", "  four", "  five"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("日本語", 4), ["日本", "語"]);
        assert_eq!(wrap("", 4), Vec::<String>::new());
    }

    #[test]
    fn times_are_said_shortly() {
        let said = [12, 999, 1_250, 59_999, 125_000].map(|millis| time(Duration::from_millis(millis)));
        assert_eq!(said, ["12 ms", "999 ms", "1.2 s", "59.9 s", "2 m 05 s"]);
    }
}
