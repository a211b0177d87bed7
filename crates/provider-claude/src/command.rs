use lime_core::governance::EnvValue;
use lime_core::ports::SessionSpec;
use lime_core::runs::AgentMode;
use lime_core::{Error, Result};
use lime_provider_cli::CliCommand;

use crate::environment::{API_KEY, BASE_URL, Environment, FIXED_ENV, MAX_RETRIES, OAUTH_TOKEN};
use crate::permissions::Permissions;
use crate::provider::Settings;

/// The longest argument that Linux gives a process, its end included: 32 pages.
const MAX_ARGUMENT: usize = 128 << 10;

/// What every run is called with.
///
/// - Print mode with JSON lines both ways, pieces of messages as they come, questions about calls over the wire, what
///   was said to the agent repeated when it hears it.
/// - Nothing of the machine or of the repository is loaded: no settings and with them no hooks, no plugins, no
///   `CLAUDE.md`, no MCP servers, no skills. Hooks and servers would run without a question.
const ALWAYS: &[&str] = &[
    "-p",
    "--output-format=stream-json",
    "--input-format=stream-json",
    "--verbose",
    "--include-partial-messages",
    "--replay-user-messages",
    "--permission-prompt-tool=stdio",
    "--strict-mcp-config",
    "--disable-slash-commands",
];

/// The command of a run; fails with `Invalid` where the spec asks for what no command can say.
///
/// - The prompt and the instructions are no arguments: they go over stdin, where no limit holds.
/// - Flags that take several values have the `=` form, or they would swallow what follows.
pub(crate) fn command(
    program: CliCommand,
    settings: &Settings,
    spec: &SessionSpec,
    permissions: &Permissions,
) -> Result<CliCommand> {
    let mut arguments: Vec<String> = ALWAYS.iter().map(|argument| (*argument).to_owned()).collect();
    let sources = if settings.project_settings { "project" } else { "" };
    arguments.push(format!("--setting-sources={sources}"));
    arguments.push(format!("--permission-mode={}", permissions.mode()));
    arguments.push(format!("--tools={}", permissions.tools()));
    let approved = permissions.approved(&spec.ask);
    if !approved.is_empty() {
        arguments.push(format!("--allowedTools={approved}"));
    }
    if let Some(model) = spec.model.as_ref().or(settings.model.as_ref()) {
        arguments.push(format!("--model={model}"));
    }
    if let Some(session) = &spec.resume {
        arguments.push(format!("--resume={session}"));
    }
    if let Some(constraints) = &spec.request.constraints {
        constraints.validate().map_err(|invalid| Error::invalid("claude.start", invalid.to_string()))?;
        if let Some(turns) = constraints.max_turns {
            arguments.push(format!("--max-turns={turns}"));
        }
        if let Some(cents) = constraints.max_cost_cents {
            arguments.push(format!("--max-budget-usd={}.{:02}", cents / 100, cents % 100));
        }
    }
    for argument in &arguments {
        check(argument)?;
    }
    Ok(program.args(arguments).current_dir(&spec.workdir))
}

fn check(argument: &str) -> Result<()> {
    let flag = argument.split('=').next().unwrap_or_default().to_owned();
    if argument.len() >= MAX_ARGUMENT {
        let message = format!("{flag} is {} bytes long; the limit is {MAX_ARGUMENT}", argument.len());
        return Err(Error::invalid("claude.start", message));
    }
    if argument.contains('\0') {
        return Err(Error::invalid("claude.start", format!("{flag} holds a NUL")));
    }
    Ok(())
}

/// The environment of a run: what the worker has of the list, ours, the provider's settings, the run's own.
pub(crate) fn environment(settings: &Settings, own: &[EnvValue]) -> Result<Environment> {
    let mut environment = Environment::default();
    for (name, value) in &settings.passed {
        environment.set(name, value.as_str());
    }
    for (name, value) in FIXED_ENV {
        environment.set(name, *value);
    }
    environment.set(MAX_RETRIES, settings.max_retries.to_string());
    let brings = |names: &[&str]| own.iter().any(|var| names.contains(&var.key().as_str()));
    let brings_key = brings(&[API_KEY, OAUTH_TOKEN]);
    if brings(&[BASE_URL]) && !brings_key {
        let message =
            format!("env: {BASE_URL} needs {API_KEY} beside it; the worker's key is not sent there");
        return Err(Error::invalid("claude.start", message));
    }
    match (&settings.api_key, &settings.login_token) {
        _ if brings_key => {}
        (Some(key), _) => environment.set(API_KEY, key.clone()),
        (None, Some(token)) => environment.set(OAUTH_TOKEN, token.clone()),
        (None, None) => {}
    }
    if let Some(url) = &settings.base_url {
        environment.set(BASE_URL, url.as_str());
    }
    for var in own {
        environment.set(var.key().as_str(), var.value().clone());
    }
    Ok(environment)
}

/// What the agent is told beside the instructions, by the kind of work.
pub(crate) fn instructions(mode: AgentMode, instructions: &str) -> String {
    let note = match mode {
        AgentMode::Implement | AgentMode::Bugfix => return instructions.to_owned(),
        AgentMode::Plan => "Answer with a plan. You cannot change any file.",
        AgentMode::Review => "Answer with your review. You cannot change any file.",
    };
    if instructions.is_empty() {
        return note.to_owned();
    }
    format!("{instructions}\n\n{note}")
}
