use std::path::PathBuf;

use lime_core::governance::PriceTable;
use secrecy::SecretString;

use crate::command::Retries;
use crate::provider::CodexProvider;

/// Sets a [`CodexProvider`] up; see its methods for what is set if nothing is said.
#[derive(Debug)]
#[must_use]
pub struct CodexBuilder {
    pub(crate) provider: CodexProvider,
}

impl CodexBuilder {
    /// The program; if not set, the one that `LIME_CODEX_BIN` names, or `codex` in the worker's `PATH`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.provider.binary = Some(path.into());
        self
    }

    /// The API key; if not set, the login.
    pub fn api_key(mut self, key: impl Into<SecretString>) -> Self {
        self.provider.api_key = Some(key.into());
        self
    }

    /// The folder with the `auth.json` of a stored login, such as `~/.codex`; if not set, there is none.
    pub fn login(mut self, folder: impl Into<PathBuf>) -> Self {
        self.provider.login = Some(folder.into());
        self
    }

    /// The base URL of the API, with its version (`https://…/v1`); if not set, OpenAI's.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.provider.base_url = Some(url.into());
        self
    }

    /// The model of runs that name none; if not set, Codex's default.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.provider.model = Some(model.into());
        self
    }

    /// What models cost; if not set, the shipped list.
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.provider.prices = prices;
        self
    }

    /// How often Codex repeats a call that failed, and a stream that broke, in which a call is repeated anew; 3 and
    /// 2 if not set.
    pub fn retries(mut self, request: u32, stream: u32) -> Self {
        self.provider.retries = Retries { request, stream };
        self
    }

    /// Whether commands in a sandbox that may write have the network; not, if not set.
    pub fn network(mut self, allow: bool) -> Self {
        self.provider.network = allow;
        self
    }

    /// Whether the repository's own `.codex` folder and `AGENTS.md` are loaded; not, if not set.
    ///
    /// - The folder's settings name programs (MCP servers) that Codex starts outside of the sandbox, and rules by
    ///   which commands leave it: only for repositories whose every contributor you trust with the worker.
    pub fn project_settings(mut self, load: bool) -> Self {
        self.provider.project_settings = load;
        self
    }

    /// A variable for every run's environment, such as `HOME` or `PATH`; never a secret.
    pub fn pass(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.provider.passed.insert(name.into(), value.into());
        self
    }

    /// The provider.
    pub fn build(self) -> CodexProvider {
        self.provider
    }
}
