//! The two folders of an attempt: the checkout, and the host's git directory for it.

use std::fmt::Write as _;
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lime_core::identity::Tenant;
use lime_core::ports::Workspace;
use lime_core::runs::AgentRun;
use lime_core::{Error, ErrorKind, Id, Result};

use crate::failure;
use crate::git::Git;
use crate::lock::Lock;
use crate::mirror::Mirror;
use crate::names::Branch;

const ADD: &str = "git.worktree_add";
const REMOVE: &str = "git.worktree_remove";

/// Says whose an attempt's git directory is; written last, so one without it was never finished.
const OWNER: &str = "lime-run";

/// Who the agent's own commits are by, unless it sets another name.
const AGENT_IDENTITY: &str = "\n[user]\n\tname = Coding agent\n\temail = agent@assembly-lime.invalid\n";

/// Where the parts of an attempt are.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    /// The agent's folder.
    pub(crate) checkout: PathBuf,
    /// The host's git directory.
    pub(crate) git_dir: PathBuf,
}

/// Removes an attempt that was not finished, even if nobody waits for it any more.
pub(crate) struct Unfinished(Option<Attempt>);

impl Attempt {
    /// The attempt of this name below the folders of a state directory.
    pub(crate) fn named(checkouts: &Path, git_dirs: &Path, name: &str) -> Self {
        Self { checkout: checkouts.join(name), git_dir: git_dirs.join(format!("{name}.git")) }
    }

    /// The attempt at the place where an earlier one of the tenant was, if it is one of these folders.
    pub(crate) fn placed(
        checkouts: &Path,
        git_dirs: &Path,
        tenant: Id<Tenant>,
        place: &Path,
    ) -> Option<Self> {
        let name = place.file_name()?.to_str()?;
        let number = name.strip_prefix(&format!("{tenant}-"))?;
        let ours = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let attempt = Self::named(checkouts, git_dirs, name);
        (ours && attempt.checkout == place).then_some(attempt)
    }

    /// The attempt of a workspace, which must be one of these folders.
    ///
    /// - So that a workspace that was read from elsewhere can never make the host remove or read another folder.
    pub(crate) fn of(
        operation: &'static str,
        checkouts: &Path,
        git_dirs: &Path,
        workspace: &Workspace,
    ) -> Result<Self> {
        let name = workspace.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let attempt = Self::named(checkouts, git_dirs, name);
        if name.is_empty() || attempt.checkout != workspace.path || attempt.git_dir != workspace.git_dir {
            return Err(Error::invalid(operation, "this workspace was not made here")
                .with("path", workspace.path.display()));
        }
        Ok(attempt)
    }

    /// Waits until no other call works on it.
    ///
    /// - Fails with `NotFound` if it has been removed.
    pub(crate) async fn lock(&self, operation: &'static str) -> Result<Lock> {
        let gone = || {
            Error::new(ErrorKind::NotFound, operation, "the checkout is gone; prepare it again")
                .with("path", self.checkout.display())
        };
        if !self.git_dir.is_dir() {
            return Err(gone());
        }
        let lock = Lock::take(operation, &self.git_dir.join("lime.lock")).await?;
        // A link would lead git elsewhere.
        match std::fs::symlink_metadata(&self.checkout) {
            Ok(found) if found.is_dir() => Ok(lock),
            _ => Err(gone()),
        }
    }

    /// Makes both folders, with `base_commit` checked out on a fresh branch.
    ///
    /// - The mirror's branches are there as `origin/…`, its tags as tags, and the base as a branch of its own if it
    ///   is one, so that an agent can compare with them.
    pub(crate) async fn fill(
        &self,
        git: &Git,
        mirror: &Mirror,
        branch: &Branch,
        (base, base_commit): (&str, &str),
    ) -> Result<()> {
        let failed = |path: &Path, error| failure::io(ADD, "the checkout cannot be made", path, error);
        let format = if base_commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
        let initial = format!("--initial-branch={}", branch.as_str());
        let init = || git.call(ADD).args(["init", "--quiet", "--template=", format, &initial]);
        tokio::try_join!(
            init().args(["--bare"]).args([&self.git_dir]).stdout(),
            init().args([&self.checkout]).stdout(),
        )?;
        let agents = self.checkout.join(".git");
        let borrowed = format!("{}\n", mirror.dir.join("objects").display());
        for git_dir in [&self.git_dir, &agents] {
            let info = git_dir.join("objects/info");
            std::fs::create_dir_all(&info).map_err(|error| failed(&info, error))?;
            let file = info.join("alternates");
            std::fs::write(&file, &borrowed).map_err(|error| failed(&file, error))?;
            let shallow = mirror.dir.join("shallow");
            if shallow.exists() {
                std::fs::copy(&shallow, git_dir.join("shallow")).map_err(|error| failed(&shallow, error))?;
            }
        }
        let refs = self.git_dir.join("packed-refs");
        std::fs::write(&refs, format!("{base_commit} {}\n", branch.full()))
            .map_err(|error| failed(&refs, error))?;
        let refs = agents.join("packed-refs");
        std::fs::write(&refs, agents_refs(mirror, branch, (base, base_commit)))
            .map_err(|error| failed(&refs, error))?;
        let config = agents.join("config");
        let mut text = std::fs::read_to_string(&config).map_err(|error| failed(&config, error))?;
        text.push_str(AGENT_IDENTITY);
        std::fs::write(&config, text).map_err(|error| failed(&config, error))?;

        let call = git.call(ADD).at(&self.git_dir).over(&self.checkout);
        call.args(["read-tree", "-m", "-u", base_commit]).stdout().await?;
        let index = self.git_dir.join("index");
        std::fs::copy(&index, agents.join("index")).map_err(|error| failed(&index, error))?;
        Ok(())
    }

