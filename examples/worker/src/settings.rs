//! What the environment says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use assembly_lime::ports::WorkerName;
use assembly_lime::{KeepWorktree, WorkerConfig};
use secrecy::SecretString;

use crate::exit::Refusal;

/// Everything that a worker process is told; each field is a variable of `variables`.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) database_url: SecretString,
    pub(crate) database_connections: u32,
    pub(crate) database_notify: bool,
    pub(crate) migrate: bool,
    pub(crate) redis_url: Option<SecretString>,
    #[cfg(feature = "redis")]
    pub(crate) redis_prefix: Option<String>,
    #[cfg(feature = "redis")]
    pub(crate) redis_relay: bool,
    pub(crate) state_dir: PathBuf,
    /// Those that must be there; where none are named, those that are.
    pub(crate) providers: Option<Vec<Agent>>,
    pub(crate) recordings: Option<PathBuf>,
    pub(crate) prices: Option<PathBuf>,
    pub(crate) master_keys: Option<SecretString>,
    pub(crate) worker: WorkerConfig,
    pub(crate) grace: Duration,
    pub(crate) http_addr: SocketAddr,
}

/// How and what is logged.
#[derive(Debug)]
pub(crate) struct LogSettings {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// A kind of agent that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    Claude,
    Codex,
    Replay,
}

impl Agent {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Replay => "replay",
        }
    }
}

/// What is logged unless `LIME_LOG` says otherwise.
const LOG_FILTER: &str = "info,sqlx=warn";
const HTTP_ADDR: &str = "127.0.0.1:9464";

/// Reads variables; an empty one counts as absent.
#[derive(Debug)]
pub(crate) struct Environment<F>(F);

impl Environment<fn(&str) -> Option<String>> {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        Self(|name| std::env::var(name).ok())
    }
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    pub(crate) fn logs(&self) -> Result<LogSettings, Refusal> {
        let format = match self.text("LIME_LOG_FORMAT").as_deref() {
            None | Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            Some(other) => {
                return Err(Refusal::variable(
                    "LIME_LOG_FORMAT",
                    format!("`{other}` is neither json nor text"),
                ));
            }
        };
        Ok(LogSettings { filter: self.text("LIME_LOG").unwrap_or_else(|| LOG_FILTER.to_owned()), format })
    }

    pub(crate) fn settings(&self) -> Result<Settings, Refusal> {
        let recordings = self.text("LIME_RECORDINGS").map(PathBuf::from);
        let providers = self.text("LIME_PROVIDERS").map(|names| providers(&names)).transpose()?;
        let wants_replay = providers.as_ref().is_some_and(|named| named.contains(&Agent::Replay));
        if wants_replay && recordings.is_none() {
            return Err(Refusal::variable(
                "LIME_RECORDINGS",
                "name the folder with the recordings that `replay` plays",
            ));
        }
        Ok(Settings {
            database_url: self
                .needed("DATABASE_URL", "name the database, as in postgres://user@host/lime")?
                .into(),
            database_connections: self.number("LIME_DATABASE_CONNECTIONS", 10, 2, 1_000)?,
            database_notify: self.flag("LIME_DATABASE_NOTIFY", true)?,
            migrate: self.flag("LIME_MIGRATE", false)?,
            redis_url: self.text("REDIS_URL").map(Into::into),
            #[cfg(feature = "redis")]
            redis_prefix: self.text("LIME_REDIS_PREFIX"),
            #[cfg(feature = "redis")]
            redis_relay: self.flag("LIME_REDIS_RELAY", true)?,
            state_dir: self
                .needed("LIME_STATE_DIR", "name a folder for checkouts and mirrors, such as /var/lib/lime")?
                .into(),
            providers,
            recordings,
            prices: self.text("LIME_PRICES").map(PathBuf::from),
            master_keys: self.text("ENCRYPTION_MASTER_KEY").map(SecretString::from),
            worker: self.worker()?,
            grace: self.seconds("LIME_GRACE_SECS", 30, 0, 86_400)?,
            http_addr: self.http_addr()?,
        })
    }

    fn worker(&self) -> Result<WorkerConfig, Refusal> {
        let default = WorkerConfig::default();
        let name = match self.text("LIME_WORKER_NAME") {
            Some(name) => {
                WorkerName::parse(name).map_err(|why| Refusal::variable("LIME_WORKER_NAME", why.rule))?
            }
            None => default.name.clone(),
        };
        let lease = self.seconds("LIME_LEASE_SECS", 30, 3, 3_600)?;
        let heartbeat = self.seconds("LIME_HEARTBEAT_SECS", lease.as_secs() / 3, 1, 1_200)?;
        if heartbeat > lease / 3 {
            let why = format!("must be at most a third of LIME_LEASE_SECS, which is {}", lease.as_secs());
            return Err(Refusal::variable("LIME_HEARTBEAT_SECS", why));
        }
        let keep_worktrees = match self.text("LIME_KEEP_CHECKOUTS").as_deref() {
            None | Some("unfinished") => KeepWorktree::Unfinished,
            Some("never") => KeepWorktree::Never,
            Some("always") => KeepWorktree::Always,
            Some(other) => {
                let why = format!("`{other}` is none of never, unfinished, always");
                return Err(Refusal::variable("LIME_KEEP_CHECKOUTS", why));
            }
        };
        Ok(WorkerConfig {
            name,
            concurrency: self.number("LIME_CONCURRENCY", 2, 1, 1_000)?,
            lease,
            heartbeat,
            poll: Duration::from_millis(self.number("LIME_POLL_MS", 1_000, 10, 60_000)?),
            hang_after: self.seconds("LIME_HANG_AFTER_SECS", 900, 1, 86_400)?,
            keep_worktrees,
            ..default
        })
    }

    fn http_addr(&self) -> Result<SocketAddr, Refusal> {
        let text = self.text("LIME_HTTP_ADDR").unwrap_or_else(|| HTTP_ADDR.to_owned());
        text.parse().map_err(|_| {
            Refusal::variable(
                "LIME_HTTP_ADDR",
                format!("`{text}` is no address and port, such as {HTTP_ADDR}"),
            )
        })
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.trim().is_empty())
    }

    fn needed(&self, name: &str, what: &str) -> Result<String, Refusal> {
        self.text(name).ok_or_else(|| Refusal::variable(name, format!("is not set: {what}")))
    }

    fn flag(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.text(name).as_deref() {
            None => Ok(default),
            Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(Refusal::variable(name, format!("`{other}` is neither 0 nor 1"))),
        }
    }

    fn number<T>(&self, name: &str, default: T, least: T, most: T) -> Result<T, Refusal>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.trim().parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            Ok(_) | Err(_) => {
                Err(Refusal::variable(name, format!("`{text}` is no whole number from {least} to {most}")))
            }
        }
    }

    fn seconds(&self, name: &str, default: u64, least: u64, most: u64) -> Result<Duration, Refusal> {
        self.number(name, default, least, most).map(Duration::from_secs)
    }
}

