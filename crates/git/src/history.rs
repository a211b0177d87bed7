//! Commits that an agent made itself: found by reading, brought over as objects.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lime_core::{ErrorKind, Result};
use rustix::fs::OFlags;

use crate::attempt::{Attempt, remove_tree};
use crate::failure;
use crate::git::Git;
use crate::names::{is_object_id, is_ref_name};

const IMPORT: &str = "git.import";

/// The most bytes that are read of a list of refs: 64 MiB.
const MAX_REFS: u64 = 64 << 20;

/// The longest chain of symbolic refs that is followed, as in git.
const MAX_CHAIN: usize = 5;

/// Where the agent's commits are kept in the attempt's git directory.
const AGENTS: &str = "refs/lime/agent";

/// Settings of the passing git directory: what an agent can write beside its objects is not believed.
const DISTRUST: &str = "\n[core]\n\tcommitGraph = false\n\tmultiPackIndex = false\n";

/// The newest of the agent's own commits, brought over; `None` if there are none that can be taken.
///
/// - Git is not run in the agent's git directory. Its objects are borrowed by a passing one of ours, and fetched
///   from there, which checks each of them and that none is missing.
/// - What is not sound, borrows objects from elsewhere, or is not on the base, is left out with a warning.
pub(crate) async fn tip(git: &Git, attempt: &Attempt, base_commit: &str) -> Result<Option<String>> {
    let agents = attempt.checkout.join(".git");
    let left_out = |reason: &str| tracing::warn!(checkout = %attempt.checkout.display(), reason, "the agent's own commits are left out");
    let head = match is_plain_folder(&agents).then(|| head(&agents)).flatten() {
        None => {
            left_out("its git directory cannot be read");
            return Ok(None);
        }
        Some(head) if head == base_commit => return Ok(None),
        Some(head) => head,
    };
    let in_attempt = || git.call(IMPORT).at(&attempt.git_dir);
    if in_attempt().args(["cat-file", "-e", &head]).output().await?.code != Some(0) {
        let objects = agents.join("objects");
        let ours = fs::read(attempt.git_dir.join("objects/info/alternates")).ok();
        let theirs = read(&objects.join("info/alternates"), MAX_REFS);
        if !is_plain_folder(&objects)
            || !is_plain_folder(&objects.join("info"))
            || theirs.is_some() && theirs != ours
        {
            left_out("its git directory borrows objects from elsewhere");
            return Ok(None);
        }
        if let Err(error) = import(git, attempt, &objects, &head).await {
            if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::LimitExceeded | ErrorKind::Missing) {
                return Err(error);
            }
            tracing::warn!(%error, checkout = %attempt.checkout.display(), "the agent's own commits are left out");
            return Ok(None);
        }
    }
    if is_ancestor(git, attempt, base_commit, &head).await? {
        Ok(Some(head))
    } else {
        left_out("they are not on the base");
        Ok(None)
    }
}

/// Whether both are commits, and the first is below the second or is it.
pub(crate) async fn is_ancestor(git: &Git, attempt: &Attempt, below: &str, above: &str) -> Result<bool> {
    let call =
        git.call("git.history").at(&attempt.git_dir).args(["merge-base", "--is-ancestor", below, above]);
    Ok(call.output().await?.code == Some(0))
}

async fn import(git: &Git, attempt: &Attempt, objects: &Path, head: &str) -> Result<()> {
    let passing = attempt.passing();
    remove_tree(IMPORT, &passing).await?;
    let format = if head.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    let init =
        git.call(IMPORT).args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", format]);
    init.args([&passing]).stdout().await?;
    let prepared = (|| {
        let config = fs::read_to_string(passing.join("config"))?;
        fs::write(passing.join("config"), config + DISTRUST)?;
        let mirror = fs::read_to_string(attempt.git_dir.join("objects/info/alternates"))?;
        fs::create_dir_all(passing.join("objects/info"))?;
        fs::write(passing.join("objects/info/alternates"), format!("{}\n{mirror}", objects.display()))?;
        let shallow = attempt.git_dir.join("shallow");
        if shallow.exists() {
            fs::copy(shallow, passing.join("shallow"))?;
        }
        fs::write(passing.join("packed-refs"), format!("{head} {AGENTS}\n"))
    })();
    prepared
        .map_err(|error| failure::io(IMPORT, "the passing git directory cannot be made", &passing, error))?;
    let fetch = git.call(IMPORT).at(&attempt.git_dir).setting("fetch.fsckObjects=true");
    let fetch =
        fetch.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--update-shallow", "--"]);
    let fetched = fetch.args([&passing]).args([format!("+{AGENTS}:{AGENTS}")]).stdout().await;
    remove_tree(IMPORT, &passing).await?;
    fetched.map(drop)
}

/// The commit that a repository inside of the checkout is at, if it has one that can be read.
///
/// - A submodule's `.git` file is followed, as git does.
pub(crate) fn nested_head(checkout: &Path, path: &[u8]) -> Option<String> {
    let folder = checkout.join(os(path));
    let dot_git = folder.join(".git");
    let git_dir = match fs::symlink_metadata(&dot_git).ok()? {
        found if found.is_dir() => dot_git,
        _ => {
            let text = String::from_utf8(read(&dot_git, 4_096)?).ok()?;
            folder.join(text.strip_prefix("gitdir:")?.trim())
        }
    };
    head(&git_dir)
}

/// The commit that `HEAD` means, read from the files of a git directory that is not trusted.
fn head(git_dir: &Path) -> Option<String> {
    let mut name = "HEAD".to_owned();
    for _ in 0..=MAX_CHAIN {
        let value = match read(&git_dir.join(&name), 4_096) {
            Some(bytes) => String::from_utf8(bytes).ok()?,
            None => packed(git_dir, &name)?,
        };
        let value = value.trim();
        match value.strip_prefix("ref:").map(str::trim) {
            Some(next) if next.starts_with("refs/") && is_ref_name(next) => name = next.to_owned(),
            Some(_) => return None,
            None => return is_object_id(value).then(|| value.to_owned()),
        }
    }
    None
}

fn packed(git_dir: &Path, name: &str) -> Option<String> {
    let text = read(&git_dir.join("packed-refs"), MAX_REFS)?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().filter_map(|line| line.split_once(' ')).find(|&(_, known)| known == name);
    found.map(|(id, _)| id.to_owned())
}

/// Reads a plain file of limited size; no link, no pipe, nothing that would make us wait.
fn read(file: &Path, limit: u64) -> Option<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(file).ok()?;
    let found = file.metadata().ok()?;
    let mut bytes = Vec::new();
    (found.is_file() && found.len() <= limit).then_some(())?;
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn is_plain_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// A path as git prints it.
pub(crate) fn os(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}
