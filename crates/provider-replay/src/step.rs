//! The steps of a recording as they stand in its file: one struct for each thing that a step can do.
//!
//! - serde refuses what it does not know, and the file's errors have a line; so this is the format's definition,
//!   and `docs/providers.md` is its description.

use std::time::Duration;

use lime_core::Micros;
use lime_core::runs::{AgentEvent, FailureKind, Limit, Usage};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Value as Json;
use toml::de::{Error, ValueDeserializer};

use crate::place::Place;

/// A step: what happens, after which wait.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Where it stands in the file, for messages.
    pub(crate) line: usize,
    /// How long the agent takes before it.
    pub(crate) wait: Duration,
    /// What must have become of the last call without such a condition; it happens anyway, if none.
    pub(crate) only_if: Option<Leave>,
    pub(crate) action: Action,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Leave {
    /// It was made.
    Allowed,
    /// A person, or the run's list of tools, was against it.
    Denied,
}

/// Declares [`Action`]: the key that says what a step does, and the struct that has all its keys.
macro_rules! actions {
    ($($verb:literal => $action:ident,)+) => {
        /// What a step does.
        #[derive(Debug, Clone)]
        pub(crate) enum Action {
            $($action($action),)+
        }

        impl Action {
            /// The keys of which each step has exactly one.
            pub(crate) const VERBS: &[&str] = &[$($verb),+];

            /// Reads the keys of the step with this verb, which must be one of [`VERBS`](Action::VERBS).
            pub(crate) fn read(verb: &str, keys: ValueDeserializer<'_>) -> Result<Self, Error> {
                match verb {
                    $($verb => $action::deserialize(keys).map(Self::$action),)+
                    _ => Err(Error::custom(format!("there is no step `{verb}`"))),
                }
            }
        }
    };
}

actions! {
    "say" => Say,
    "think" => Think,
    "read" => Read,
    "write" => Write,
    "append" => Append,
    "edit" => Edit,
    "delete" => Delete,
    "rename" => Rename,
    "run" => Run,
    "tool" => Tool,
    "usage" => TurnUsage,
    "event" => Event,
    "fail" => Fail,
    "limit" => Limited,
    "hang" => Hang,
}

impl Step {
    /// Whether the session ends with it, whatever comes.
    pub(crate) fn is_end(&self) -> bool {
        self.action.is_end() && self.only_if.is_none()
    }
}

impl Action {
    /// Whether it changes a file.
    pub(crate) const fn changes_files(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Append(_) | Self::Edit(_) | Self::Delete(_) | Self::Rename(_))
    }

    /// Whether it counts what the session uses, which is reckoned before anything is played.
    pub(crate) const fn counts(&self) -> bool {
        matches!(self, Self::TurnUsage(_))
    }

    /// Whether nothing comes after it.
    pub(crate) const fn is_end(&self) -> bool {
        matches!(self, Self::Fail(_) | Self::Limited(_) | Self::Hang(_))
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Say {
    pub(crate) say: String,
    /// Over which time the message is written, word by word.
    #[serde(default)]
    pub(crate) stream_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Think {
    pub(crate) think: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    pub(crate) read: Place,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) write: Place,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Append {
    pub(crate) append: Place,
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edit {
    pub(crate) edit: Place,
    pub(crate) find: Needle,
    pub(crate) replace: String,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delete {
    pub(crate) delete: Place,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    pub(crate) rename: Place,
    pub(crate) to: Place,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    pub(crate) run: String,
    #[serde(default)]
    pub(crate) output: String,
    #[serde(default)]
    pub(crate) fails: bool,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) tool: ToolName,
    #[serde(default)]
    pub(crate) input: serde_json::Map<String, Json>,
    #[serde(default)]
    pub(crate) output: String,
    #[serde(default)]
    pub(crate) fails: bool,
    #[serde(default)]
    pub(crate) takes_ms: Millis,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TurnUsage {
    pub(crate) usage: Tokens,
}

/// What one turn used; the session adds the turns up.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tokens {
    input_tokens: u64,
    cached_input_tokens: u64,
    cache_write_tokens: u64,
    output_tokens: u64,
    cost_micros: Option<u32>,
}

impl From<Tokens> for Usage {
    fn from(tokens: Tokens) -> Self {
        Self {
            turns: 1,
            input_tokens: tokens.input_tokens,
            cached_input_tokens: tokens.cached_input_tokens,
            cache_write_tokens: tokens.cache_write_tokens,
            output_tokens: tokens.output_tokens,
            cost: tokens.cost_micros.map(|micros| Micros(micros.into())),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Event {
    pub(crate) event: FreeEvent,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fail {
    pub(crate) fail: FailureKind,
    pub(crate) message: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limited {
    pub(crate) limit: Limit,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hang {
    #[expect(dead_code, reason = "it can only be true")]
    hang: Yes,
}

/// A time in milliseconds, at most [`Millis::MAX`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Millis(u64);

impl Millis {
    /// The most milliseconds of one wait: 10 minutes.
    const MAX: u64 = 600_000;

    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<u64> for Millis {
    type Error = String;

    fn try_from(millis: u64) -> Result<Self, String> {
        if millis > Self::MAX {
            return Err(format!("a time is at most {} ms", Self::MAX));
        }
        Ok(Self(millis))
    }
}

/// A text to look for; not empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Needle(String);

impl Needle {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Needle {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("`find` must not be empty");
        }
        Ok(Self(text))
    }
}

/// The name of a tool: 1 to 200 characters, as a stored tool call has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ToolName(String);

impl ToolName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ToolName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        if name.is_empty() || name.chars().count() > 200 || name.chars().any(char::is_control) {
            return Err("a tool's name has 1 to 200 characters, and no control characters");
        }
        Ok(Self(name))
    }
}

/// An event on the wire, of a kind that the player does not make itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "AgentEvent")]
pub(crate) struct FreeEvent(pub(crate) AgentEvent);

impl TryFrom<AgentEvent> for FreeEvent {
    type Error = String;

    fn try_from(event: AgentEvent) -> Result<Self, String> {
        match event {
            // The report must agree with these, so they come from steps that keep count.
            AgentEvent::Status { .. }
            | AgentEvent::Session { .. }
            | AgentEvent::Tool { .. }
            | AgentEvent::Approval { .. }
            | AgentEvent::Usage(_) => {
                Err(format!("an event of type `{}` comes from steps of its own", event.type_name()))
            }
            AgentEvent::Message { .. }
            | AgentEvent::Delta { .. }
            | AgentEvent::Reasoning { .. }
            | AgentEvent::Log { .. }
            | AgentEvent::Diff { .. }
            | AgentEvent::Artifact { .. }
            | AgentEvent::Error { .. }
            | AgentEvent::Unknown(_) => Ok(Self(event)),
        }
    }
}

/// `true`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "bool")]
struct Yes;

impl TryFrom<bool> for Yes {
    type Error = &'static str;

    fn try_from(yes: bool) -> Result<Self, &'static str> {
        yes.then_some(Self).ok_or("it can only be true")
    }
}
