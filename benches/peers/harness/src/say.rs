//! What is told while it is measured, on stderr; stdout is the report's.

use std::io::Write;

/// Writes a line; a closed stderr is nobody's loss.
pub(crate) fn line(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Says that a peer is left out, and why.
pub(crate) fn skipped(peer: &str, why: &str) {
    line(&format!("skipped: {peer}: {why}"));
}
