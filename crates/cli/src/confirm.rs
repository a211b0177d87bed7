//! The question before what cannot be undone.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::exit::Failure;
use crate::text::clean;

/// Asks whether to go on; `what` says in a sentence what is about to happen.
///
/// - With `--yes` nobody is asked. Without a terminal to ask on, the answer is no, and the command was called wrongly.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{what}\n  This cannot be undone, and there is no terminal to ask on: to do it, repeat the command with --yes."
        )));
    }
    let mut answer = String::new();
    let mut err = io::stderr();
    let asked =
        write!(err, "{}\nThis cannot be undone. Go on? [y/N] ", clean(what)).and_then(|()| err.flush());
    asked.and_then(|()| io::stdin().lock().read_line(&mut answer)).map_err(|error| {
        Failure::usage(format!("the question cannot be asked: {error}\n  Repeat the command with --yes."))
    })?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("Nothing was changed.")),
    }
}
