//! What the host keeps of a repository: a bare mirror that attempts borrow objects from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lime_core::identity::Tenant;
use lime_core::repos::Repository;
use lime_core::{Error, ErrorKind, Id, Result};
use secrecy::SecretString;

use crate::attempt::remove_tree;
use crate::call::Output;
use crate::failure;
use crate::git::Git;
use crate::lock::Lock;
use crate::names::{Branch, is_object_id, is_ref_name, is_short_object_id};
use crate::remote::Remote;

const FETCH: &str = "git.fetch";

/// A mirror, as it was at one moment.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// The bare git directory.
    pub(crate) dir: PathBuf,
    /// Every branch and tag by its full name, and what it points to.
    pub(crate) refs: BTreeMap<String, String>,
}

impl Mirror {
    /// The repository as it is now.
    ///
    /// - One process at a time fetches. Who has waited for a fetch that began after it asked, uses that one.
    /// - A repository's mirror is there once its first fetch is through, so a failed one leaves nothing.
    /// - It is never collected: attempts borrow its objects, those of branches that are gone by now too.
    pub(crate) async fn fetched(
        git: &Git,
        folder: &Path,
        (tenant, repository): (Id<Tenant>, Id<Repository>),
        remote: &Remote,
        token: Option<&SecretString>,
    ) -> Result<Self> {
        let asked = SystemTime::now();
        let dir = folder.join(format!("{tenant}-{repository}.git"));
        let mut lock = Lock::take(FETCH, &dir.with_extension("lock")).await?;
        let now = SystemTime::now();
        let known = dir.exists();
        if known && lock.time().is_some_and(|fetched| asked <= fetched && fetched <= now) {
            return Ok(Self { refs: refs(git, &dir).await?, dir });
        }
        if known {
            fetched(&fetch(git, &dir, remote, token).await?, remote)?;
        } else {
            let new = dir.with_extension("new");
            if let Err(error) = make(git, &new, remote, token).await {
                remove_tree(FETCH, &new).await?;
                return Err(error);
            }
            std::fs::rename(&new, &dir)
                .map_err(|error| failure::io(FETCH, "the mirror cannot be kept", &dir, error))?;
        }
        lock.set_time(now).map_err(|error| failure::io(FETCH, "the lock cannot be written", &dir, error))?;
        Ok(Self { refs: refs(git, &dir).await?, dir })
    }

    /// Where a branch is.
    pub(crate) fn branch(&self, branch: &Branch) -> Option<&str> {
        self.refs.get(&branch.full()).map(String::as_str)
    }

    /// Every branch and what it points to.
    pub(crate) fn branches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refs.iter().filter_map(|(name, id)| Some((name.strip_prefix("refs/heads/")?, id.as_str())))
    }

    /// The commit that a base means: a branch, then a tag, then a commit by its name or the start of it.
    ///
    /// - Nothing else that git would understand, such as `main~3`, so that a base is the same thing to everybody.
    pub(crate) async fn commit(&self, git: &Git, base: &str) -> Result<String> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                "git.resolve",
                "the base is no branch, tag or commit of the repository",
            )
            .with("base", format!("{base:?}"))
        };
        if let Some(branch) = self.refs.get(&format!("refs/heads/{base}")).or_else(|| self.refs.get(base)) {
            return self.peeled(git, branch).await?.ok_or_else(missing);
        }
        if !is_ref_name(base) {
            return Err(missing());
        }
        if let Some(tag) = self.refs.get(&format!("refs/tags/{base}")) {
            return self.peeled(git, tag).await?.ok_or_else(missing);
        }
        let lower = base.to_ascii_lowercase();
        match is_object_id(&lower) || is_short_object_id(&lower) {
            true => self.peeled(git, &lower).await?.ok_or_else(missing),
            false => Err(missing()),
        }
    }

    /// The commit that an object is, or that a tag points to.
    async fn peeled(&self, git: &Git, object: &str) -> Result<Option<String>> {
        let commit = format!("{object}^{{commit}}");
        let call = git.call("git.resolve").at(&self.dir).args([
            "rev-parse",
            "--quiet",
            "--verify",
            "--end-of-options",
        ]);
        let output = call.args([commit]).output().await?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.code == Some(0) && is_object_id(&id)).then_some(id))
    }
}

/// Makes a mirror at a place where there may be one that was never finished.
async fn make(git: &Git, dir: &Path, remote: &Remote, token: Option<&SecretString>) -> Result<()> {
    let first = async |format: &str| {
        remove_tree(FETCH, dir).await?;
        let init =
            git.call("git.init").args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main"]);
        init.args([format!("--object-format={format}")]).args([dir]).stdout().await?;
        fetch(git, dir, remote, token).await
    };
    let output = first("sha1").await?;
    // How a repository names its objects is found out only by asking it for them.
    let other = output.stderr.contains("mismatched algorithms");
    fetched(&if other { first("sha256").await? } else { output }, remote)
}

fn fetched(output: &Output, remote: &Remote) -> Result<()> {
    match output.code {
        Some(0) => Ok(()),
        _ => Err(failure::failed(FETCH, output).with("repository", remote)),
    }
}

/// Brings branches and tags up to date, and nothing else.
async fn fetch(git: &Git, dir: &Path, remote: &Remote, token: Option<&SecretString>) -> Result<Output> {
    let call = || {
        git.call(FETCH)
            .at(dir)
            .args([
                "fetch",
                "--quiet",
                "--prune",
                "--no-tags",
                "--no-write-fetch-head",
                "--update-shallow",
                "--",
            ])
            .args([remote.argument()])
            .args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
            .to(remote, token)
    };
    let output = call()?.output().await?;
    // A fetch that was killed leaves locks of git's own; nobody else has them now, since we hold ours.
    if output.code != Some(0) && output.stderr.contains(".lock': File exists") {
        remove_stale_locks(dir)?;
        return call()?.output().await;
    }
    Ok(output)
}

/// Removes git's own locks on refs and settings in a git directory that nobody else uses now.
fn remove_stale_locks(dir: &Path) -> Result<()> {
    let failed =
        |error| failure::io(FETCH, "a lock left by a fetch that was killed cannot be removed", dir, error);
    let mut folders = vec![dir.join("refs")];
    let mut files: Vec<_> =
        ["packed-refs.lock", "HEAD.lock", "config.lock", "shallow.lock"].map(|name| dir.join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "lock") {
                files.push(entry.path());
            }
        }
    }
    for file in files {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(())
}

async fn refs(git: &Git, dir: &Path) -> Result<BTreeMap<String, String>> {
    let call = git.call("git.refs").at(dir).args(["for-each-ref", "--format=%(objectname) %(refname)"]);
    let text = call.stdout().await?;
    let text = String::from_utf8_lossy(&text);
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(id, name)| (name.to_owned(), id.to_owned()))
        .collect())
}
