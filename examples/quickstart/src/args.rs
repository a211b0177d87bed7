use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, ValueEnum, value_parser};

/// Give a coding agent a ticket, and get a commit.
///
/// Starts a database, takes a ticket, lets an agent work on it in a checkout of its own, and shows what happens.
/// It ends with a commit on a branch of its own, a stored diff, a cost and a full event log. Your working tree is
/// never touched.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, after_long_help = MORE)]
pub(crate) struct Args {
    /// The repository to work in: a path, or a URL that git can clone [default: a small demo project]
    ///
    /// At a URL the branch is pushed, with the rights that your git has.
    #[arg(long, value_name = "PATH|URL", requires = "prompt", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) repo: Option<String>,

    /// What the agent shall do, or `-` to read it from standard input [default: the demo's ticket]
    ///
    /// Its first line is the ticket's title. Needed with --repo.
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: Option<String>,

    /// Who works on it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) provider: Choice,

    /// The model [default: the agent's own]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: Option<String>,

    /// Plays this recorded session instead of a real agent
    #[arg(long, value_name = "FILE")]
    pub(crate) recording: Option<PathBuf>,

    /// The branch for the work [default: a fresh one, named after the ticket]
    ///
    /// Work on a branch that exists goes on from where it is. One that is checked out is refused.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), help_heading = "Git")]
    pub(crate) branch: Option<String>,

    /// The branch, tag or commit to start from [default: the repository's default branch]
    #[arg(long, value_name = "REF", value_parser = NonEmptyStringValueParser::new(), help_heading = "Git")]
    pub(crate) base: Option<String>,

    /// Keeps the checkout that the agent worked in
    ///
    /// Otherwise it stays only if the run did not succeed and there is work in it.
    #[arg(long, help_heading = "Git")]
    pub(crate) keep: bool,

    /// Stops the agent once it has cost more than this, as far as it says what it costs
    #[arg(long, value_name = "CENTS", value_parser = value_parser!(i64).range(1..), help_heading = "Limits")]
    pub(crate) max_cost_cents: Option<i64>,

    /// Stops the agent after this many turns
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), help_heading = "Limits")]
    pub(crate) max_turns: Option<u32>,

    /// Stops the agent after this time
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..), help_heading = "Limits")]
    pub(crate) time_limit: Option<u32>,

    /// Where everything is kept: the database, the demo project and the checkouts
    ///
    /// By default this is the folder `assembly-lime/quickstart` where your system keeps the state of programs
    /// (~/.local/state on Linux, ~/Library/Application Support on macOS). A second run goes on with what is there;
    /// one process can use it at a time. To start anew, delete it.
    #[arg(long, value_name = "DIR", help_heading = "Storage")]
    pub(crate) data_dir: Option<PathBuf>,

    /// A PostgreSQL server to keep everything in, instead of the database in the data folder
    ///
    /// Its tables are made or brought up to date. Other programs can read your command line; to keep a password out
    /// of it, use ~/.pgpass or a URL without one.
    #[arg(long, value_name = "URL", value_parser = NonEmptyStringValueParser::new(), help_heading = "Storage")]
    pub(crate) database_url: Option<String>,

    /// Prints the recorded events on standard output, one line of JSON each, and nothing else
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Tells more: logs on standard error, and the agent's thoughts in full
    #[arg(long, short, help_heading = "Output")]
    pub(crate) verbose: bool,
}

/// Who works on the ticket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// Claude or Codex, whichever is installed and has a key; for the demo without either, a recorded session
    #[default]
    Auto,
    /// Claude Code
    Claude,
    /// Codex
    Codex,
    /// A recorded session, which needs no key and no network
    Replay,
}

const EXAMPLES: &str = "\
Examples, where `quickstart` is `cargo run -p quickstart --`:
  quickstart                                          the demo; needs no key and no network
  quickstart --repo . --prompt \"Fix the failing test\"
  quickstart --repo . --provider codex --prompt - <ticket.md
  quickstart --json | jq -r .type

Exit status: 0 done, 1 the run failed or was cancelled, 2 it could not start.
'--help' tells more.";

const MORE: &str = "\
Examples, where `quickstart` is `cargo run -p quickstart --`:
  quickstart
      The demo: a small project, its ticket, and an agent, or a recorded one if you have none.
  quickstart --repo . --prompt \"Fix the failing test\"
      Your repository and your agent.
  quickstart --repo . --provider codex --prompt - <ticket.md
      A ticket from a file.
  quickstart --repo . --branch lime/fix --prompt \"Add a test for it, too\"
      Goes on with the work on a branch.
  quickstart --json | jq -r .type
      The events, for programs.

Agents:
  Claude is the program `claude` with a key in ANTHROPIC_API_KEY; Codex is `codex` with a key in OPENAI_API_KEY.

Stopping:
  Ctrl-C or SIGTERM cancels the run: the agent and all that it has started is stopped, and the run is recorded as
  cancelled. Once more ends the program at once, and the agent with it.

Exit status:
  0    done
  1    the run failed or was cancelled
  2    it could not start: the message says why, and nothing was changed
  130  interrupted before the run began, or twice";
