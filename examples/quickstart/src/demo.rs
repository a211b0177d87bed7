//! The demo: a small project with a ticket, and a recorded session about it.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::exit::Refusal;
use crate::place::Place;

/// The recorded session; it says what the ticket is, too.
pub(crate) const RECORDING: &str = include_str!("../recordings/due-dates.toml");
/// The tag of the project's first commit, which every run begins with, whatever was merged meanwhile.
pub(crate) const START: &str = "start";

/// The project's files.
const FILES: &[(&str, &str)] = &[
    (".gitignore", include_str!("../demo/.gitignore")),
    ("README.md", include_str!("../demo/README.md")),
    ("test_todo.py", include_str!("../demo/test_todo.py")),
    ("todo/__init__.py", include_str!("../demo/todo/__init__.py")),
    ("todo/__main__.py", include_str!("../demo/todo/__main__.py")),
    ("todo/cli.py", include_str!("../demo/todo/cli.py")),
    ("todo/store.py", include_str!("../demo/todo/store.py")),
];

/// What git is told of the outside world: nothing, so that the first commit is the same everywhere.
const GIT_ENV: &[(&str, &str)] = &[
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_AUTHOR_NAME", "Assembly Lime"),
    ("GIT_AUTHOR_EMAIL", "demo@assembly-lime.invalid"),
    ("GIT_AUTHOR_DATE", "2026-01-01T12:00:00Z"),
    ("GIT_COMMITTER_NAME", "Assembly Lime"),
    ("GIT_COMMITTER_EMAIL", "demo@assembly-lime.invalid"),
    ("GIT_COMMITTER_DATE", "2026-01-01T12:00:00Z"),
];

/// The demo's repository, made if it is not there; gives its path.
pub(crate) async fn create(place: &Place) -> Result<String, Refusal> {
    let folder = place.demo();
    if !folder.exists() {
        let failed =
            |error| Refusal::new(format!("the demo project cannot be made in {}: {error}", folder.display()));
        // Made beside and moved, so that what is there is whole.
        let beside = folder.parent().unwrap_or(&folder);
        let making = tempfile::Builder::new().prefix(".demo-").tempdir_in(beside).map_err(failed)?;
        write_files(making.path()).map_err(failed)?;
        for arguments in [
            &["init", "--quiet", "--template=", "--initial-branch=main"][..],
            &["add", "--all"],
            &["commit", "--quiet", "--message=Begin the demo"],
            &["tag", START],
        ] {
            git(making.path(), arguments).await?;
        }
        std::fs::rename(making.path(), &folder).map_err(failed)?;
    }
    folder.to_str().map(str::to_owned).ok_or_else(|| {
        Refusal::new(format!("the folder {} is not UTF-8; name another with --data-dir", folder.display()))
    })
}

fn write_files(root: &Path) -> std::io::Result<()> {
    for (name, text) in FILES {
        let file = root.join(name);
        std::fs::create_dir_all(file.parent().unwrap_or(root))?;
        std::fs::write(file, text)?;
    }
    Ok(())
}

async fn git(folder: &Path, arguments: &[&str]) -> Result<(), Refusal> {
    let run = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(GIT_ENV.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| Refusal::new(format!("git cannot be run: {error}\n  Install git 2.36 or newer.")))?;
    if run.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    Err(Refusal::new(format!("git {} failed: {}", arguments[0], said.trim())))
}
