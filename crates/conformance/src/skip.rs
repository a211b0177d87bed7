use std::io::Write;

/// Says that a test is skipped, and why: a line that begins with `skipped:`.
///
/// - It is seen whether or not the test harness shows what tests print, so that a missing part never passes unseen.
pub fn skip(why: &str) {
    let line = format!("skipped: {why}\n");
    // A closed stderr must not fail a test.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
