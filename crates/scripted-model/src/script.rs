//! What the model will say: a script of turns.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ScriptError;
use crate::fault::Fault;
use crate::turn::Turn;

const MAX_TURNS: usize = 10_000;
const MAX_DELAY: Duration = Duration::from_secs(3_600);

/// Everything one scripted model will answer, turn by turn.
///
/// - A turn is one answer of the model; a conversation's position is read from the request itself, so any
///   number of conversations may play the same script at once, and side requests eat no turns.
/// - When the turns run out, [`Script::then`] decides what comes next; by default a closing text.
/// - Reads and writes as JSON; unknown fields are refused, so that a misspelling is noticed.
/// - At most 10,000 turns.
///
/// ```
/// use lime_scripted_model::Script;
///
/// let script = Script::from_json(
///     r#"{ "turns": [
///            { "steps": [ { "say": "On it." },
///                         { "write_file": { "path": "a.txt", "contents": "hello\n" } } ],
///              "usage": { "input_tokens": 1200, "output_tokens": 40 } },
///            { "steps": [ { "say": "Done." } ],
///              "fault": { "http": { "status": 429, "headers": { "retry-after": "1" } } },
///              "fault_times": 1 } ],
///          "then": { "say": "Nothing is left to do." } }"#,
/// )?;
/// assert_eq!(script.turns.len(), 2);
/// # Ok::<(), lime_scripted_model::ScriptError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The answers, in order.
    pub turns: Vec<Turn>,
    /// What is answered when the turns have run out.
    pub then: Ending,
    /// The text that answers side requests (titles, warm-ups, summaries); it claims no tokens.
    pub side_text: String,
    /// The agent's working directory, for requests that do not name it themselves.
    ///
    /// - Claude Code leaves it out when its whole system prompt is replaced; it then takes a path relative to
    ///   its own working directory, so this is seldom needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            turns: Vec::new(),
            then: Ending::default(),
            side_text: "Scripted side answer.".to_owned(),
            working_dir: None,
        }
    }
}

impl Script {
    /// Makes a script without turns, which answers every request with its ending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a script of one turn that says `text`.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new().turn(Turn::new().say(text))
    }

    /// Makes the smallest coding story: write one file, then say `final_text`.
    ///
    /// - `path` is relative to the agent's working directory; an existing file is replaced.
    /// - The same script works with Claude Code and Codex; see [`Step::WriteFile`](crate::Step::WriteFile).
    #[must_use]
    pub fn edit_file(
        path: impl Into<String>,
        contents: impl Into<String>,
        final_text: impl Into<String>,
    ) -> Self {
        Self::new().turn(Turn::new().write_file(path, contents)).turn(Turn::new().say(final_text))
    }

    /// Makes a story that runs one shell command in the working directory, then says `final_text`.
    #[must_use]
    pub fn run_command(command: impl Into<String>, final_text: impl Into<String>) -> Self {
        Self::new().turn(Turn::new().run_command(command)).turn(Turn::new().say(final_text))
    }

    /// Makes a script whose every answer is `fault`.
    #[must_use]
    pub fn failing(fault: Fault) -> Self {
        Self::new().turn(Turn::new().say("Unheard.").fault(fault)).then(Ending::RepeatLast)
    }

    /// Adds a turn.
    #[must_use]
    pub fn turn(mut self, turn: Turn) -> Self {
        self.turns.push(turn);
        self
    }

    /// Sets what is answered when the turns have run out.
    #[must_use]
    pub fn then(mut self, then: Ending) -> Self {
        self.then = then;
        self
    }

    /// Reads a script from JSON and checks it.
    ///
    /// # Errors
    ///
    /// - [`ScriptError::Json`] when the text is not a script.
    /// - What [`Script::check`] answers.
    pub fn from_json(json: &str) -> Result<Self, ScriptError> {
        let script: Self = serde_json::from_str(json)?;
        script.check()?;
        Ok(script)
    }

    /// Checks the script's limits; a server does so before it starts.
    ///
    /// # Errors
    ///
    /// - [`ScriptError::TooManyTurns`], [`ScriptError::DelayTooLong`], [`ScriptError::NoDelta`] or
    ///   [`ScriptError::BadFault`], naming the turn by its index from 0.
    pub fn check(&self) -> Result<(), ScriptError> {
        if self.turns.len() > MAX_TURNS {
            return Err(ScriptError::TooManyTurns { turns: self.turns.len(), limit: MAX_TURNS });
        }
        for (index, turn) in self.turns.iter().enumerate() {
            if turn.delay().max(turn.delta_delay()) > MAX_DELAY {
                return Err(ScriptError::DelayTooLong { turn: index, limit: MAX_DELAY });
            }
            if turn.delta_chars == 0 {
                return Err(ScriptError::NoDelta { turn: index });
            }
            if let Some(reason) = turn.fault.as_ref().and_then(Fault::invalid) {
                return Err(ScriptError::BadFault { turn: index, reason });
            }
        }
        Ok(())
    }
}

/// What a script answers when its turns have run out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// A text without a tool call, which ends the agent's run; `"Script finished."` by default.
    Say(String),
    /// The last turn again, for ever: how to test turn limits, budgets and time-outs. Without turns, an
    /// empty text.
    RepeatLast,
}

impl Default for Ending {
    fn default() -> Self {
        Self::Say("Script finished.".to_owned())
    }
}
