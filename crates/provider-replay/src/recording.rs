use std::fs;
use std::path::Path;

use lime_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use crate::read::{Lines, read};
use crate::step::Step;

/// A session that was written down: what an agent said, called and changed.
///
/// - Made by [`parse`](Recording::parse) or [`load`](Recording::load), which check all of it: what has been read
///   can be played, except that the files of a worktree may differ from those of the recording.
#[derive(Debug, Clone)]
pub struct Recording {
    pub(crate) header: Header,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    name: Name,
    model: Option<String>,
    when: Option<String>,
    ticket: Option<RecordedTicket>,
}

/// The ticket that a recording is about.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTicket {
    /// The title, in one line.
    pub title: String,
    /// What is to be done.
    pub description: String,
}

impl Recording {
    /// The version of the format that this crate plays.
    pub const VERSION: u32 = 1;
    /// The most bytes of a recording: 4 MiB.
    pub const MAX_BYTES: usize = 4 << 20;
    /// The most steps of a recording.
    pub const MAX_STEPS: usize = 10_000;

    /// Reads a recording from its text.
    ///
    /// - Fails with [`Invalid`](ErrorKind::Invalid) and the line if the text breaks the format, with
    ///   [`LimitExceeded`](ErrorKind::LimitExceeded) if it has more than [`MAX_BYTES`](Recording::MAX_BYTES).
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > Self::MAX_BYTES {
            return Err(too_long());
        }
        read(text).map_err(|fault| {
            let line = Lines::of(text).number(fault.at);
            Error::invalid("recording.parse", format!("line {line}: {}", fault.message))
        })
    }

    /// Reads a recording from a file.
    ///
    /// - Fails as [`parse`](Recording::parse) does, and with [`Missing`](ErrorKind::Missing) if the file cannot be
    ///   read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let missing = |error| {
            Error::new(ErrorKind::Missing, "recording.load", "the recording cannot be read")
                .with("file", path.display())
                .because(error)
        };
        // Asked first, so that a wrong path does not fill the memory.
        if fs::metadata(path).map_err(missing)?.len() > Self::MAX_BYTES as u64 {
            return Err(too_long().with("file", path.display()));
        }
        Self::parse(&fs::read_to_string(path).map_err(missing)?)
            .map_err(|error| error.with("file", path.display()))
    }

    /// The name, which its sessions' ids have in them.
    pub fn name(&self) -> &str {
        &self.header.name.0
    }

    /// The model that it was recorded with.
    pub fn model(&self) -> Option<&str> {
        self.header.model.as_deref()
    }

    /// The ticket that it is about.
    pub fn ticket(&self) -> Option<&RecordedTicket> {
        self.header.ticket.as_ref()
    }

    /// The text that a prompt must have in it for this recording to be played; any prompt will do, if none.
    pub fn when(&self) -> Option<&str> {
        self.header.when.as_deref()
    }
}

/// 1 to 80 characters without control characters.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
struct Name(String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(name: String) -> std::result::Result<Self, &'static str> {
        if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
            return Err("`name` has 1 to 80 characters, and no control characters");
        }
        Ok(Self(name))
    }
}

fn too_long() -> Error {
    let message = format!("a recording has at most {} bytes", Recording::MAX_BYTES);
    Error::new(ErrorKind::LimitExceeded, "recording.parse", message)
}
