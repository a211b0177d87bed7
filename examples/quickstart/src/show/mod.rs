//! What the user sees: a run as it happens, for a person or as JSON.

mod call;
mod end;
mod json;
mod person;
mod screen;
pub(crate) mod text;

use std::io::Write;
use std::path::Path;

use assembly_lime::ports::Live;
use assembly_lime::runs::Usage;

use crate::args::Args;

pub(crate) use self::end::End;
use self::json::Json;
use self::person::Person;
use self::screen::Screen;
pub(crate) use self::screen::wants_colour;

/// Shows a run, from the first line to the last.
///
/// - Nothing here fails: a reader who has gone does not stop the run.
pub(crate) trait Show {
    /// The first line, before anything that takes time.
    fn title(&mut self);

    /// Something that is settled before the run begins.
    fn fact(&mut self, name: &str, value: &str);

    /// What is being waited for.
    fn waiting(&mut self, what: &str);

    /// Something that happens in the run.
    fn event(&mut self, live: Live);

    /// A word of this program in between.
    fn note(&mut self, text: &str);

    /// How it ended.
    fn end(&mut self, end: &End);
}

/// What the arguments ask for; `logs` says that others write to the terminal, too.
pub(crate) fn for_args(args: &Args, logs: bool, checkouts: &Path) -> Box<dyn Show> {
    if args.json {
        Box::new(Json::default())
    } else {
        Box::new(Person::new(Screen::open(!logs), args.verbose, checkouts.to_owned()))
    }
}

/// Says something on standard error.
pub(crate) fn complain(text: &str) {
    // If nobody listens there either, there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{}", text::clean(text));
}

/// How many turns were taken and what they cost, as far as that is known.
fn cost(usage: &Usage) -> String {
    let money = usage.cost.map_or_else(|| "cost unknown".to_owned(), |cost| format!("${cost}"));
    match usage.turns {
        0 => money,
        turns => format!("{} · {money}", text::count(turns, "turn")),
    }
}
