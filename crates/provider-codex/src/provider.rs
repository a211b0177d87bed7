use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use lime_core::governance::{EnvValue, PriceTable, Redactor};
use lime_core::ports::{AgentProvider, AgentSession, Readiness, SessionSpec};
use lime_core::runs::{AgentMode, Failure, FailureKind, ProviderId};
use lime_core::{Error, ErrorKind, Result};
use lime_provider_cli::{CliCommand, CliLimits, CliProcess, SpawnError, StopPlan, resolve_binary};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;

use crate::approval::ApprovalRule;
use crate::builder::CodexBuilder;
use crate::command::{API_KEY, BASE_URL, Credentials, PASSED_ENV, Retries, Settings, check_env, command};
use crate::dialogue::{Dialogue, Task};
use crate::gate::Gate;
use crate::home::Homes;
use crate::limits::Limits;
use crate::session::{CodexSession, Parts, StillbornSession};
use crate::tools::Tools;
use crate::translate::Translator;

/// The variable that names the program, where it is not `codex` in `PATH`.
const BINARY_ENV: &str = "LIME_CODEX_BIN";
const BINARY: &str = "codex";
/// How often Codex repeats a call of the model: each of the stream's tries makes its own tries of the request. Its
/// own defaults of 4 and 5 make 30 calls in 25 s.
const RETRIES: Retries = Retries { request: 3, stream: 2 };
/// How long the program may take to say its version.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);
/// What a process may cost the worker.
///
/// - A line can hold all the changes of a turn.
/// - Codex reads nothing before it has started, which takes it seconds on a busy machine.
const LIMITS: CliLimits = CliLimits {
    max_line_bytes: 8 << 20,
    max_output_bytes: None,
    stderr_tail_bytes: 16 << 10,
    write_timeout: Duration::from_secs(60),
};

/// Runs Codex as an agent, through `codex app-server`.
///
/// - The program is the one that `LIME_CODEX_BIN` names, or `codex` in `PATH`.
/// - Its environment is [`PASSED_ENV`], [`CONFIGURED_ENV`](crate::CONFIGURED_ENV), the run's own, and the kernel's
///   [`RUN_MARK`](lime_provider_cli::RUN_MARK). The shell of its tools gets only what finds programs and files
///   (Codex's `core`): no key, and nothing of the run's own.
/// - Secrets that Codex is given are hidden in its events and reports.
///
/// # Key or login
///
/// - A run's own `OPENAI_API_KEY` goes before the provider's, and a key before a login. `OPENAI_BASE_URL` likewise.
/// - Codex gets a key in its environment and nowhere else; nothing is written down.
/// - Of a stored login, its `auth.json` is linked into the run's home, never copied: Codex refreshes a login, which
///   makes the old tokens void, and writes the new ones through the link. Such a file is a credential of a person:
///   use it on that person's machine only.
///
/// # State
///
/// - Each run has a `CODEX_HOME` of its own below the state folder, mode 0700, which goes when the run ends, or
///   when a later run finds that its worker is gone.
/// - What Codex needs to resume a thread is kept in the state folder until somebody removes it: `threads/<id>`
///   leads to it. A thread is resumed where the state folder is the same, and by one run at a time.
///
/// # Sandbox and tools
///
/// - Runs that plan or review only read; runs that implement or mend write the working folder without `.git`, and
///   temporary folders. There is no network for commands, unless [`network`](crate::CodexBuilder::network) says so.
/// - What asks to leave the sandbox is declined, and is told as a denied call.
/// - The repository's own Codex settings are not loaded, unless
///   [`project_settings`](crate::CodexBuilder::project_settings) says so.
/// - The run's list of tools, with names in any case:
///
/// | names | what they allow |
/// |---|---|
/// | `Bash`, `shell`, `exec_command` | commands, in the sandbox |
/// | `Edit`, `MultiEdit`, `NotebookEdit`, `Write`, `apply_patch` | writing; without one the sandbox is read-only |
/// | `Read`, `Glob`, `Grep`, `LS` | reading, which Codex does in its shell: `Invalid` without `Bash` |
/// | `WebSearch`, `web_search` | the model provider's web search |
/// | `view_image`, `Read` | looking at a picture |
/// | `Bash(git *)` and other patterns | the tool, if each of its calls is asked about; `Invalid` otherwise, and no web search |
/// | others | nothing: Codex has no such tool |
///
/// # Leave to make calls
///
/// - What a run's `ask` means is asked about at a hook before the call, and then judged as in any run. Its tools are
///   `shell` (or `Bash`), `apply_patch` (or `Edit`, `Write`), `view_image` and those of MCP servers.
/// - The web search runs where the model does, so nobody can be asked about it: a run that would have to has none.
/// - Not asked about is what is typed into a program that runs already.
///
/// # Limits
///
/// - Codex has none of its own: calls of the model and their cost are counted here, and the turn is interrupted.
/// - The cost is reckoned by the price table. A run with a limit on its cost, on a model whose price is not known,
///   is refused.
/// - `constraints.timeBudgetSec` is the caller's: it cancels the session.
///
/// ```no_run
/// use lime_core::ports::AgentProvider;
/// use lime_provider_codex::CodexProvider;
///
/// # async fn example() {
/// let codex = CodexProvider::from_env("var/codex");
/// println!("{:?}", codex.readiness().await);
/// # }
/// ```
pub struct CodexProvider {
    pub(crate) homes: Homes,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) api_key: Option<SecretString>,
    pub(crate) login: Option<PathBuf>,
    pub(crate) base_url: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) prices: PriceTable,
    pub(crate) retries: Retries,
    pub(crate) network: bool,
    pub(crate) project_settings: bool,
    pub(crate) passed: BTreeMap<String, String>,
}

