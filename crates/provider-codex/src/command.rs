//! The command line, the environment and the settings that Codex is started with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lime_core::governance::EnvValue;
use lime_core::{Error, Result};
use lime_provider_cli::CliCommand;
use secrecy::SecretString;
use serde_json::json;

use crate::gate::Gate;
use crate::home::Home;
use crate::tools::Tools;

/// The variables that Codex gets from the worker's own environment, where the worker has them.
///
/// - Where things are (`HOME`, `PATH`, `SHELL`, `USER`, `LOGNAME`), language and time, proxies and certificates.
/// - Not `TMPDIR`: each run has a folder of its own for temporary files.
pub const PASSED_ENV: &[&str] = &[
    "ALL_PROXY",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "USER",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The variables that Codex gets from this provider.
///
/// - `CODEX_HOME` and `TMPDIR` are the run's own folders; a run cannot set them itself.
/// - `OPENAI_API_KEY` is there if a key is used, and not if a stored login is.
pub const CONFIGURED_ENV: &[&str] = &[CODEX_HOME, API_KEY, TMPDIR];

pub(crate) const API_KEY: &str = "OPENAI_API_KEY";
pub(crate) const BASE_URL: &str = "OPENAI_BASE_URL";
/// Where OpenAI's API is, unless a base URL is given.
const OPENAI: &str = "https://api.openai.com/v1";
const CODEX_HOME: &str = "CODEX_HOME";
const TMPDIR: &str = "TMPDIR";

/// The features that are switched off.
///
/// - The first four call other hosts than the model's.
/// - Goals and sub-agents would call the model beside the run's limits.
/// - The last one would try for ever to reach a provider that is not there, whatever number of retries is set.
const OFF: [&str; 7] = [
    "plugins",
    "apps",
    "remote_plugin",
    "plugin_sharing",
    "goals",
    "multi_agent",
    "unbounded_connection_retries",
];

/// How Codex pays for its calls.
#[derive(Debug, Clone)]
pub(crate) enum Credentials {
    Key(SecretString),
    /// The folder with a stored login's `auth.json`.
    Login(PathBuf),
}

impl Credentials {
    pub(crate) fn key(&self) -> Option<&SecretString> {
        match self {
            Self::Key(key) => Some(key),
            Self::Login(_) => None,
        }
    }

    pub(crate) fn login(&self) -> Option<&Path> {
        match self {
            Self::Key(_) => None,
            Self::Login(folder) => Some(folder),
        }
    }
}

/// How often Codex repeats a call of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    pub(crate) request: u32,
    pub(crate) stream: u32,
}

/// What the settings are made from.
#[derive(Debug)]
pub(crate) struct Settings<'a> {
    pub(crate) workdir: &'a str,
    /// Whether the repository's own settings are loaded.
    pub(crate) trusted: bool,
    pub(crate) tools: Tools,
    pub(crate) network: bool,
    /// Whether calls pass the gate.
    pub(crate) gated: bool,
    /// Whether the sandbox may write `/tmp`.
    pub(crate) slash_tmp: bool,
    pub(crate) retries: Retries,
    pub(crate) credentials: &'a Credentials,
    pub(crate) base_url: Option<&'a str>,
}

impl Settings<'_> {
    /// The text of `config.toml`.
    ///
    /// - In a file, since a command line can be read by every user of the machine and a base URL may hold a
    ///   password.
    /// - The working folder is marked as not trusted, unless it is to be. Codex would trust it by itself as soon as
    ///   it may write there, and start what the repository's own `.codex/config.toml` names, outside of the sandbox.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::from(
            "check_for_update_on_startup = false\n\
             model_provider = \"lime\"\n",
        );
        if !self.tools.search {
            text.push_str("web_search = \"disabled\"\n");
        }
        let (name, auth) = match self.credentials {
            Credentials::Key(_) => ("Assembly Lime", format!("env_key = {}", quoted(API_KEY))),
            // Only a provider of this name is given what a ChatGPT login needs.
            Credentials::Login(_) => ("OpenAI", "requires_openai_auth = true".to_owned()),
        };
        text.push_str(&format!(
            "\n[model_providers.lime]\nname = {}\n{auth}\nwire_api = \"responses\"\nsupports_websockets = false\n\
             request_max_retries = {}\nstream_max_retries = {}\n",
            quoted(name),
            self.retries.request,
            self.retries.stream,
        ));
        // With a login, Codex itself knows where to go.
        let base_url = match self.credentials {
            Credentials::Key(_) => Some(self.base_url.unwrap_or(OPENAI)),
            Credentials::Login(_) => self.base_url,
        };
        if let Some(base_url) = base_url {
            text.push_str(&format!("base_url = {}\n", quoted(base_url)));
        }
        let trust = if self.trusted { "trusted" } else { "untrusted" };
        text.push_str(&format!("\n[projects.{}]\ntrust_level = {}\n", quoted(self.workdir), quoted(trust)));
        text.push_str(&format!(
            "\n[sandbox_workspace_write]\nnetwork_access = {}\nexclude_slash_tmp = {}\n\
             \n[shell_environment_policy]\ninherit = \"core\"\n\
             \n[analytics]\nenabled = false\n\
             \n[skills.bundled]\nenabled = false\n",
            self.network, !self.slash_tmp
        ));
        text.push_str("\n[features]\n");
        for feature in OFF {
            text.push_str(&format!("{feature} = false\n"));
        }
        text.push_str(&format!("shell_tool = {}\nview_image = {}\n", self.tools.shell, self.tools.image));
        if self.gated {
            text.push_str(&Gate::settings());
        }
        text
    }
}

