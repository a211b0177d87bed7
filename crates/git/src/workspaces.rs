//! The port `Workspaces` on the local git.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lime_core::ports::{
    Author, Changes, CommitId, CommittedFiles, FilesWanted, RepoAccess, Workspace, WorkspaceSpec, Workspaces,
};
use lime_core::{Error, ErrorKind, Result};
use tracing::Instrument;

use crate::attempt::{Attempt, Unfinished};
use crate::git::Git;
use crate::mirror::Mirror;
use crate::names::{Branch, is_object_id};
use crate::publish::Push;
use crate::remote::Remote;
use crate::{changes, failure, files, history, stage};

const PREPARE: &str = "git.prepare";
const ADOPT: &str = "git.adopt";
const COMMIT: &str = "git.commit";

/// Checkouts in a folder of this machine.
///
/// - The folder holds a mirror of each repository, and of each attempt a checkout and a git directory. Several
///   processes may share it.
/// - A repository is read when a checkout is made, and written to by `publish` only, which runs the hooks that its
///   owner set up for pushes to it.
/// - See the documentation of the crate for what git may read and run.
#[derive(Debug)]
pub struct GitWorkspaces {
    git: Git,
    mirrors: PathBuf,
    checkouts: PathBuf,
    git_dirs: PathBuf,
}

impl GitWorkspaces {
    /// Checkouts below `root`, a folder that is made if it is missing, for this user alone.
    ///
    /// - Fails with [`Invalid`](ErrorKind::Invalid) if the path is not absolute or not UTF-8, and where the folder cannot be
    ///   made. Whether git is there is found out by the first call.
    pub fn new(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        // Git names the mirrors in files of its own, one path to a line.
        if !root.is_absolute() || root.to_str().is_none_or(|path| path.contains('\n')) {
            return Err(Error::invalid(
                "git.open",
                "the folder for checkouts must be an absolute path in UTF-8, in one line",
            )
            .with("path", root.display()));
        }
        let failed = |error| failure::io("git.open", "the folder for checkouts cannot be made", root, error);
        let folder = |name: &str| {
            let folder = root.join(name);
            DirBuilder::new().recursive(true).mode(0o700).create(&folder).map(|()| folder)
        };
        Ok(Self {
            git: Git::default(),
            mirrors: folder("mirrors").map_err(failed)?,
            checkouts: folder("checkouts").map_err(failed)?,
            git_dirs: folder("attempts").map_err(failed)?,
        })
    }

    fn attempt(&self, operation: &'static str, workspace: &Workspace) -> Result<Attempt> {
        Attempt::of(operation, &self.checkouts, &self.git_dirs, workspace)
    }

    /// A place for a checkout, and that it is taken: where an earlier one was, if that is asked for and can be.
    async fn place(&self, spec: &WorkspaceSpec) -> Result<(Attempt, Unfinished)> {
        let placed = |place: &PathBuf| Attempt::placed(&self.checkouts, &self.git_dirs, spec.tenant, place);
        if let Some(attempt) = spec.place.as_ref().and_then(placed)
            && let Some(unfinished) = Unfinished::take(&attempt)?
        {
            return Ok((attempt, unfinished));
        }
        let name = format!("{}-{}", spec.tenant, spec.attempt);
        let attempt = Attempt::named(&self.checkouts, &self.git_dirs, &name);
        let unfinished = Unfinished::begin(&attempt).await?;
        Ok((attempt, unfinished))
    }

