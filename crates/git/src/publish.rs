//! The one thing that is ever written to a repository: a branch.

use lime_core::ports::RepoAccess;
use lime_core::{Error, ErrorKind, Result};

use crate::attempt::Attempt;
use crate::call::Output;
use crate::failure::{failed, last_lines};
use crate::git::Git;
use crate::history;
use crate::names::Branch;
use crate::remote::Remote;

const PUSH: &str = "git.push";

/// What is pushed, and where.
pub(crate) struct Push<'a> {
    pub(crate) git: &'a Git,
    pub(crate) attempt: &'a Attempt,
    pub(crate) remote: &'a Remote,
    pub(crate) access: &'a RepoAccess,
    pub(crate) branch: &'a Branch,
    pub(crate) base_commit: &'a str,
    pub(crate) commit: &'a str,
}

/// How a push ended for the branch.
enum Pushed {
    Done,
    /// The branch is not where it was expected.
    Moved,
    /// It is refused, for this reason of git's.
    Refused(String),
}

impl Push<'_> {
    /// Creates the branch, or moves it from where it was.
    ///
    /// - A branch that is at a commit of this attempt's own, from an earlier push, is moved on as well.
    pub(crate) async fn run(&self, was: Option<&str>) -> Result<()> {
        let pushed = match self.push(was).await? {
            Pushed::Moved => match self.own_commit_there().await? {
                Some(own) => self.push(Some(&own)).await?,
                None => Pushed::Moved,
            },
            pushed => pushed,
        };
        let conflict = |message: &str| {
            Error::new(ErrorKind::Conflict, PUSH, message)
                .with("branch", self.branch.as_str())
                .with("repository", self.remote)
        };
        match pushed {
            Pushed::Done => Ok(()),
            Pushed::Moved if was.is_none() => {
                Err(conflict("somebody made a branch of this name meanwhile; choose another branch"))
            }
            Pushed::Moved => {
                Err(conflict("somebody moved or removed the branch meanwhile; run again from where it is now"))
            }
            Pushed::Refused(reason) if reason.contains("currently checked out") => Err(conflict(
                "the branch is checked out in the repository, and git does not change it under somebody's feet; \
                 choose another branch, or check out another one there",
            )),
            Pushed::Refused(reason) if reason.contains("failed to update ref") || reason.contains("cannot lock ref") => {
                Err(conflict("the repository cannot take a branch of this name now, one like it may be there; choose another branch")
                    .with("git", reason))
            }
            Pushed::Refused(reason) => {
                let said = Output { code: Some(1), stdout: Vec::new(), cut: false, stderr: reason };
                let error = failed(PUSH, &said).with("branch", self.branch.as_str());
                Err(error.with("repository", self.remote))
            }
        }
    }

    async fn push(&self, expected: Option<&str>) -> Result<Pushed> {
        let branch = self.branch.full();
        let call =
            self.git.call(PUSH).at(&self.attempt.git_dir).to(self.remote, self.access.token.as_ref())?;
        let output = call
            .args(["push", "--porcelain", "--no-verify"])
            // An empty value says that the branch must not be there.
            .args([format!("--force-with-lease={branch}:{}", expected.unwrap_or_default())])
            .args(["--".as_ref(), self.remote.argument()])
            .args([format!("{}:{branch}", self.commit)])
            .output()
            .await?;
        if output.code == Some(0) {
            return Ok(Pushed::Done);
        }
        // One line per ref: a flag, `from:to`, and the reason in brackets.
        let stdout = String::from_utf8_lossy(&output.stdout);
        let refused =
            stdout.lines().find_map(|line| line.strip_prefix("!\t")).and_then(|line| line.split('\t').nth(1));
        match refused {
            Some(reason) if reason.contains("stale info") => Ok(Pushed::Moved),
            Some(reason) => Ok(Pushed::Refused(format!("{reason} | {}", last_lines(&output.stderr)))),
            None => Err(failed(PUSH, &output).with("repository", self.remote)),
        }
    }

    /// The commit that the branch is at in the repository, if it is this attempt's own.
    async fn own_commit_there(&self) -> Result<Option<String>> {
        let call = self.git.call("git.ls_remote").to(self.remote, self.access.token.as_ref())?;
        let call = call.args(["ls-remote", "--quiet", "--"]).args([self.remote.argument()]);
        let listed = call.args([self.branch.full()]).text().await?;
        let Some((there, _)) = listed.split_once('\t') else { return Ok(None) };
        let known =
            self.git.call(PUSH).at(&self.attempt.git_dir).args(["cat-file", "-e", there]).output().await?;
        let own = known.code == Some(0)
            && there != self.base_commit
            && history::is_ancestor(self.git, self.attempt, self.base_commit, there).await?
            && history::is_ancestor(self.git, self.attempt, there, self.commit).await?;
        Ok(own.then(|| there.to_owned()))
    }
}
