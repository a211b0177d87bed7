//! Reads the text of a recording, so that everything wrong with it has a line.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use crate::recording::Recording;
use crate::step::{Action, Leave, Millis, Step};

/// A value that knows its place in the text.
type Value<'t> = Spanned<DeValue<'t>>;

/// Reads a recording from its text.
pub(crate) fn read(text: &str) -> Result<Recording, Fault> {
    let file = DeTable::parse(text).map_err(|error| Fault::at(0, &error))?;
    let whole = file.span();
    let mut file = file.into_inner();
    // First of all, since a file of another version may have keys that this one does not know.
    let version = file.remove("version").ok_or(Fault::new(0, "there is no `version = 1`"))?;
    let at = version.span().start;
    let version: u32 = read_value(version)?;
    if version != Recording::VERSION {
        let known = Recording::VERSION;
        return Err(Fault::new(
            at,
            format!("version {version} is not known; this player knows version {known}"),
        ));
    }
    let steps = match file.remove("step").map(|steps| (steps.span().start, steps.into_inner())) {
        Some((_, DeValue::Array(steps))) => steps,
        Some((at, _)) => return Err(Fault::new(at, "write each step as `[[step]]`, with two brackets")),
        None => return Err(Fault::new(0, "there is no `[[step]]`")),
    };
    if let Some(beyond) = steps.get(Recording::MAX_STEPS) {
        let message = format!("a recording has at most {} steps", Recording::MAX_STEPS);
        return Err(Fault::new(beyond.span().start, message));
    }
    let header = read_value(Spanned::new(whole, DeValue::Table(file)))?;
    let lines = Lines::of(text);
    let mut recording = Recording { header, steps: Vec::new() };
    for step in steps {
        let at = step.span().start;
        if recording.steps.last().is_some_and(Step::is_end) {
            return Err(Fault::new(at, "the step before this one ends the session"));
        }
        recording.steps.push(read_step(step, lines.number(at))?);
    }
    Ok(recording)
}

fn read_step(step: Value<'_>, line: usize) -> Result<Step, Fault> {
    let span = step.span();
    let DeValue::Table(mut keys) = step.into_inner() else {
        return Err(Fault::new(span.start, "write each step as `[[step]]`, with its keys below"));
    };
    let wait = match keys.remove("wait_ms") {
        Some(wait) => read_value::<Millis>(wait)?.duration(),
        None => Default::default(),
    };
    let only_if = keys.remove("only_if").map(read_value::<Leave>).transpose()?;
    let verbs: Vec<_> = Action::VERBS.iter().filter(|verb| keys.contains_key(**verb)).collect();
    let [verb] = verbs[..] else {
        let message = match verbs[..] {
            [] => format!("the step does nothing that is known; it has one of: {}", Action::VERBS.join(", ")),
            _ => format!("the step does {} things, {verbs:?}; make a step of each", verbs.len()),
        };
        return Err(Fault::new(span.start, message));
    };
    let step = ValueDeserializer::from(Spanned::new(span.clone(), DeValue::Table(keys)));
    let action = Action::read(verb, step).map_err(|error| Fault::at(span.start, &error))?;
    if only_if.is_some() && action.counts() {
        return Err(Fault::new(span.start, "a turn is counted always: `usage` has no `only_if`"));
    }
    Ok(Step { line, wait, only_if, action })
}

/// What is wrong with a text, and where in it.
pub(crate) struct Fault {
    /// In bytes from the start.
    pub(crate) at: usize,
    pub(crate) message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    /// Of a value that begins here.
    fn at(start: usize, error: &toml::de::Error) -> Self {
        Self::new(error.span().map_or(start, |span| span.start), error.message())
    }
}

/// Reads a value; a fault that has no place of its own is the value's.
fn read_value<'t, T: Deserialize<'t>>(value: Value<'t>) -> Result<T, Fault> {
    let at = value.span().start;
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| Fault::at(at, &error))
}

/// Where the lines of a text end.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    pub(crate) fn number(&self, at: usize) -> usize {
        1 + self.0.partition_point(|end| *end < at)
    }
}
