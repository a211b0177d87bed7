use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use lime_core::governance::{EnvValue, Redactor};
use lime_core::ports::{AgentProvider, AgentSession, Readiness, SessionSpec};
use lime_core::runs::{Failure, FailureKind, ProviderId};
use lime_core::{Error, ErrorKind, Result};
use lime_provider_cli::{CliCommand, CliLimits, CliProcess, SpawnError, StopPlan, resolve_binary};
use secrecy::SecretString;
use tokio::time::timeout;

use crate::command::{command, environment, instructions};
use crate::environment::{API_KEY, BASE_URL, OAUTH_TOKEN, PASSED_ENV};
use crate::failure::NO_KEY;
use crate::permissions::Permissions;
use crate::questions::Questions;
use crate::session::{ClaudeSession, Parts, StillbornSession};

/// The variable that names the program, where it is not `claude` in `PATH`.
const BINARY_ENV: &str = "LIME_CLAUDE_BIN";
const BINARY: &str = "claude";
/// How often the CLI itself repeats a call that failed; its own default of 10 takes over 2 minutes.
const MAX_RETRIES: u32 = 4;
/// How long the program may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);
/// What a process may cost the worker.
///
/// - A line can hold a file or a picture that a tool read.
/// - The CLI reads nothing before it has started, which takes it seconds on a busy machine.
const LIMITS: CliLimits = CliLimits {
    max_line_bytes: 8 << 20,
    max_output_bytes: None,
    stderr_tail_bytes: 16 << 10,
    write_timeout: Duration::from_secs(60),
};

/// Runs Claude Code as an agent, through its stream-json control protocol.
///
/// - The program is the one that `LIME_CLAUDE_BIN` names, or `claude` in `PATH`; the key is `ANTHROPIC_API_KEY`,
///   or a login.
/// - Its environment is [`PASSED_ENV`], [`FIXED_ENV`](crate::FIXED_ENV), [`CONFIGURED_ENV`](crate::CONFIGURED_ENV)
///   and the run's own, and the kernel's [`RUN_MARK`](lime_provider_cli::RUN_MARK); a later one of the same name
///   wins.
/// - Sessions are kept below `HOME`, or `CLAUDE_CONFIG_DIR`: a session can be resumed where these and the working
///   folder are the same.
/// - Secrets that the agent is given are hidden in its events and reports.
///
/// ```no_run
/// use lime_core::ports::AgentProvider;
/// use lime_provider_claude::ClaudeProvider;
///
/// # async fn example() {
/// let claude = ClaudeProvider::from_env();
/// println!("{:?}", claude.readiness().await);
/// # }
/// ```
#[derive(Debug)]
pub struct ClaudeProvider {
    settings: Settings,
}

/// What a provider is set up with.
pub(crate) struct Settings {
    pub(crate) binary: Option<PathBuf>,
    pub(crate) api_key: Option<SecretString>,
    pub(crate) login_token: Option<SecretString>,
    pub(crate) base_url: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) max_retries: u32,
    pub(crate) project_settings: bool,
    pub(crate) passed: BTreeMap<String, String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("binary", &self.binary)
            .field("api_key", &self.api_key.is_some())
            .field("login_token", &self.login_token.is_some())
            .field("base_url", &self.base_url.is_some())
            .field("model", &self.model)
            .field("max_retries", &self.max_retries)
            .field("project_settings", &self.project_settings)
            .field("passed", &self.passed.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Sets a [`ClaudeProvider`] up; see its methods for what is set if nothing is said.
#[derive(Debug)]
#[must_use]
pub struct ClaudeBuilder {
    settings: Settings,
}

impl ClaudeProvider {
    /// The name of this provider.
    pub const ID: ProviderId = ProviderId::from_static("claude");

    /// A provider from the worker's environment: program, key or login, base URL, and [`PASSED_ENV`].
    ///
    /// - Reads `ANTHROPIC_API_KEY`, `CLAUDE_CODE_OAUTH_TOKEN` and `ANTHROPIC_BASE_URL`; an empty one counts as
    ///   absent.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut builder = Self::builder();
        builder.settings.api_key = set(API_KEY).map(SecretString::from);
        builder.settings.login_token = set(OAUTH_TOKEN).map(SecretString::from);
        builder.settings.base_url = set(BASE_URL);
        for name in PASSED_ENV {
            if let Some(value) = set(name) {
                builder = builder.pass(*name, value);
            }
        }
        builder.build()
    }

    /// A provider that takes nothing from the worker's environment but the program.
    pub fn builder() -> ClaudeBuilder {
        ClaudeBuilder {
            settings: Settings {
                binary: None,
                api_key: None,
                login_token: None,
                base_url: None,
                model: None,
                max_retries: MAX_RETRIES,
                project_settings: false,
                passed: BTreeMap::new(),
            },
        }
    }

    fn program(&self) -> Result<PathBuf, String> {
        match &self.settings.binary {
            Some(path) => Ok(path.clone()),
            None => resolve_binary(BINARY_ENV, BINARY).map_err(|error| error.to_string()),
        }
    }

    /// Where a key comes from; never what it is.
    fn credentials(&self) -> Option<String> {
        if self.settings.api_key.is_some() {
            return Some(API_KEY.to_owned());
        }
        if self.settings.login_token.is_some() {
            return Some(OAUTH_TOKEN.to_owned());
        }
        let passed = |name: &str| self.settings.passed.get(name).map(PathBuf::from);
        let folder = passed("CLAUDE_CONFIG_DIR").or_else(|| Some(passed("HOME")?.join(".claude")))?;
        folder.join(".credentials.json").is_file().then(|| format!("the login in {}", folder.display()))
    }

    /// The program's own word on its version; says why, if it cannot be run.
    async fn version(&self, program: &Path) -> Result<Option<String>, String> {
        let command = environment(&self.settings, &[])
            .map_err(|error| error.to_string())?
            .apply(CliCommand::new(program).arg("--version"));
        let mut process = CliProcess::spawn(&command, &LIMITS).map_err(|error| report(&error))?;
        let line = timeout(VERSION_PATIENCE, process.next_line()).await;
        process.stop(StopPlan::NOW).await;
        Ok(match line {
            Ok(Ok(Some(line))) => line.text.split_whitespace().next().map(str::to_owned),
            Ok(Ok(None) | Err(_)) | Err(_) => None,
        })
    }
}