fn providers(names: &str) -> Result<Vec<Agent>, Refusal> {
    let mut named = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let agent = match name {
            "claude" => Agent::Claude,
            "codex" => Agent::Codex,
            "replay" => Agent::Replay,
            other => {
                let why = format!("`{other}` is none of claude, codex, replay");
                return Err(Refusal::variable("LIME_PROVIDERS", why));
            }
        };
        if !named.contains(&agent) {
            named.push(agent);
        }
    }
    if named.is_empty() {
        return Err(Refusal::variable(
            "LIME_PROVIDERS",
            "names nobody; leave it out to take whoever is there",
        ));
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variables::VARIABLES;
    use secrecy::ExposeSecret;

    const LEAST: &[(&str, &str)] =
        &[("DATABASE_URL", "postgres://a:secret@b/c"), ("LIME_STATE_DIR", "/srv/lime")];

    fn read(more: &[(&str, &str)]) -> Result<Settings, String> {
        let value = |name: &str| {
            let found = more.iter().chain(LEAST).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Environment(value).settings().map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn little_must_be_said() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.database_url.expose_secret(), "postgres://a:secret@b/c");
        assert_eq!(settings.worker.concurrency, 2);
        assert_eq!((settings.worker.lease.as_secs(), settings.worker.heartbeat.as_secs()), (30, 10));
        assert_eq!(settings.http_addr.to_string(), HTTP_ADDR);
        assert!(settings.providers.is_none() && !settings.migrate);
    }

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let told = |more: &[(&str, &str)]| {
            let mut settings = read(more).unwrap();
            // Each that is made up is another.
            settings.worker.name = WorkerName::parse("w").unwrap();
            format!("{settings:?}")
        };
        for (name, ..) in VARIABLES.iter().filter(|(_, default, _)| *default != "needed") {
            for blank in ["", " "] {
                assert_eq!(told(&[(name, blank)]), told(&[]), "{name}={blank:?}");
            }
        }
        let logs = Environment(|_: &str| Some(String::new())).logs().unwrap();
        assert_eq!((logs.filter.as_str(), logs.format), (LOG_FILTER, LogFormat::Json));
    }

    #[test]
    fn a_shorter_lease_brings_its_heartbeat() {
        let settings = read(&[("LIME_LEASE_SECS", "6")]).unwrap();
        assert_eq!(settings.worker.heartbeat.as_secs(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value) in [
            ("DATABASE_URL", ""),
            ("LIME_STATE_DIR", " "),
            ("LIME_CONCURRENCY", "0"),
            ("LIME_CONCURRENCY", "many"),
            ("LIME_LEASE_SECS", "1"),
            ("LIME_HEARTBEAT_SECS", "11"),
            ("LIME_POLL_MS", "-5"),
            ("LIME_HANG_AFTER_SECS", "1.5"),
            ("LIME_GRACE_SECS", "1d"),
            ("LIME_PROVIDERS", "claude,cursor"),
            ("LIME_PROVIDERS", ","),
            ("LIME_HTTP_ADDR", "localhost"),
            ("LIME_MIGRATE", "yes"),
            ("LIME_DATABASE_NOTIFY", "off"),
            ("LIME_KEEP_CHECKOUTS", "some"),
            ("LIME_DATABASE_CONNECTIONS", "1"),
        ] {
            let refused = read(&[(name, value)]).unwrap_err();
            assert!(refused.starts_with(&format!("{name}: ")), "{name}={value}: {refused}");
        }
        let refused = read(&[("LIME_PROVIDERS", "replay")]).unwrap_err();
        assert!(refused.starts_with("LIME_RECORDINGS: "), "{refused}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = read(&[("REDIS_URL", "redis://:hush@h")]).unwrap();
        let shown = format!("{settings:?}");
        assert!(!shown.contains("secret@") && !shown.contains("hush"), "{shown}");
    }
}
