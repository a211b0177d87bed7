use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::identity::Tenant;
use crate::ports::RepoAccess;
use crate::repos::{DiffStats, Repository};
use crate::runs::{AgentRun, RunAttempt};
use crate::words::words;
use crate::{Id, Result};

/// A commit by its full name in hexadecimal.
pub type CommitId = String;

/// Gives each attempt a checkout of its own, and brings the work home.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait Workspaces: Send + Sync {
    /// Makes a checkout on a fresh branch.
    ///
    /// - The repository's own working tree is not touched, and nothing is written to it.
    /// - Fails with [`NotFound`](crate::ErrorKind::NotFound) if the base is not there, with
    ///   [`Invalid`](crate::ErrorKind::Invalid) if the branch's name is none; then nothing is left behind.
    async fn prepare(&self, spec: &WorkspaceSpec) -> Result<Workspace>;

    /// Takes over the checkout of an earlier attempt at the same run, with the work that is in it.
    ///
    /// - The earlier attempt must have ended by itself, so that nobody writes there any more.
    /// - `None` if it is not there, not whole, or another run's; then a fresh one is to be made.
    async fn adopt(&self, spec: &WorkspaceSpec, earlier: &Workspace) -> Result<Option<Workspace>>;

    /// Some files of the commit that the checkout started from, in the order of the paths; of one pattern by their names.
    ///
    /// - As they were committed, whatever an agent has written in the checkout since.
    /// - Only plain files in UTF-8 without NUL, and no more than is wanted; what else is there at these paths is left
    ///   out with its reason. A path where nothing is gives nothing. No link is followed.
    async fn committed_files(&self, workspace: &Workspace, wanted: &FilesWanted) -> Result<CommittedFiles>;

    /// What has changed since the base, files that git does not know yet included.
    ///
    /// - Ignored files are left out. Nothing is committed by it.
    async fn changes(&self, workspace: &Workspace) -> Result<Changes>;

    /// Commits what has changed since the base; `None` if nothing has, and the agent committed nothing itself.
    ///
    /// - No hook, signature, filter or configuration of the checkout has a say.
    /// - Commits that the agent made itself stay below it.
    async fn commit(&self, workspace: &Workspace, message: &str, author: &Author)
    -> Result<Option<CommitId>>;

    /// Brings a commit to the repository, on the workspace's branch.
    ///
    /// - Creates the branch, or moves it from where it was when the workspace was made; a branch that has moved
    ///   meanwhile is a [`Conflict`](crate::ErrorKind::Conflict), and stays as it is.
    /// - Doing it again with the same commit changes nothing.
    async fn publish(&self, workspace: &Workspace, access: &RepoAccess, commit: &CommitId) -> Result<()>;

    /// Removes the checkout from the disk; one that is gone already is no error.
    async fn remove(&self, workspace: &Workspace) -> Result<()>;
}

/// What a checkout is made of.
#[derive(Debug, Clone)]
pub struct WorkspaceSpec {
    /// The tenant.
    pub tenant: Id<Tenant>,
    /// The run.
    pub run: Id<AgentRun>,
    /// The attempt, since two attempts of a run never share a checkout.
    pub attempt: Id<RunAttempt>,
    /// The repository.
    pub repository: Id<Repository>,
    /// How git gets to it.
    pub access: RepoAccess,
    /// The branch, tag or commit to start from.
    pub base: String,
    /// The branch that the work goes to.
    pub branch: String,
    /// Where an earlier checkout was, since an agent's session is taken up only in the same folder: used if it is one of
    /// this adapter's own for the same tenant, and free; otherwise, and if none, the adapter's own choice.
    pub place: Option<PathBuf>,
}

/// A checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workspace {
    /// Where it is.
    pub path: PathBuf,
    /// The git directory that it belongs to; outside of the checkout.
    pub git_dir: PathBuf,
    /// The branch that the work goes to.
    pub branch: String,
    /// What it started from, as it was asked for.
    pub base: String,
    /// The commit that it started from.
    pub base_commit: CommitId,
    /// Where the branch was in the repository; `None` if it was not there.
    pub branch_was: Option<CommitId>,
}

/// Which files of a commit are wanted, and how much of them at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesWanted {
    /// Paths from the top of the repository, such as `AGENTS.md`; `rules/*.md` is every file of that folder whose name
    /// ends so.
    pub paths: Vec<String>,
    /// The most files.
    pub max_files: usize,
    /// The most bytes of a file.
    pub max_file_bytes: usize,
    /// The most bytes of all files together.
    pub max_bytes: usize,
}

/// The files of a commit that were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommittedFiles {
    /// What can be read.
    pub files: Vec<CommittedFile>,
    /// What is there and cannot.
    pub left_out: Vec<LeftOut>,
}

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommittedFile {
    /// The path from the top of the repository.
    pub path: String,
    /// All of it.
    pub content: String,
}

/// Something in a commit that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The path from the top of the repository.
    pub path: String,
    /// Why.
    pub why: WhyLeftOut,
}

words! {
    /// Why a file of a commit is left out.
    pub enum WhyLeftOut: "why" {
        /// It is a symbolic link, a submodule or a folder.
        NoFile = "no_file",
        /// It is not UTF-8, or has a NUL in it.
        NoText = "no_text",
        /// It has more bytes than a file may have.
        TooLong = "too_long",
        /// With it there would be more files, or bytes of all of them, than there may be.
        TooMany = "too_many",
    }
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// As `git diff` prints it, in UTF-8; empty if nothing has changed.
    pub unified_diff: String,
    /// How much.
    pub stats: DiffStats,
    /// The paths, sorted.
    pub paths: Vec<String>,
}

/// Who a commit is by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The address.
    pub email: String,
}
