//! The variables of the environment, for `--help` and `docs/operate.md`, and those that look like one and are none.

/// Every variable that this program reads itself, its default, and what it says.
pub(crate) const VARIABLES: &[(&str, &str, &str)] = &[
    ("DATABASE_URL", "needed", "the PostgreSQL server, as in postgres://user:password@host/lime"),
    ("LIME_DATABASE_CONNECTIONS", "10", "how many connections to it at most, 2 to 1000"),
    (
        "LIME_DATABASE_NOTIFY",
        "1",
        "0 leaves out the connection by which processes tell each other of news; they look for it then",
    ),
    (
        "LIME_MIGRATE",
        "0",
        "1 brings the tables up to date first; otherwise the worker looks whether they are",
    ),
    ("REDIS_URL", "none", "a Redis for the queue and live events, as in redis://:password@host:6379/0"),
    (
        "LIME_REDIS_PREFIX",
        "lime",
        "what every key in it begins with; fleets that share a Redis need their own",
    ),
    ("LIME_REDIS_RELAY", "1", "0 where other workers feed the fleet: two or three that do are enough"),
    (
        "LIME_STATE_DIR",
        "needed",
        "a folder for checkouts, mirrors and what Codex keeps; of this worker alone",
    ),
    (
        "LIME_PROVIDERS",
        "those that are ready",
        "claude, codex and replay, by commas; those that are named must be ready",
    ),
    ("LIME_RECORDINGS", "none", "the folder with the recordings (*.toml) that replay plays"),
    (
        "LIME_PRICES",
        "those shipped",
        "a JSON file with what models cost, for budgets; docs/budget-enforcement.md",
    ),
    (
        "ENCRYPTION_MASTER_KEY",
        "none",
        "the master keys of secrets as id:key, by commas; without it agents get no variables of their projects",
    ),
    ("LIME_WORKER_NAME", "host and process id", "the name for operators, 1 to 200 characters"),
    ("LIME_CONCURRENCY", "2", "how many runs at once, 1 to 1000"),
    ("LIME_LEASE_SECS", "30", "how long a run is the worker's own without a sign of life, 3 to 3600"),
    ("LIME_HEARTBEAT_SECS", "a third of the lease", "how often it shows one, at most that"),
    ("LIME_POLL_MS", "1000", "how often it looks for work when nothing wakes it, 10 to 60000"),
    ("LIME_HANG_AFTER_SECS", "900", "how long an agent may give no sign of life, 1 to 86400"),
    (
        "LIME_GRACE_SECS",
        "30",
        "how long runs may go on after SIGTERM before they are handed back, 0 to 86400",
    ),
    ("LIME_KEEP_CHECKOUTS", "unfinished", "which checkouts stay: never, unfinished, always"),
    ("LIME_HTTP_ADDR", "127.0.0.1:9464", "where /healthz, /readyz and /metrics are; port 0 for any"),
    ("LIME_LOG", "info,sqlx=warn", "what is logged, by level and part; debug for all there is"),
    ("LIME_LOG_FORMAT", "json", "json or text"),
];

/// What begins with `LIME_` and is for others: the agents' programs, the operator's command, tests.
const OTHERS: &[&str] = &["LIME_CLAUDE_BIN", "LIME_CODEX_BIN", "LIME_TENANT"];

/// Names among these that look like a variable of this program and are none.
pub(crate) fn unknown(names: impl Iterator<Item = String>) -> Vec<String> {
    let known = |name: &str| VARIABLES.iter().any(|(known, ..)| *known == name) || OTHERS.contains(&name);
    names
        .filter(|name| name.starts_with("LIME_") && !name.starts_with("LIME_TEST_") && !known(name))
        .collect()
}

/// The variables as a text for `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Environment:\n");
    for (name, default, says) in VARIABLES {
        text.push_str(&format!("  {name}\n      {says} [default: {default}]\n"));
    }
    text.push_str(MORE);
    text
}

const MORE: &str = "
Agents find their keys themselves: ANTHROPIC_API_KEY for claude, OPENAI_API_KEY for codex; LIME_CLAUDE_BIN and
LIME_CODEX_BIN name their programs, where they are not in PATH. Built with the feature `otel`, traces go where
OTEL_EXPORTER_OTLP_ENDPOINT says.

Signals:
  SIGTERM and SIGINT end the worker: it takes nothing new at once, lets its runs go on for LIME_GRACE_SECS, and
  hands back the rest. A second one hands back at once.

Exit status: 0 stopped, 1 it could not begin or ended badly, 2 the configuration is wrong.
docs/operate.md tells more.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_seen() {
        let names =
            ["LIME_CONCURENCY", "LIME_CONCURRENCY", "LIME_TEST_DATABASE_URL", "LIME_CODEX_BIN", "PATH"];
        assert_eq!(unknown(names.map(str::to_owned).into_iter()), ["LIME_CONCURENCY"]);
    }

    #[test]
    fn the_documentation_has_every_variable_as_it_is() {
        let page = include_str!("../../../docs/operate.md");
        for (name, default, says) in VARIABLES {
            let row = format!("| `{name}` | {default} | {says} |");
            assert!(page.contains(&row), "docs/operate.md lacks the row\n{row}");
        }
    }
}
