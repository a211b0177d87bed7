//! The port `RepoProvider` for repositories on this machine, and any URL that git can clone.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use lime_core::ports::{BranchState, RepoAccess, RepoDescription, RepoProvider};
use lime_core::repos::{RepoKind, Repository};
use lime_core::{Error, ErrorKind, Result, Scope};

use crate::failure::{self, failed};
use crate::git::Git;
use crate::history::os;
use crate::names::Branch;
use crate::remote::{Remote, Url};

const DESCRIBE: &str = "git.describe";
const STATE: &str = "git.branch_state";

/// The branches that are tried where a repository does not say which one work starts from.
const USUAL: &[&str] = &["main", "master"];

/// Repositories by a path on this machine, or by a URL (https, http, ssh, git, file).
///
/// - It goes where this process may go, and with its ssh keys: give it to people who may do so too.
/// - There are no tokens: https works for public repositories, ssh with the keys of the machine.
/// - Git's check of who owns a repository is left on.
#[derive(Debug, Default)]
pub struct LocalRepos {
    git: Git,
}

impl LocalRepos {
    /// Repositories by path or URL.
    pub fn new() -> Self {
        Self::default()
    }

    async fn describe_path(&self, path: &Path) -> Result<RepoDescription> {
        let path = std::fs::canonicalize(path).map_err(|error| {
            let message = "there is nothing at this path; give a folder, without `~`";
            match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
                    Error::new(ErrorKind::NotFound, DESCRIBE, message).with("path", path.display())
                }
                _ => failure::io(DESCRIBE, "this path cannot be read", path, error),
            }
        })?;
        if !path.is_dir() {
            return Err(not_a_repository("this is a file", &path));
        }
        let top = self.top(&path).await?;
        let text = top.to_str().ok_or_else(|| not_a_repository("its path is not UTF-8", &top))?;
        let folder = |path: Option<&Path>| {
            let name = path.and_then(Path::file_name).and_then(|name| name.to_str());
            name.unwrap_or("/").to_owned()
        };
        let name = folder(Some(&top));
        Ok(RepoDescription {
            owner: folder(top.parent()),
            name: name.strip_suffix(".git").filter(|name| !name.is_empty()).unwrap_or(&name).to_owned(),
            full_name: text.to_owned(),
            clone_url: text.to_owned(),
            default_branch: self.default_branch(&top).await?,
            external_repo_id: None,
        })
    }

    /// The top of the working tree that a folder is in, or the bare repository.
    async fn top(&self, folder: &Path) -> Result<PathBuf> {
        let ask =
            |question: &'static str| self.git.call(DESCRIBE).inside(folder).args(["rev-parse", question]);
        let found = ask("--is-bare-repository").output().await?;
        let bare = match found.code {
            Some(0) => found.stdout.starts_with(b"true"),
            _ if found.stderr.contains("not a git repository") => {
                return Err(not_a_repository("this is not a git repository, nor in one", folder));
            }
            _ => return Err(failed(DESCRIBE, &found).with("path", folder.display())),
        };
        let question = if bare { "--absolute-git-dir" } else { "--show-toplevel" };
        let answer = ask(question).output().await?;
        let line = answer.stdout.strip_suffix(b"\n").unwrap_or(&answer.stdout);
        if answer.code != Some(0) || line.is_empty() {
            return Err(not_a_repository(
                "this is the inside of a git directory; give the folder of the project",
                folder,
            ));
        }
        Ok(os(line))
    }

    async fn default_branch(&self, top: &Path) -> Result<String> {
        let ask = |args: &'static [&'static str]| self.git.call(DESCRIBE).inside(top).args(args).output();
        let (refs, head, remote, set) = tokio::try_join!(
            self.git
                .call(DESCRIBE)
                .inside(top)
                .args(["for-each-ref", "--format=%(refname)", "refs/heads"])
                .text(),
            ask(&["symbolic-ref", "--quiet", "HEAD"]),
            ask(&["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"]),
            ask(&["config", "--get", "init.defaultBranch"]),
        )?;
        let branches: Vec<_> = refs.lines().filter_map(|name| name.strip_prefix("refs/heads/")).collect();
        let [head, remote, set] =
            [head, remote, set].map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned());
        let wishes =
            [head.strip_prefix("refs/heads/"), remote.strip_prefix("refs/remotes/origin/"), Some(&*set)];
        chosen(&branches, wishes.into_iter().flatten()).map_err(|error| error.with("path", top.display()))
    }

    async fn describe_url(&self, url: &Url, remote: &Remote) -> Result<RepoDescription> {
        let call = self.git.call(DESCRIBE).to(remote, None)?.args(["ls-remote", "--symref", "--"]);
        let call = call.args([remote.argument()]).args(["HEAD", "refs/heads/*"]);
        let listed = call.text().await.map_err(|error| error.with("url", remote))?;
        let head =
            listed.lines().find_map(|line| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
        let branches: Vec<_> = listed
            .lines()
            .filter_map(|line| line.split_once("\trefs/heads/"))
            .map(|(_, name)| name)
            .collect();
        Ok(RepoDescription {
            owner: url.owner().to_owned(),
            name: url.name().to_owned(),
            full_name: url.full_name(),
            clone_url: url.as_str().to_owned(),
            default_branch: chosen(&branches, head.into_iter()).map_err(|error| error.with("url", remote))?,
            external_repo_id: None,
        })
    }

    async fn branch_of_path(&self, path: &Path, branch: &Branch) -> Result<BranchState> {
        let here = || self.git.call(STATE).inside(path);
        if !path.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, STATE, "the repository is gone from this path")
                .with("path", path.display()));
        }
        let known =
            here().args(["for-each-ref", "--format=%(objectname) %(refname)"]).args([branch.full()]).text();
        let (known, trees) =
            tokio::try_join!(known, here().args(["worktree", "list", "--porcelain", "-z"]).stdout())?;
        let commit =
            known.lines().filter_map(|line| line.split_once(' ')).find(|&(_, name)| name == branch.full());
        let Some((commit, _)) = commit else { return Ok(BranchState::Missing) };
        let Some(tree) = tree_of(&trees, branch) else { return Ok(BranchState::At(commit.to_owned())) };
        let dirty = tree.is_dir() && {
            let call = self.git.call(STATE).inside(&tree).args(["status", "--porcelain", "-z"]);
            // One byte is enough to know; and git must not run itself in submodules.
            let said = call
                .args(["--ignore-submodules=dirty", "--untracked-files=normal"])
                .max_output(1)
                .output()
                .await?;
            if !said.cut && said.code != Some(0) {
                return Err(failed(STATE, &said).with("path", tree.display()));
            }
            !said.stdout.is_empty()
        };
        Ok(BranchState::CheckedOut { commit: commit.to_owned(), dirty })
    }
}

