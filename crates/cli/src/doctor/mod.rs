//! `lime doctor`: looks whether everything is as it should be.

mod database;
mod line;
mod machine;
mod redis;

use std::path::Path;

use serde::Serialize;

use crate::args::Lime;
use crate::desk::Desk;
use crate::exit::Failure;
use crate::out::Out;
use crate::text::clean;

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work, or will soon not.
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What was found about one thing.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    message: String,
    /// What to do, unless it is well.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, message: message.into(), advice: None }
    }

    fn warn(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, message: message.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, message: message.into(), advice: Some(advice.into()) }
    }

    /// What cannot be looked at fails with the words of the error.
    fn error(check: &'static str, error: &lime_core::Error, advice: impl Into<String>) -> Self {
        Self::fail(check, error.report().replace('\n', " "), advice)
    }
}

#[derive(Debug, Serialize)]
struct Document {
    status: Level,
    checks: Vec<Finding>,
}

/// Looks at everything; one thing that is not well does not keep it from the others.
pub(crate) async fn run(lime: &Lime, state_dir: Option<&Path>) -> Result<(), Failure> {
    let mut checks = Vec::new();
    match Desk::open(lime).await {
        Ok(desk) => {
            checks.extend(database::look(&desk.storage).await);
            desk.close().await;
        }
        Err(failure) => checks.push(Finding::fail(
            "database",
            failure.to_string(),
            "nothing works without it: start the server, or correct the URL",
        )),
    }
    checks.extend(redis::look().await);
    checks.extend(machine::look(state_dir).await);
    let status = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    let document = Document { status, checks };
    Out { json: lime.json }.answer(&document, || document.text())?;
    match status {
        Level::Ok | Level::Warn => Ok(()),
        Level::Fail => Err(Failure::failed("something is not well; see the lines that begin with `fail`")),
    }
}

impl Document {
    fn text(&self) -> String {
        let mut text = String::new();
        for Finding { check, level, message, advice } in &self.checks {
            let message = clean(message).replace('\n', " ");
            text.push_str(&format!("{:<4}  {check:<10}  {message}\n", level.as_str()));
            if let Some(advice) = advice {
                text.push_str(&format!("{:<18}do: {}\n", "", clean(advice)));
            }
        }
        text
    }
}

/// Bytes in the greatest unit.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20) % 1_024 * 10 / 1_024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_state_of_all() {
        assert!(Level::Fail > Level::Warn && Level::Warn > Level::Ok);
        assert_eq!(bytes(1_610_612_736), "1.5 GiB");
        assert_eq!(bytes(5_242_880), "5 MiB");
    }
}