impl ClaudeBuilder {
    /// The program; if not set, the one that `LIME_CLAUDE_BIN` names, or `claude` in the worker's `PATH`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.binary = Some(path.into());
        self
    }

    /// The API key; if not set, the CLI looks for a login.
    pub fn api_key(mut self, key: impl Into<SecretString>) -> Self {
        self.settings.api_key = Some(key.into());
        self
    }

    /// The base URL of the API; if not set, Anthropic's.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.settings.base_url = Some(url.into());
        self
    }

    /// The model of runs that name none; if not set, the CLI's default.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.settings.model = Some(model.into());
        self
    }

    /// How often the CLI itself repeats a call that failed; 4 if not set, with a second, two, four and so on between.
    pub fn max_retries(mut self, times: u32) -> Self {
        self.settings.max_retries = times;
        self
    }

    /// Whether the repository's own `.claude/settings.json` and `CLAUDE.md` are loaded; not, if not set.
    ///
    /// - The settings' hooks are commands that run without any question, and its rules approve tools: only for
    ///   repositories whose every contributor you trust with the worker.
    pub fn project_settings(mut self, load: bool) -> Self {
        self.settings.project_settings = load;
        self
    }

    /// A variable for every run's environment, such as `HOME` or `PATH`; never a secret.
    pub fn pass(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.passed.insert(name.into(), value.into());
        self
    }

    /// The provider.
    pub fn build(self) -> ClaudeProvider {
        ClaudeProvider { settings: self.settings }
    }
}

#[async_trait]
impl AgentProvider for ClaudeProvider {
    fn id(&self) -> ProviderId {
        Self::ID
    }

    async fn readiness(&self) -> Readiness {
        let program = match self.program() {
            Ok(program) => program,
            Err(why) => return Readiness::MissingBinary(missing_binary(&why)),
        };
        let version = match self.version(&program).await {
            Ok(version) => version.unwrap_or_else(|| "of an unknown version".to_owned()),
            Err(why) => return Readiness::MissingBinary(missing_binary(&why)),
        };
        match self.credentials() {
            Some(from) => Readiness::Ready(format!(
                "Claude Code {version} at {}, with the key from {from}",
                program.display()
            )),
            None => Readiness::MissingCredentials(NO_KEY.to_owned()),
        }
    }

    fn reads(&self, path: &str) -> bool {
        self.settings.project_settings && (path == "CLAUDE.md" || path.starts_with(".claude/"))
    }

    fn refuses_unlisted(&self) -> bool {
        true
    }

    async fn start(&self, spec: SessionSpec) -> Result<Box<dyn AgentSession>> {
        let constraints = spec.request.constraints.as_ref();
        let permissions = Permissions::new(spec.request.mode, spec.tools.clone())?;
        let program = match self.program() {
            Ok(program) => program,
            Err(why) => return Ok(stillborn(FailureKind::MissingBinary, missing_binary(&why))),
        };
        let command = command(CliCommand::new(program), &self.settings, &spec, &permissions)?;
        let command = environment(&self.settings, &spec.env)?.apply(command);
        let given = spec.env.iter().filter_map(EnvValue::hidden);
        let redactor = Redactor::new(given.chain(&self.settings.api_key).chain(&self.settings.login_token));
        let process = match CliProcess::spawn(&command, &LIMITS) {
            Ok(process) => process,
            Err(error @ SpawnError::Program(_)) => {
                return Ok(stillborn(FailureKind::MissingBinary, missing_binary(&report(&error))));
            }
            Err(error @ SpawnError::WorkingDirectory { .. }) => {
                let message =
                    format!("Claude Code has no place to work: {error}. Prepare the workspace first.");
                return Ok(stillborn(FailureKind::Workspace, message));
            }
            Err(error) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "claude.start",
                    "Claude Code could not be started",
                )
                .because(error));
            }
        };
        let instructions = instructions(spec.request.mode, &spec.instructions);
        Ok(Box::new(ClaudeSession::begin(Parts {
            process,
            instructions: &instructions,
            prompt: &spec.request.prompt,
            questions: Questions::new(spec.ask, spec.workdir, permissions),
            redactor,
            max_turns: constraints.and_then(|constraints| constraints.max_turns),
        })))
    }
}

fn stillborn(kind: FailureKind, message: String) -> Box<dyn AgentSession> {
    Box::new(StillbornSession(Failure::new(kind, message)))
}

fn missing_binary(why: &str) -> String {
    format!("Claude Code cannot be run: {why}. It comes with `npm install -g @anthropic-ai/claude-code`.")
}

/// An error and what is behind it, in one line.
fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
