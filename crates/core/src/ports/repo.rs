use async_trait::async_trait;
use secrecy::SecretString;

use crate::repos::{RepoKind, Repository};
use crate::{Result, Scope};

/// Knows one kind of code host: where a repository is, and how to get in.
#[cfg_attr(feature = "mocks", mockall::automock)]
#[async_trait]
pub trait RepoProvider: Send + Sync {
    /// The kind of host.
    fn kind(&self) -> RepoKind;

    /// Looks at a location that a person gave: a path, a URL, or `owner/name` at the host.
    ///
    /// - Fails with [`NotFound`](crate::ErrorKind::NotFound) if there is nothing,
    ///   [`Invalid`](crate::ErrorKind::Invalid) if it is not a repository or has no commit yet.
    async fn describe(&self, location: &str) -> Result<RepoDescription>;

    /// How git gets to a repository now, with short-lived credentials where it needs them.
    async fn access(&self, scope: &Scope, repository: &Repository) -> Result<RepoAccess>;

    /// What a branch looks like to somebody who is about to push to it.
    ///
    /// - Fails with [`Invalid`](crate::ErrorKind::Invalid) if the name is not a branch name.
    async fn branch_state(&self, scope: &Scope, repository: &Repository, branch: &str)
    -> Result<BranchState>;
}

/// What a location turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoDescription {
    /// The account that owns it, or the parent folder.
    pub owner: String,
    /// Its name.
    pub name: String,
    /// The name that is unique for this kind of host.
    pub full_name: String,
    /// What `git clone` takes, without credentials.
    pub clone_url: String,
    /// The branch that work starts from.
    pub default_branch: String,
    /// The host's own id of it.
    pub external_repo_id: Option<i64>,
}

impl RepoDescription {
    /// The repository to store.
    pub fn into_repository(self, provider: RepoKind) -> Repository {
        Repository {
            connector_id: None,
            provider,
            external_repo_id: self.external_repo_id,
            owner: self.owner,
            name: self.name,
            full_name: self.full_name,
            clone_url: self.clone_url,
            default_branch: self.default_branch,
            is_enabled: true,
        }
    }
}

/// How git gets to a repository.
#[derive(Debug, Clone)]
pub struct RepoAccess {
    /// What git takes as the remote, without credentials.
    pub url: String,
    /// The password or token, given to git by a helper and never in a URL or an argument.
    pub token: Option<SecretString>,
}

/// What a branch looks like to somebody who is about to push to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BranchState {
    /// There is none of that name.
    Missing,
    /// It is at this commit, and nobody has it checked out as far as the host can tell.
    At(String),
    /// It is checked out in a working tree, which a push would leave behind.
    CheckedOut {
        /// The commit.
        commit: String,
        /// The working tree has changes that are not committed.
        dirty: bool,
    },
}
