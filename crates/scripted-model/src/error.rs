//! What can be wrong with a script, and what can keep a server from starting.

use std::time::Duration;

/// Why a script cannot be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The text is not a script in JSON.
    #[error("the text is not a script in JSON")]
    Json(#[from] serde_json::Error),
    /// The script is longer than a server will hold.
    #[error("the script has {turns} turns, and {limit} are allowed")]
    TooManyTurns {
        /// How many it has.
        turns: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A turn waits for too long.
    #[error("turn {turn} waits longer than {limit:?}")]
    DelayTooLong {
        /// The turn's index, from 0.
        turn: usize,
        /// The longest delay allowed.
        limit: Duration,
    },
    /// A turn's deltas would hold no characters.
    #[error("turn {turn} has `delta_chars` 0; it must be at least 1")]
    NoDelta {
        /// The turn's index, from 0.
        turn: usize,
    },
    /// A turn's fault cannot be put on the wire.
    #[error("turn {turn} has a fault that HTTP cannot carry: {reason}")]
    BadFault {
        /// The turn's index, from 0.
        turn: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The builder was given no script.
    #[error("a scripted model needs at least one script")]
    NoScript,
    /// Two scripts have the same name.
    #[error("two scripts are named `{0}`")]
    DuplicateName(String),
    /// A script's name cannot stand in a URL.
    #[error("`{0}` is no script name: use 1 to 64 of A-Z a-z 0-9 . _ -")]
    BadName(String),
    /// A script is refused.
    #[error("script `{name}` is refused")]
    Script {
        /// Its name.
        name: String,
        /// Why.
        source: ScriptError,
    },
    /// The machine gave no port on loopback, or no thread.
    #[error("the server could not be started on loopback")]
    Io(#[from] std::io::Error),
}