    /// Says that it is whole, and whose it is.
    pub(crate) fn belong_to(&self, run: Id<AgentRun>) -> Result<()> {
        let file = self.git_dir.join(OWNER);
        std::fs::write(&file, run.to_string())
            .map_err(|error| failure::io(ADD, "the checkout cannot be marked", &file, error))
    }

    /// Whether it is whole, and this run's.
    pub(crate) fn belongs_to(&self, run: Id<AgentRun>) -> bool {
        std::fs::read_to_string(self.git_dir.join(OWNER)).is_ok_and(|owner| owner == run.to_string())
    }

    /// Removes both folders; what is gone already is no error.
    pub(crate) async fn remove(&self) -> Result<()> {
        remove_tree(REMOVE, &self.checkout).await?;
        remove_tree(REMOVE, &self.git_dir).await?;
        remove_tree(REMOVE, &self.passing()).await
    }

    /// The git directory by which the agent's own commits pass.
    pub(crate) fn passing(&self) -> PathBuf {
        self.git_dir.with_extension("passing")
    }
}

/// The refs that an agent finds, in the form of git's `packed-refs`.
fn agents_refs(mirror: &Mirror, branch: &Branch, (base, base_commit): (&str, &str)) -> String {
    let mut text = String::new();
    let mut add = |id: &str, name: &str| {
        let _ = writeln!(text, "{id} {name}"); // writing to a string cannot fail
    };
    add(base_commit, &branch.full());
    for (name, id) in &mirror.refs {
        match name.strip_prefix("refs/heads/") {
            Some(head) => {
                add(id, &format!("refs/remotes/origin/{head}"));
                if head == base && head != branch.as_str() && !branch.clashes_with(head) {
                    add(id, name);
                }
            }
            None => add(id, name),
        }
    }
    text
}

impl Unfinished {
    /// Clears the place of what a crash may have left there.
    pub(crate) async fn begin(attempt: &Attempt) -> Result<Self> {
        attempt.remove().await?;
        Ok(Self(Some(attempt.clone())))
    }

    /// Takes a place where another attempt was, if it is free; of several at once, one gets it.
    pub(crate) fn take(attempt: &Attempt) -> Result<Option<Self>> {
        let failed = |error| failure::io(ADD, "the checkout cannot be made", &attempt.git_dir, error);
        match std::fs::create_dir(&attempt.git_dir) {
            Err(error) if error.kind() == IoKind::AlreadyExists => return Ok(None),
            made => made.map_err(failed)?,
        }
        let free = |path: &Path| {
            std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == IoKind::NotFound)
        };
        if free(&attempt.checkout) && free(&attempt.passing()) {
            return Ok(Some(Self(Some(attempt.clone()))));
        }
        std::fs::remove_dir(&attempt.git_dir).map_err(failed)?;
        Ok(None)
    }

    /// It failed, and goes.
    pub(crate) async fn undo(mut self) -> Result<()> {
        match self.0.take() {
            Some(attempt) => attempt.remove().await,
            None => Ok(()),
        }
    }

    /// It is finished, and stays.
    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(attempt) = self.0.take() else { return };
        for folder in [&attempt.checkout, &attempt.git_dir] {
            if let Err(error) = remove_tree_now(folder) {
                tracing::warn!(%error, folder = %folder.display(), "what is left of a failed checkout cannot be removed");
            }
        }
    }
}

/// Removes a folder with all that is in it, or a file; links are not followed.
pub(crate) async fn remove_tree(operation: &'static str, path: &Path) -> Result<()> {
    let target = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || remove_tree_now(&target)).await;
    removed
        .map_err(|error| {
            Error::new(ErrorKind::Unexpected, operation, "the removal broke off").because(error)
        })?
        .map_err(|error| failure::io(operation, "this cannot be removed", path, error))
}

fn remove_tree_now(path: &Path) -> std::io::Result<()> {
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == IoKind::NotFound => Ok(()),
        result => result,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) => return gone(Err(error)),
        Ok(found) if !found.is_dir() => return gone(std::fs::remove_file(path)),
        Ok(_) => {}
    }
    match std::fs::remove_dir_all(path) {
        // Tools such as Go leave folders without the right to write in them.
        Err(error) if error.kind() == IoKind::PermissionDenied => {
            make_writable(path)?;
            gone(std::fs::remove_dir_all(path))
        }
        result => gone(result),
    }
}

fn make_writable(folder: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}
