//! The agent's environment: an allow-list, and nothing else.

use std::collections::BTreeMap;

use lime_provider_cli::CliCommand;
use secrecy::SecretString;

/// The variables that the agent gets from the worker's own environment, where the worker has them.
///
/// - Where it lives and what it finds (`HOME`, `CLAUDE_CONFIG_DIR`, `PATH`, `SHELL`, `TMPDIR`, `USER`, `LOGNAME`),
///   language and time (`LANG`, `LC_ALL`, `TZ`), proxies and certificates.
pub const PASSED_ENV: &[&str] = &[
    "CLAUDE_CONFIG_DIR",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
    "USER",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The variables that the agent gets from this adapter, always with these values.
///
/// - No telemetry, no updates, no calls but those of the model.
/// - No memory beside the session: a run knows what it is told, not what another run in the same folder noted.
/// - No commands in the background: they would end with the run, unfinished.
/// - The CLI's second, unstreamed call after a break in a stream is left on: without it, such a break ends the run.
///   The pieces that came before the break may then differ from the whole message, which is what counts.
pub const FIXED_ENV: &[(&str, &str)] = &[
    ("CLAUDE_CODE_DISABLE_AUTO_MEMORY", "1"),
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_TELEMETRY", "1"),
];

/// The variables that the agent gets from the provider's settings, where these are set.
///
/// - `CLAUDE_CODE_OAUTH_TOKEN` is left out if there is an API key, which the CLI would prefer anyway.
pub const CONFIGURED_ENV: &[&str] = &[API_KEY, BASE_URL, MAX_RETRIES, OAUTH_TOKEN];

pub(crate) const API_KEY: &str = "ANTHROPIC_API_KEY";
pub(crate) const BASE_URL: &str = "ANTHROPIC_BASE_URL";
pub(crate) const OAUTH_TOKEN: &str = "CLAUDE_CODE_OAUTH_TOKEN";
pub(crate) const MAX_RETRIES: &str = "CLAUDE_CODE_MAX_RETRIES";

/// A set of variables, each with its value; a later one of the same name wins.
#[derive(Default)]
pub(crate) struct Environment(BTreeMap<String, SecretString>);

impl Environment {
    pub(crate) fn set(&mut self, name: &str, value: impl Into<SecretString>) {
        self.0.insert(name.to_owned(), value.into());
    }

    pub(crate) fn apply(self, command: CliCommand) -> CliCommand {
        self.0.into_iter().fold(command, |command, (name, value)| command.secret_env(name, value))
    }
}
