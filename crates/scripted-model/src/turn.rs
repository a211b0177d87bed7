//! One answer of the model, and the tokens it claims.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;
use crate::step::{Api, Step};

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

impl Usage {
    /// No tokens at all.
    pub const NONE: Self = Self {
        input_tokens: 0,
        cache_read_tokens: 0,
        cache_write_tokens: 0,
        output_tokens: 0,
        reasoning_tokens: 0,
    };
}