    async fn make(
        &self,
        spec: &WorkspaceSpec,
        attempt: &Attempt,
        branch: Branch,
        remote: &Remote,
    ) -> Result<Workspace> {
        let key = (spec.tenant, spec.repository);
        let mirror =
            Mirror::fetched(&self.git, &self.mirrors, key, remote, spec.access.token.as_ref()).await?;
        if let Some((other, _)) = mirror.branches().find(|(other, _)| branch.clashes_with(other)) {
            return Err(Error::new(
                ErrorKind::Conflict,
                PREPARE,
                "the repository has a branch beside which git cannot keep this one; choose another branch",
            )
            .with("branch", branch.as_str())
            .with("other", other));
        }
        let base_commit = mirror.commit(&self.git, &spec.base).await?;
        attempt.fill(&self.git, &mirror, &branch, (&spec.base, &base_commit)).await?;
        attempt.belong_to(spec.run)?;
        Ok(Workspace {
            path: attempt.checkout.clone(),
            git_dir: attempt.git_dir.clone(),
            branch_was: mirror.branch(&branch).map(str::to_owned),
            branch: branch.as_str().to_owned(),
            base: spec.base.clone(),
            base_commit,
        })
    }
}

#[async_trait]
impl Workspaces for GitWorkspaces {
    async fn prepare(&self, spec: &WorkspaceSpec) -> Result<Workspace> {
        let span = tracing::info_span!("prepare", tenant = %spec.tenant, run = %spec.run, attempt = %spec.attempt, repository = %spec.repository);
        async {
            let branch = Branch::parse(PREPARE, &spec.branch)?;
            let remote = Remote::parse(PREPARE, &spec.access.url)?;
            if matches!(&remote, Remote::Path(path) if !path.is_absolute()) {
                return Err(Error::invalid(PREPARE, "the path of a repository must be absolute")
                    .with("path", &remote));
            }
            let (attempt, unfinished) = self.place(spec).await?;
            match self.make(spec, &attempt, branch, &remote).await {
                Ok(workspace) => {
                    unfinished.finish();
                    Ok(workspace)
                }
                Err(error) => {
                    unfinished.undo().await?;
                    Err(error)
                }
            }
        }
        .instrument(span)
        .await
    }

    async fn adopt(&self, spec: &WorkspaceSpec, earlier: &Workspace) -> Result<Option<Workspace>> {
        let span = tracing::info_span!("adopt", tenant = %spec.tenant, run = %spec.run, attempt = %spec.attempt, checkout = %earlier.path.display());
        async {
            let names = earlier.branch_was.iter().chain([&earlier.base_commit]);
            let attempt = Attempt::placed(&self.checkouts, &self.git_dirs, spec.tenant, &earlier.path)
                .filter(|attempt| attempt.git_dir == earlier.git_dir && attempt.belongs_to(spec.run))
                .filter(|_| {
                    spec.branch == earlier.branch && names.into_iter().all(|name| is_object_id(name))
                });
            let Some(attempt) = attempt else { return Ok(None) };
            let branch = Branch::parse(ADOPT, &earlier.branch)?;
            let _lock = match attempt.lock(ADOPT).await {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                lock => lock?,
            };
            let whole = attempt.git_dir.join("index").is_file()
                && history::is_ancestor(&self.git, &attempt, &earlier.base_commit, &branch.full()).await?;
            Ok(whole.then(|| earlier.clone()))
        }
        .instrument(span)
        .await
    }

    async fn committed_files(&self, workspace: &Workspace, wanted: &FilesWanted) -> Result<CommittedFiles> {
        const FILES: &str = "git.files";
        async {
            let attempt = self.attempt(FILES, workspace)?;
            if !is_object_id(&workspace.base_commit) {
                let message = "this is not the full name of a commit";
                return Err(Error::invalid(FILES, message).with("commit", &workspace.base_commit));
            }
            let _lock = attempt.lock(FILES).await?;
            files::of(&self.git, &attempt, &workspace.base_commit, wanted).await
        }
        .instrument(tracing::info_span!("committed_files", checkout = %workspace.path.display()))
        .await
    }