#[async_trait]
impl RepoProvider for LocalRepos {
    fn kind(&self) -> RepoKind {
        RepoKind::Local
    }

    async fn describe(&self, location: &str) -> Result<RepoDescription> {
        match Remote::parse(DESCRIBE, location)? {
            Remote::Path(path) => self.describe_path(&path).await,
            Remote::Url(url) => self.describe_url(&url, &Remote::Url(url.clone())).await,
        }
    }

    async fn access(&self, _: &Scope, repository: &Repository) -> Result<RepoAccess> {
        Ok(RepoAccess { url: repository.clone_url.clone(), token: None })
    }

    async fn branch_state(&self, _: &Scope, repository: &Repository, branch: &str) -> Result<BranchState> {
        let branch = Branch::parse(STATE, branch)?;
        let remote = Remote::parse(STATE, &repository.clone_url)?;
        if let Remote::Path(path) = &remote {
            return self.branch_of_path(path, &branch).await;
        }
        let call =
            self.git.call(STATE).to(&remote, None)?.args(["ls-remote", "--"]).args([remote.argument()]);
        let listed = call.args([branch.full()]).text().await.map_err(|error| error.with("url", &remote))?;
        let found =
            listed.lines().filter_map(|line| line.split_once('\t')).find(|&(_, name)| name == branch.full());
        Ok(found.map_or(BranchState::Missing, |(id, _)| BranchState::At(id.to_owned())))
    }
}

fn not_a_repository(why: &str, path: &Path) -> Error {
    Error::invalid(DESCRIBE, why).with("path", path.display())
}

/// The branch that work starts from: the first wish that is there, else a usual one, else the only one.
fn chosen<'a>(branches: &[&str], wishes: impl Iterator<Item = &'a str>) -> Result<String> {
    if branches.is_empty() {
        return Err(Error::invalid(
            DESCRIBE,
            "the repository has no commit on a branch yet; make a first one",
        ));
    }
    let only = if let [only] = branches { Some(*only) } else { None };
    let found = wishes.chain(USUAL.iter().copied()).find(|wish| branches.contains(wish)).or(only);
    found.map(str::to_owned).ok_or_else(|| {
        Error::invalid(
            DESCRIBE,
            "the repository does not say which branch work starts from; check one out, or set init.defaultBranch in it",
        )
    })
}

/// The working tree that has a branch checked out, in what `worktree list --porcelain -z` prints.
fn tree_of(listed: &[u8], branch: &Branch) -> Option<PathBuf> {
    let wanted = format!("branch {}", branch.full());
    let mut tree = None;
    for line in listed.split(|&byte| byte == 0) {
        if let Some(path) = line.strip_prefix(b"worktree ") {
            tree = Some(os(path));
        } else if line == wanted.as_bytes() {
            return tree;
        }
    }
    None
}