impl fmt::Debug for CodexProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodexProvider")
            .field("homes", &self.homes)
            .field("binary", &self.binary)
            .field("api_key", &self.api_key.is_some())
            .field("login", &self.login)
            .field("base_url", &self.base_url.is_some())
            .field("model", &self.model)
            .field("retries", &self.retries)
            .field("network", &self.network)
            .field("project_settings", &self.project_settings)
            .field("passed", &self.passed.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl CodexProvider {
    /// The name of this provider.
    pub const ID: ProviderId = ProviderId::from_static("codex");

    /// A provider from the worker's environment: key, base URL and [`PASSED_ENV`]; an empty variable counts as
    /// absent.
    ///
    /// - Its state is kept in `state`, which is made when it is needed.
    pub fn from_env(state: impl Into<PathBuf>) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut builder = Self::builder(state);
        builder.provider.api_key = set(API_KEY).map(SecretString::from);
        builder.provider.base_url = set(BASE_URL);
        for name in PASSED_ENV {
            if let Some(value) = set(name) {
                builder = builder.pass(*name, value);
            }
        }
        builder.build()
    }

    /// A provider that takes nothing from the worker's environment but the program, and keeps its state in `state`.
    pub fn builder(state: impl Into<PathBuf>) -> CodexBuilder {
        CodexBuilder {
            provider: Self {
                homes: Homes::new(state.into()),
                binary: None,
                api_key: None,
                login: None,
                base_url: None,
                model: None,
                prices: PriceTable::shipped(),
                retries: RETRIES,
                network: false,
                project_settings: false,
                passed: BTreeMap::new(),
            },
        }
    }

    fn program(&self) -> Result<PathBuf, Failure> {
        match &self.binary {
            Some(path) => Ok(path.clone()),
            None => resolve_binary(BINARY_ENV, BINARY).map_err(|error| missing_binary(&error)),
        }
    }

    fn credentials(&self, env: &[EnvValue]) -> Result<Credentials, Failure> {
        if let Some(key) = own(env, API_KEY).or(self.api_key.as_ref()) {
            return Ok(Credentials::Key(key.clone()));
        }
        let missing = |what: String| Failure::new(FailureKind::MissingCredentials, what);
        match &self.login {
            Some(folder) if folder.join("auth.json").is_file() => Ok(Credentials::Login(folder.clone())),
            Some(folder) => Err(missing(format!(
                "There is no Codex login in {}. Log in there with `codex login`, or set {API_KEY}.",
                folder.display()
            ))),
            None => Err(missing(format!(
                "Codex has no key. Set {API_KEY}, or give the provider a folder with a stored login."
            ))),
        }
    }

    /// The program's own word on its version; says why, if it cannot be run.
    async fn version(&self, program: &Path) -> Result<Option<String>, SpawnError> {
        let mut command = CliCommand::new(program).arg("--version");
        for (name, value) in &self.passed {
            command = command.env(name, value);
        }
        let mut process = CliProcess::spawn(&command, &LIMITS)?;
        let line = timeout(VERSION_PATIENCE, process.next_line()).await;
        process.stop(StopPlan::NOW).await;
        Ok(match line {
            Ok(Ok(Some(line))) => line.text.split_whitespace().last().map(str::to_owned),
            Ok(Ok(None) | Err(_)) | Err(_) => None,
        })
    }
}

