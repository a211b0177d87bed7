use std::io::Write;

use lime_core::{ErrorKind, Result};

/// Says that a test is skipped, and why: a line that begins with `skipped:`.
///
/// - It is seen whether or not the test harness shows what tests print, so that a missing part never passes unseen.
pub fn skip(why: &str) {
    let line = format!("skipped: {why}\n");
    // A closed stderr must not fail a test.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The part that a test needs, or nothing and a line that says so if it is not there ([`ErrorKind::Unavailable`]).
///
/// - Panics with any other error.
pub fn or_skip<T>(part: Result<T>) -> Option<T> {
    match part {
        Err(error) if error.kind() == ErrorKind::Unavailable => {
            skip(&error.to_string());
            None
        }
        part => Some(part.unwrap()),
    }
}