/// The command: `codex app-server`, with exactly the environment that is documented.
pub(crate) fn command(
    binary: &Path,
    workdir: &Path,
    passed: &BTreeMap<String, String>,
    home: &Home,
    credentials: &Credentials,
    env: &[EnvValue],
) -> CliCommand {
    let mut command = CliCommand::new(binary).arg("app-server").current_dir(workdir);
    for (name, value) in passed {
        command = command.env(name, value);
    }
    for var in env {
        command = command.secret_env(var.key().as_str(), var.value().clone());
    }
    if let Some(key) = credentials.key() {
        command = command.secret_env(API_KEY, key.clone());
    }
    command.env(CODEX_HOME, home.path()).env(TMPDIR, home.tmp())
}

/// Checks the variables of a run.
pub(crate) fn check_env(env: &[EnvValue]) -> Result<()> {
    let brings = |name: &str| env.iter().any(|var| var.key().as_str() == name);
    for own in [CODEX_HOME, TMPDIR] {
        if brings(own) {
            let message = format!("env: {own} is the provider's own; each run gets a private folder there");
            return Err(Error::invalid("codex.start", message));
        }
    }
    if brings(BASE_URL) && !brings(API_KEY) {
        let message =
            format!("env: {BASE_URL} needs {API_KEY} beside it; the worker's key is not sent there");
        return Err(Error::invalid("codex.start", message));
    }
    Ok(())
}

/// A TOML string; JSON's escapes are TOML's, but for DEL, which JSON lets stand.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(credentials: &Credentials, base_url: Option<&str>) -> String {
        Settings {
            workdir: "/a/\"b\"\n",
            trusted: false,
            tools: Tools { shell: true, edit: true, search: false, image: false },
            network: false,
            gated: false,
            slash_tmp: true,
            retries: Retries { request: 3, stream: 2 },
            credentials,
            base_url,
        }
        .to_toml()
    }

    #[test]
    fn the_key_is_not_in_the_settings() {
        let key = Credentials::Key(SecretString::from("sk-secret"));
        let text = settings(&key, None);
        assert!(!text.contains("sk-secret"));
        assert!(text.contains("env_key = \"OPENAI_API_KEY\""));
        assert!(text.contains("base_url = \"https://api.openai.com/v1\""));
        assert!(text.contains("web_search = \"disabled\""));
        assert!(text.contains("[projects.\"/a/\\\"b\\\"\\n\"]\ntrust_level = \"untrusted\""));
    }

    #[test]
    fn a_login_goes_where_codex_sends_it() {
        let login = Credentials::Login(PathBuf::from("home"));
        let text = settings(&login, None);
        assert!(text.contains("requires_openai_auth = true"));
        assert!(!text.contains("base_url") && !text.contains("env_key"));
        assert!(settings(&login, Some("http://127.0.0.1:1")).contains("base_url = \"http://127.0.0.1:1\""));
    }

    #[test]
    fn the_providers_own_variables_and_a_foreign_address_without_a_key_are_refused() {
        let var = |name: &str| EnvValue::secret(name, "x").unwrap();
        for name in [CODEX_HOME, TMPDIR, BASE_URL] {
            assert!(check_env(&[var(name)]).is_err(), "{name}");
        }
        assert!(check_env(&[var("GREETING"), var(BASE_URL), var(API_KEY)]).is_ok());
    }
}
