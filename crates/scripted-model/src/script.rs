//! What the model will say: a script of turns, made of steps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ScriptError;
use crate::fault::Fault;

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
    /// The text that answers side requests (titles, warm-ups, summaries).
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
    /// - The same script works with Claude Code and Codex; see [`Step::WriteFile`].
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
    /// The last turn again, for ever: how to test turn limits, budgets and time-outs.
    RepeatLast,
}

impl Default for Ending {
    fn default() -> Self {
        Self::Say("Script finished.".to_owned())
    }
}

/// One answer of the model.
///
/// - A turn with tool calls is followed by the next turn once the agent has run the tools; a turn without
///   ends the agent's run, and the next turn answers the next prompt.
/// - A turn without steps answers an empty text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// What the answer consists of, in order.
    pub steps: Vec<Step>,
    /// The tokens the answer claims to have used.
    pub usage: Usage,
    /// Milliseconds before the answer begins; at most an hour.
    pub delay_ms: u64,
    /// Milliseconds before each delta of a streamed answer; at most an hour.
    pub delta_delay_ms: u64,
    /// How many characters a delta of a streamed answer holds; at least 1, by default 24.
    pub delta_chars: usize,
    /// What goes wrong instead of, or in the middle of, this turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// How many requests the fault hits before the turn plays well; without it, every one.
    ///
    /// - Counted per turn over all conversations of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault_times: Option<u32>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            usage: Usage::default(),
            delay_ms: 0,
            delta_delay_ms: 0,
            delta_chars: 24,
            fault: None,
            fault_times: None,
        }
    }
}

impl Turn {
    /// Makes an empty turn.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Says a text.
    #[must_use]
    pub fn say(self, text: impl Into<String>) -> Self {
        self.step(Step::Say(text.into()))
    }

    /// Thinks a text aloud.
    #[must_use]
    pub fn think(self, text: impl Into<String>) -> Self {
        self.step(Step::Think(text.into()))
    }

    /// Reads a file.
    #[must_use]
    pub fn read_file(self, path: impl Into<String>) -> Self {
        self.step(Step::ReadFile(path.into()))
    }

    /// Writes a whole file; see [`Step::WriteFile`].
    #[must_use]
    pub fn write_file(self, path: impl Into<String>, contents: impl Into<String>) -> Self {
        self.step(Step::WriteFile { path: path.into(), contents: contents.into() })
    }

    /// Replaces whole lines of a file; see [`Step::ReplaceLines`].
    #[must_use]
    pub fn replace_lines(
        self,
        path: impl Into<String>,
        old: impl Into<String>,
        new: impl Into<String>,
    ) -> Self {
        self.step(Step::ReplaceLines { path: path.into(), old: old.into(), new: new.into() })
    }

    /// Runs a shell command.
    #[must_use]
    pub fn run_command(self, command: impl Into<String>) -> Self {
        self.step(Step::RunCommand(command.into()))
    }

    /// Calls a tool by name; see [`Step::CallTool`].
    #[must_use]
    pub fn call_tool(self, name: impl Into<String>, input: Value) -> Self {
        self.step(Step::CallTool { name: name.into(), input, only: None })
    }

    /// Calls a tool by name, on one API only.
    #[must_use]
    pub fn call_tool_on(self, api: Api, name: impl Into<String>, input: Value) -> Self {
        self.step(Step::CallTool { name: name.into(), input, only: Some(api) })
    }

    /// Sets the usage.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// Waits before the answer begins; whole milliseconds count.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay_ms = millis(delay);
        self
    }

    /// Streams slowly: `pause` before each delta of `chars` characters.
    #[must_use]
    pub fn paced(mut self, chars: usize, pause: Duration) -> Self {
        self.delta_chars = chars;
        self.delta_delay_ms = millis(pause);
        self
    }

    /// Fails every time.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self.fault_times = None;
        self
    }

    /// Fails for the first `times` requests, then plays well.
    #[must_use]
    pub fn fault_first(mut self, times: u32, fault: Fault) -> Self {
        self.fault = Some(fault);
        self.fault_times = Some(times);
        self
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    pub(crate) fn delta_delay(&self) -> Duration {
        Duration::from_millis(self.delta_delay_ms)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A part of a turn.
///
/// - `ReadFile`, `WriteFile`, `ReplaceLines` and `RunCommand` are neutral: the server maps them to a tool that
///   the request offers, and answers status 400 with a plain message when none can do it.
/// - Paths may be relative to the agent's working directory, or absolute. `${CWD}` in a path, or in a string
///   of a tool's input, stands for that directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// Text for the reader.
    Say(String),
    /// Reasoning, sent whether or not the request asked for it.
    Think(String),
    /// Reads a file: Claude's `Read`, elsewhere `cat` in a shell.
    ReadFile(String),
    /// Writes a whole file, replacing it if it exists.
    ///
    /// - Claude: `Write`. It refuses to replace a file it has not read; the server then answers that refusal
    ///   with a `Read` and the same `Write`, without using up a turn.
    /// - Codex: `apply_patch` as offered (custom tool, function, or inside code mode's `exec`), or as a shell
    ///   heredoc, which Codex recognises.
    /// - Contents that a patch cannot say (empty, no newline at the end, carriage returns) go through the shell.
    /// - A shell command holds up to about 100 kB.
    WriteFile {
        /// The file.
        path: String,
        /// The whole of its new contents.
        contents: String,
    },
    /// Replaces the one occurrence of the whole lines `old` by the whole lines `new`.
    ///
    /// - Claude: `Edit`, after a `Read` if it asks for one. Codex: an update patch.
    ReplaceLines {
        /// The file.
        path: String,
        /// One or more whole lines, without the last newline.
        old: String,
        /// What stands in their place, without the last newline.
        new: String,
    },
    /// Runs a shell command in the working directory.
    RunCommand(String),
    /// Calls a tool by the name the agent gives it, offered or not.
    CallTool {
        /// The tool's name, such as `Bash` or `exec_command`.
        name: String,
        /// Its input. A string goes to a free-form ("custom") tool as it is.
        input: Value,
        /// Skips the step on the other API.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<Api>,
    },
}

/// The two model APIs that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// Anthropic's Messages API, as Claude Code uses it.
    Anthropic,
    /// OpenAI's Responses API, as Codex uses it.
    Openai,
}

/// The tokens that an answer claims to have used.
///
/// - The four counts do not overlap, as on Anthropic's wire. On OpenAI's wire, `input_tokens` is the sum of
///   the three input counts, with the cached part told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Input tokens that no cache held; 100 by default.
    pub input_tokens: u64,
    /// Input tokens read from a cache.
    pub cache_read_tokens: u64,
    /// Input tokens written to a cache.
    pub cache_write_tokens: u64,
    /// Output tokens, reasoning included; 10 by default.
    pub output_tokens: u64,
    /// The part of the output that was reasoning; told on OpenAI's wire only.
    pub reasoning_tokens: u64,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            input_tokens: 100,
            cache_read_tokens: 0,
            cache_write_tokens: 0,
            output_tokens: 10,
            reasoning_tokens: 0,
        }
    }
}

/// Headers by name, for a fault's HTTP answer.
pub type Headers = BTreeMap<String, String>;
