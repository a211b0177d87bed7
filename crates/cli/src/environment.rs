//! Variables of the environment; a blank one counts as unset.

use std::ffi::OsStr;

use clap::builder::Resettable;
use clap::{Arg, Command};

/// What a variable says, unless it is blank.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A command that does not look at variables which are blank; clap takes those for values.
pub(crate) fn without_blanks(command: Command) -> Command {
    command.mut_args(unless_blank).mut_subcommands(without_blanks)
}

fn unless_blank(arg: Arg) -> Arg {
    let is_blank = |value: &OsStr| value.to_string_lossy().trim().is_empty();
    if arg.get_env().and_then(std::env::var_os).is_some_and(|value| is_blank(&value)) {
        arg.env(Resettable::Reset)
    } else {
        arg
    }
}