#[async_trait]
impl AgentProvider for CodexProvider {
    fn id(&self) -> ProviderId {
        Self::ID
    }

    async fn readiness(&self) -> Readiness {
        let program = match self.program() {
            Ok(program) => program,
            Err(failure) => return Readiness::MissingBinary(failure.message),
        };
        let version = match self.version(&program).await {
            Ok(version) => version.unwrap_or_else(|| "of an unknown version".to_owned()),
            Err(error) => return Readiness::MissingBinary(missing_binary(&error).message),
        };
        let from = match self.credentials(&[]) {
            Ok(Credentials::Key(_)) => format!("the key from {API_KEY}"),
            Ok(Credentials::Login(folder)) => format!("the login in {}", folder.display()),
            Err(failure) => return Readiness::MissingCredentials(failure.message),
        };
        Readiness::Ready(format!("Codex {version} at {}, with {from}", program.display()))
    }

    fn reads(&self, path: &str) -> bool {
        self.project_settings && path == "AGENTS.md"
    }

    async fn start(&self, spec: SessionSpec) -> Result<Box<dyn AgentSession>> {
        let constraints = spec.request.constraints.as_ref();
        let tools = Tools::granted(&spec.tools, &spec.ask)?.without_unaskable(&spec.ask);
        let sandbox = tools.sandbox(spec.request.mode);
        let limits = Limits::of(constraints);
        check_env(&spec.env)?;
        let model = spec.model.clone().or_else(|| self.model.clone());
        let program = match self.program() {
            Ok(program) => program,
            Err(failure) => return Ok(stillborn(failure)),
        };
        let credentials = match self.credentials(&spec.env) {
            Ok(credentials) => credentials,
            Err(failure) => return Ok(stillborn(failure)),
        };
        if let Some(thread_id) = spec.resume.as_deref().filter(|thread_id| !self.homes.has(thread_id)) {
            let message = format!(
                "There is no Codex thread {} in this worker's state folder. Start a new run without it.",
                thread_id.escape_debug()
            );
            return Ok(stillborn(Failure::new(FailureKind::SessionGone, message)));
        }
        let Ok(workdir) = spec.workdir.canonicalize() else {
            return Ok(stillborn(no_workdir(&spec.workdir)));
        };
        let Some(folder) = workdir.to_str() else {
            return Err(Error::invalid("codex.start", "workdir: the path must be UTF-8"));
        };
        let gated = !spec.ask.is_empty();
        let state = self.homes.state().map_err(|error| no_state().because(error))?;
        if gated && state.starts_with(&workdir) {
            return Err(Error::invalid(
                "codex.start",
                "the state folder lies in the working folder, where Codex could answer its own questions; move it",
            ));
        }
        let base_url = own(&spec.env, BASE_URL).map(ExposeSecret::expose_secret).or(self.base_url.as_deref());
        let config = Settings {
            workdir: folder,
            trusted: self.project_settings,
            tools,
            network: self.network,
            gated,
            // Its commands must not write there what a person is to answer.
            slash_tmp: !gated || !state.starts_with("/tmp"),
            retries: self.retries,
            credentials: &credentials,
            base_url,
        }
        .to_toml();
        let home = self
            .homes
            .open(spec.resume.as_deref(), &config, credentials.login())
            .map_err(|error| no_state().because(error))?;
        let gate = gated
            .then(|| Gate::set_up(&home.path(), spec.ask))
            .transpose()
            .map_err(|error| no_state().because(error))?;
        let redactor = Redactor::new(spec.env.iter().filter_map(EnvValue::hidden).chain(credentials.key()));
        let command = command(&program, &workdir, &self.passed, &home, &credentials, &spec.env);
        let process = match CliProcess::spawn(&command, &LIMITS) {
            Ok(process) => process,
            Err(error @ SpawnError::Program(_)) => return Ok(stillborn(missing_binary(&error))),
            Err(SpawnError::WorkingDirectory { directory }) => return Ok(stillborn(no_workdir(&directory))),
            Err(error) => {
                return Err(Error::new(ErrorKind::Unavailable, "codex.start", "Codex could not be started")
                    .because(error));
            }
        };
        let (dialogue, opening) = Dialogue::open(Task {
            instructions: instructions(spec.request.mode, spec.instructions),
            prompt: spec.request.prompt,
            model,
            resume: spec.resume,
            workdir: folder.to_owned(),
            sandbox: sandbox.as_str(),
            gated,
        });
        Ok(Box::new(CodexSession::begin(Parts {
            process,
            opening,
            dialogue,
            approvals: ApprovalRule::new(sandbox, workdir),
            gate,
            limits,
            translator: Translator::new(self.prices.clone()),
            redactor,
            home,
        })))
    }
}

