//! What cargo and git know about the workspace.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::Outcome;

/// A crate of the workspace, as `cargo metadata` tells of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) manifest_path: String,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev` or `build`; nothing for a normal one.
    pub(crate) kind: Option<String>,
    /// Set for a crate of the workspace.
    pub(crate) path: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Member>,
}

/// The crates of the workspace.
pub(crate) fn members(root: &Path) -> Outcome<Vec<Member>> {
    let text = run(root, cargo(), &["metadata", "--format-version=1", "--no-deps"])?;
    Ok(serde_json::from_str::<Metadata>(&text)?.packages)
}

/// The lines of `cargo tree`, once each: `name vVERSION`, and a mark or a path for some.
pub(crate) fn tree(root: &Path, args: &[&str]) -> Outcome<BTreeSet<String>> {
    let args = [&["tree", "--prefix=none"], args].concat();
    let text = run(root, cargo(), &args)?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// The files that are in git, or would be with the next commit; paths from the root.
pub(crate) fn files(root: &Path) -> Outcome<Vec<String>> {
    // In a container the checkout often belongs to somebody else, which git refuses unless told.
    let args = ["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let text = run(root, "git", &args)?;
    Ok(text.split_terminator('\0').filter(|path| root.join(path).is_file()).map(str::to_owned).collect())
}

fn cargo() -> impl AsRef<OsStr> {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run(root: &Path, program: impl AsRef<OsStr>, args: &[&str]) -> Outcome<String> {
    let output = Command::new(program.as_ref()).args(args).current_dir(root).output();
    let name = program.as_ref().display();
    let output = output.map_err(|error| format!("{name} cannot be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} {} failed: {}", args.join(" "), said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