    async fn changes(&self, workspace: &Workspace) -> Result<Changes> {
        async {
            let attempt = self.attempt("git.changes", workspace)?;
            let _lock = attempt.lock("git.changes").await?;
            let tree = stage::tree(&self.git, &attempt).await?;
            changes::between(&self.git, &attempt, &workspace.base_commit, &tree).await
        }
        .instrument(tracing::info_span!("changes", checkout = %workspace.path.display()))
        .await
    }

    async fn commit(
        &self,
        workspace: &Workspace,
        message: &str,
        author: &Author,
    ) -> Result<Option<CommitId>> {
        async {
            check_commit(message, author)?;
            let attempt = self.attempt(COMMIT, workspace)?;
            let branch = Branch::parse(COMMIT, &workspace.branch)?.full();
            let _lock = attempt.lock(COMMIT).await?;
            let tree = stage::tree(&self.git, &attempt).await?;
            let in_attempt = || self.git.call(COMMIT).at(&attempt.git_dir);

            // Ours is the base, or what was committed here before; the agent's counts where it has gone on from there.
            let ours = in_attempt().args(["rev-parse", "--verify", &branch]).text().await?;
            let parent = match history::tip(&self.git, &attempt, &workspace.base_commit).await? {
                Some(agents) if !history::is_ancestor(&self.git, &attempt, &agents, &ours).await? => agents,
                _ => ours,
            };
            let parent_tree =
                in_attempt().args(["rev-parse", "--verify", &format!("{parent}^{{tree}}")]).text().await?;
            let commit = if parent_tree == tree {
                parent
            } else {
                let call = in_attempt()
                    .env("GIT_AUTHOR_NAME", &author.name)
                    .env("GIT_AUTHOR_EMAIL", &author.email)
                    .env("GIT_COMMITTER_NAME", &author.name)
                    .env("GIT_COMMITTER_EMAIL", &author.email);
                call.args(["commit-tree", &tree, "-p", &parent, "-F", "-"]).input(message).text().await?
            };
            if commit == workspace.base_commit {
                return Ok(None);
            }
            in_attempt().args(["update-ref", &branch, &commit]).stdout().await?;
            Ok(Some(commit))
        }
        .instrument(tracing::info_span!("commit", checkout = %workspace.path.display()))
        .await
    }

    async fn publish(&self, workspace: &Workspace, access: &RepoAccess, commit: &CommitId) -> Result<()> {
        const PUBLISH: &str = "git.publish";
        async {
            let attempt = self.attempt(PUBLISH, workspace)?;
            let branch = Branch::parse(PUBLISH, &workspace.branch)?;
            let remote = Remote::parse(PUBLISH, &access.url)?;
            if !is_object_id(commit) {
                return Err(
                    Error::invalid(PUBLISH, "this is not the full name of a commit").with("commit", commit)
                );
            }
            let _lock = attempt.lock(PUBLISH).await?;
            let push = Push {
                git: &self.git,
                attempt: &attempt,
                remote: &remote,
                access,
                branch: &branch,
                base_commit: &workspace.base_commit,
                commit,
            };
            push.run(workspace.branch_was.as_deref()).await
        }
        .instrument(
            tracing::info_span!("publish", checkout = %workspace.path.display(), branch = %workspace.branch),
        )
        .await
    }

    async fn remove(&self, workspace: &Workspace) -> Result<()> {
        self.attempt("git.remove", workspace)?.remove().await
    }
}

/// Checks what git would refuse late, or clean up in its own way.
fn check_commit(message: &str, author: &Author) -> Result<()> {
    let bad =
        |text: &str| text.trim().is_empty() || text.chars().any(|c| c.is_control() || c == '<' || c == '>');
    if bad(&author.name) || bad(&author.email) {
        return Err(Error::invalid(
            COMMIT,
            "the author needs a name and an address, without line breaks, `<` and `>`",
        ));
    }
    if message.trim().is_empty() || message.contains('\0') {
        return Err(Error::invalid(
            COMMIT,
            "the message of a commit must not be empty, nor have a NUL character",
        ));
    }
    Ok(())
}