/// What the agent is told beside the prompt: the run's instructions, and what its mode means.
fn instructions(mode: AgentMode, instructions: String) -> String {
    let note = match mode {
        AgentMode::Implement | AgentMode::Bugfix => return instructions,
        AgentMode::Plan => "Answer with a plan. You cannot change any file.",
        AgentMode::Review => "Answer with your review. You cannot change any file.",
    };
    if instructions.is_empty() {
        return note.to_owned();
    }
    format!("{instructions}\n\n{note}")
}

/// A variable of the run's own, unless it is empty; the last one of a name counts.
fn own<'a>(env: &'a [EnvValue], name: &str) -> Option<&'a SecretString> {
    env.iter()
        .rev()
        .find(|var| var.key().as_str() == name)
        .map(EnvValue::value)
        .filter(|value| !value.expose_secret().is_empty())
}

fn stillborn(failure: Failure) -> Box<dyn AgentSession> {
    Box::new(StillbornSession(failure))
}

fn no_state() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "codex.start",
        "the state folder of Codex cannot be used; check that it may be written and has room",
    )
}

fn no_workdir(folder: &Path) -> Failure {
    let message = format!(
        "Codex has no place to work: {} is not a folder. Prepare the workspace first.",
        folder.display()
    );
    Failure::new(FailureKind::Workspace, message)
}

/// Says what is missing, and what is behind it.
fn missing_binary(error: &dyn StdError) -> Failure {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        why.push_str(": ");
        why.push_str(&error.to_string());
        source = error.source();
    }
    let message = format!(
        "Codex cannot be run: {why}. Install it (`npm install -g @openai/codex`), or name its program in {BINARY_ENV}."
    );
    Failure::new(FailureKind::MissingBinary, message)
}
