//! Peers that are written for Node.js: installed once below `target/`, and run as a program for each measurement.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::Outcome;

/// Where they are installed.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/peers-node");
/// What is put there; the lock file pins every version.
const FILES: [(&str, &str); 4] = [
    ("package.json", include_str!("../node/package.json")),
    ("package-lock.json", include_str!("../node/package-lock.json")),
    ("bullmq.mjs", include_str!("../node/bullmq.mjs")),
    ("pgboss.mjs", include_str!("../node/pgboss.mjs")),
];
/// Written when the installation is complete; holds the lock file that it was made from.
const INSTALLED: &str = "installed";
/// How long the installation, or one measurement, may take.
const LIMIT: Duration = Duration::from_secs(180);

static SCRIPTS: OnceCell<Result<PathBuf, String>> = OnceCell::const_new();

/// What a script prints on its last line.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Printed {
    /// Jobs a second.
    pub(crate) rate: Option<f64>,
    /// One for each sample.
    pub(crate) latencies_us: Option<Vec<f64>>,
}

/// Installs the packages; whoever comes later finds them there.
pub(crate) async fn install() -> Outcome<&'static Path> {
    let installed =
        SCRIPTS.get_or_init(async || install_once().await.map_err(|error| error.to_string())).await;
    match installed {
        Ok(folder) => Ok(folder),
        Err(why) => Err(why.clone().into()),
    }
}

async fn install_once() -> Outcome<PathBuf> {
    let folder = PathBuf::from(FOLDER);
    tokio::fs::create_dir_all(&folder).await?;
    for (name, text) in FILES {
        tokio::fs::write(folder.join(name), text).await?;
    }
    let lock = FILES[1].1;
    let stamp = folder.join(INSTALLED);
    if tokio::fs::read_to_string(&stamp).await.is_ok_and(|it| it == lock) {
        return Ok(folder);
    }
    crate::say::line("installing pg-boss and BullMQ with npm");
    let npm = Command::new("npm")
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let npm = tokio::time::timeout(LIMIT, npm).await.map_err(|_| "npm takes too long")?;
    let npm = npm.map_err(|error| format!("npm cannot be started: {error}"))?;
    if !npm.status.success() {
        return Err(format!("npm install failed: {}", last_lines(&npm.stderr)).into());
    }
    tokio::fs::write(stamp, lock).await?;
    Ok(folder)
}

/// Runs one measurement of a script.
pub(crate) async fn run(script: &str, request: &Value) -> Outcome<Printed> {
    let folder = install().await?;
    let node = Command::new("node")
        .arg(script)
        .arg(request.to_string())
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let node = tokio::time::timeout(LIMIT, node).await.map_err(|_| format!("{script} takes too long"))?;
    let node = node.map_err(|error| format!("node cannot be started: {error}"))?;
    if !node.status.success() {
        return Err(format!("{script} failed: {}", last_lines(&node.stderr)).into());
    }
    let printed = String::from_utf8_lossy(&node.stdout);
    let line = printed.lines().last().ok_or_else(|| format!("{script} printed nothing"))?;
    Ok(serde_json::from_str(line).map_err(|error| format!("{script} printed `{line}`: {error}"))?)
}

fn last_lines(stderr: &[u8]) -> String {
    const LINES: usize = 6;
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}
