//! Questions and answers as files, between the hook's script and the gate.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;

/// The script of the hook; the files of a question have one name, and an ending for each.
///
/// - It waits in a pipe, so that it costs nothing. What counts are the files, since the sandbox keeps commands from
///   making those, and does not keep them from writing into a pipe.
const SCRIPT: &str = r#"# Asks whoever runs Codex whether it may make a call, and waits. Anything but a yes is a no.
no() { echo "Nobody could be asked about this call." >&2; exit 2; }
umask 077
cd "$CODEX_HOME/asks" || no
name=$(mktemp XXXXXXXXXX) || no
mkfifo "$name.wake" && exec 3<>"$name.wake" && cat >"$name" && mv "$name" "$name.question" || no
while [ ! -e "$name.yes" ] && [ ! -e "$name.no" ]; do
  IFS= read -r _ <&3 || no
done
[ -e "$name.no" ] || exit 0
cat "$name.no" >&2
exit 2
"#;
/// The longest question that is read, in bytes: a patch of many files.
const MAX_BYTES: u64 = 16 << 20;

/// Where the questions of a run lie.
#[derive(Debug)]
pub(super) struct Questions(PathBuf);

/// The name that the files of a question share.
#[derive(Debug)]
pub(super) struct Name(PathBuf);

/// A question, as Codex gives it to the script.
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    pub(super) tool_name: String,
    #[serde(default)]
    pub(super) tool_input: Json,
    pub(super) tool_use_id: String,
}

impl Questions {
    /// Makes a place for them in a run's home, and the script that puts them there.
    pub(super) fn set_up(home: &Path) -> io::Result<Self> {
        let folder = home.join("asks");
        DirBuilder::new().mode(0o700).create(&folder)?;
        fs::write(home.join("ask"), SCRIPT)?;
        Ok(Self(folder))
    }

    /// Takes those that have come, in no order; `None` for one that cannot be read.
    pub(super) fn take(&self) -> Vec<(Name, Option<Question>)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_some_and(|ending| ending == "question"))
            .filter_map(|path| {
                let question = read(&path);
                // Gone once it is read, so that it is taken once.
                fs::remove_file(&path).ok()?;
                Some((Name(path.with_extension("")), question))
            })
            .collect()
    }
}

impl Name {
    /// Answers the question; whoever asked may be gone.
    pub(super) fn reply(&self, answer: Result<(), &str>) {
        let file = |ending: &str| self.0.with_extension(ending);
        let (ending, text) = match answer {
            Ok(()) => ("yes", ""),
            // Codex takes a no without a reason for a hook that failed, and makes the call.
            Err(reason) if reason.trim().is_empty() => ("no", "It was denied."),
            Err(reason) => ("no", reason),
        };
        let written = fs::write(file("answer"), text)
            .and_then(|()| fs::rename(file("answer"), file(ending)))
            // Open for both, so that it never waits for a reader.
            .and_then(|()| OpenOptions::new().read(true).write(true).open(file("wake")))
            .and_then(|mut wake| wake.write_all(b"\n"));
        if let Err(error) = written {
            tracing::warn!(%error, "a call of Codex waits for an answer that could not be written");
        }
    }
}

fn read(path: &Path) -> Option<Question> {
    if fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
