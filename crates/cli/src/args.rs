use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, value_parser};
use lime_core::Id;
use lime_core::governance::{Approval, TimeZone};
use lime_core::identity::{ApiKeySecret, KeyPrefix, Permission, Slug};
use lime_core::planning::Ticket;
use lime_core::repos::Repository;
use lime_core::runs::{AgentMode, AgentRun, ProviderId, RunStatus, Seq};

use crate::age::Age;

/// Look after an Assembly Lime factory: its database, its queue and its runs
#[derive(Debug, Parser)]
#[command(name = "lime", version, after_help = STATUSES, after_long_help = MORE)]
pub(crate) struct Lime {
    /// The PostgreSQL server that the factory keeps everything in
    ///
    /// Other programs can read your command line; to keep a password out of it, use the variable, ~/.pgpass, or a URL
    /// without one.
    #[arg(
        long,
        global = true,
        env = "DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) database_url: Option<String>,

    /// The tenant, by its slug
    ///
    /// Not needed if there is only one, nor for a run or question that is named by its id; where it is given, what
    /// belongs to others is not found.
    #[arg(long, global = true, env = "LIME_TENANT", value_name = "SLUG", value_parser = slug)]
    pub(crate) tenant: Option<Slug>,

    /// Prints one JSON document instead of text; for `runs follow`, one on each line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Does what cannot be undone without asking
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Brings the tables up to date
    Migrate {
        /// Changes nothing: says what is missing, and ends with 1 if anything is
        #[arg(long, visible_alias = "dry-run")]
        check: bool,
    },
    /// Tenants and their limits
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// API keys of a tenant
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// Runs: look at them, and say what becomes of them
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Questions of runs to people
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
    /// Budgets: what is spent and held of them
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// What agents are told, layer by layer
    #[command(subcommand)]
    Instructions(InstructionsCommand),
    /// Runs that failed because they lost worker after worker
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// The line of runs that wait for workers, of all tenants
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Deletes the events of runs that ended long ago; the runs stay
    ///
    /// Of all tenants. The runs keep their steps, tool calls, diffs and costs.
    Purge {
        /// How long ago they ended at least, such as 90d, 12h or 4w
        #[arg(long, value_name = "AGE", value_parser = Age::parse)]
        older_than: Age,
        /// Deletes nothing, and says how many it would be
        #[arg(long)]
        dry_run: bool,
    },
    /// The keys that secrets are sealed with
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Makes room for the events of the coming months; workers do it, too
    Maintain,
    /// Looks whether everything is as it should be; ends with 1 if something is not
    Doctor {
        /// The folder in which workers keep checkouts, to look at its disk
        #[arg(long, env = "LIME_STATE_DIR", value_name = "DIR")]
        state_dir: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TenantsCommand {
    /// Every tenant, and how many of its runs wait and are worked
    List,
    /// Makes a tenant
    Create {
        /// Its short name in addresses: 1 to 63 of a-z, 0-9 and `-`
        #[arg(value_parser = slug)]
        slug: Slug,
        /// The name that people see [default: the slug]
        #[arg(long)]
        name: Option<String>,
    },
    /// Limits how many of a tenant's runs are worked at once
    Limit {
        /// The tenant
        #[arg(value_parser = slug)]
        slug: Slug,
        /// How many, 1 to 100000, or `none`
        #[arg(value_parser = most)]
        most: Most,
    },
    /// Sets where a tenant's days begin, for its budgets
    ///
    /// Periods that have begun keep what is spent in them under their names.
    TimeZone {
        /// The tenant
        #[arg(value_parser = slug)]
        slug: Slug,
        /// The zone by its IANA name, such as Europe/Berlin
        #[arg(value_parser = TimeZone::parse)]
        zone: TimeZone,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApiKeyCommand {
    /// Makes a key and prints it, this once
    ///
    /// It is hashed with the first of the peppers in LIME_API_KEY_PEPPERS, which must be those of the servers.
    Create(ApiKeyCreateArgs),
    /// The keys that can be used, and when each was last used
    List {
        /// Shows those that were revoked or have expired, too
        #[arg(long)]
        all: bool,
    },
    /// Takes a key back, for good
    Revoke {
        /// The first 8 characters after `lime_`, as the list shows them; do not write the whole key
        #[arg(value_parser = key_prefix)]
        prefix: KeyPrefix,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ApiKeyCreateArgs {
    /// What it is for
    #[arg(long)]
    pub(crate) name: String,
    /// What it may do, such as runs:create; may be repeated
    #[arg(long = "scope", value_name = "PERMISSION", required = true, value_parser = Permission::parse)]
    pub(crate) scopes: Vec<Permission>,
    /// Whose it is, by the address: it then never may do more than they may [default: the tenant's own]
    #[arg(long, value_name = "EMAIL")]
    pub(crate) user: Option<String>,
    /// The only project that it is for, by its key or id [default: all of the tenant]
    #[arg(long, value_name = "KEY|ID")]
    pub(crate) project: Option<String>,
    /// How long it counts, such as 90d [default: until it is revoked]
    #[arg(long, value_name = "AGE", value_parser = Age::parse)]
    pub(crate) expires_in: Option<Age>,
}

/// A limit on concurrent runs; none is a word of its own, so that it is never meant by accident.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most(pub(crate) Option<i32>);

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// The newest runs
    List {
        /// Only those in this state; may be repeated
        #[arg(long, value_name = "STATE", value_parser = RunStatus::parse)]
        status: Vec<RunStatus>,
        /// Only those of this project, by its key or id
        #[arg(long, value_name = "KEY|ID")]
        project: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Everything about a run: attempts, steps, effects, questions
    Show {
        /// The run
        id: Id<AgentRun>,
    },
    /// What happens in a run, from its beginning to its end, live
    ///
    /// Ctrl-C ends the looking and not the run.
    Follow {
        /// The run
        id: Id<AgentRun>,
        /// Begins after this position
        #[arg(long, value_name = "SEQ", default_value_t = 0, value_parser = value_parser!(i64).range(0..))]
        after: Seq,
    },
    /// Ends a run, whether it waits or is worked
    Cancel {
        /// The run
        id: Id<AgentRun>,
    },
    /// Puts a run on hold; one that is worked is handed back first
    Pause {
        /// The run
        id: Id<AgentRun>,
    },
    /// Lets a paused run go on
    Resume {
        /// The run
        id: Id<AgentRun>,
    },
    /// Puts a run that failed back into the line
    Requeue {
        /// The run
        id: Id<AgentRun>,
    },
    /// Says something to the agent of a run
    Say {
        /// The run
        id: Id<AgentRun>,
        /// What is said, or `-` to read it from standard input
        text: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApprovalsCommand {
    /// Open questions, the oldest first
    List {
        /// Only those of this run, answered ones too
        #[arg(long, value_name = "ID")]
        run: Option<Id<AgentRun>>,
        /// Asks every tenant
        #[arg(long, conflicts_with = "run")]
        all_tenants: bool,
    },
    /// Answers yes
    Approve(AnswerArgs),
    /// Answers no
    Deny(AnswerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// The question
    pub(crate) id: Id<Approval>,
    /// What is said with it, for the agent
    #[arg(long)]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BudgetCommand {
    /// Each budget as it stands: spent, held and left in its period, and until when
    ///
    /// Those for each run are shown for the runs at work.
    Show {
        /// Asks every tenant
        #[arg(long)]
        all_tenants: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstructionsCommand {
    /// What the agent of a run would be told if it were submitted now
    ///
    /// Of the repository's own files (AGENTS.md and the like) it is told what the commit had that was read last.
    Preview(PreviewArgs),
    /// What two runs were told differently
    Diff {
        /// The one run
        before: Id<AgentRun>,
        /// The other run
        after: Id<AgentRun>,
    },
}

/// What the run would be.
#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// Its project, by its key or id; the ticket's, unless given
    #[arg(long, value_name = "KEY|ID")]
    pub(crate) project: Option<String>,
    /// Its repository; the ticket's, unless given
    #[arg(long, value_name = "ID")]
    pub(crate) repository: Option<Id<Repository>>,
    /// Its ticket
    #[arg(long, value_name = "ID")]
    pub(crate) ticket: Option<Id<Ticket>>,
    /// Its provider, such as claude or codex
    #[arg(long, value_name = "NAME", value_parser = |name: &str| ProviderId::parse(name))]
    pub(crate) provider: ProviderId,
    /// What it does: plan, implement, bugfix or review
    #[arg(long, default_value = "implement", value_parser = AgentMode::parse)]
    pub(crate) mode: AgentMode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// The newest of them
    List {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Puts them back into the line
    Requeue {
        /// One of them
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<Id<AgentRun>>,
        /// All of the tenant
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// How many runs are where in the line
    Depth,
    /// Gives queued runs that have lost their place in the line a new one; workers do it, too
    Sweep,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Wraps the data keys of every tenant, or of the one that is named, under the newest master key
    ///
    /// ENCRYPTION_MASTER_KEY has the master keys as `id:key,id:key`, the newest first. Factories work on meanwhile; what is
    /// broken off is gone on with when it is said again.
    Rotate {
        /// Makes new data keys too, seals every secret with them, and drops the older ones
        #[arg(long)]
        data_keys: bool,
    },
}

/// How much of a list is shown.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..=500))]
    pub(crate) limit: u32,
    /// Goes on after this id: the last one of the list before
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<Id<AgentRun>>,
    /// Asks every tenant
    #[arg(long)]
    pub(crate) all_tenants: bool,
}

fn key_prefix(text: &str) -> Result<KeyPrefix, lime_core::Invalid> {
    KeyPrefix::parse(text.strip_prefix(ApiKeySecret::PREFIX).unwrap_or(text))
}

fn slug(text: &str) -> Result<Slug, lime_core::Invalid> {
    Slug::parse(text)
}

fn most(text: &str) -> Result<Most, String> {
    match text {
        "none" => Ok(Most(None)),
        number => match number.parse() {
            Ok(most) => Ok(Most(Some(most))),
            Err(_) => Err("must be a whole number, or `none`".to_owned()),
        },
    }
}

const STATUSES: &str = "\
Exit status: 0 done, 1 not done or not well, 2 asked for wrongly, 3 what was named is not there.
'--help' tells more; docs/runbooks.md says which command helps in which trouble.";

const MORE: &str = "\
Exit status:
  0  done
  1  not done, or something is not well; the message says why and what to do
  2  asked for in a way that cannot be done, or not confirmed where nobody could be asked
  3  what was named is not there, or belongs to another tenant

Answers are on standard output, all else is on standard error. RUST_LOG=debug shows what is asked of the database.
docs/runbooks.md says which command helps in which trouble.";
