//! Worktrees, diffs and commits on the local git: the ports `Workspaces` and `RepoProvider` on the git program.
//!
//! - [`GitWorkspaces`] gives each attempt a checkout and brings its work home; [`LocalRepos`] knows repositories on
//!   this machine and any URL that git can clone.
//! - The git program and not a library: it is what teams have, and it alone does everything that is needed; gix has
//!   no push, libgit2 is a C dependency that lags behind in protocols and extensions.
//! - Git 2.36 or newer is needed, on Unix. Attributes of the result decide how a diff is shown from 2.41 on; before,
//!   those of the checkout do.
//!
//! # Who owns which git directory
//!
//! An agent can write anything into its checkout, and git runs programs that its configuration names (hooks,
//! filters, `core.fsmonitor`, external diffs). So the host's git never reads a git directory that an agent can
//! write:
//!
//! - The *mirror* of a repository is bare, the host's, and holds nothing but what the repository holds: branches and
//!   tags. Attempts of a tenant share it and only borrow its objects.
//! - The *attempt's git directory* ([`Workspace::git_dir`](lime_core::ports::Workspace::git_dir)) is the host's too,
//!   outside of the checkout: its own index, branch and objects. All that an agent makes lands here first and goes
//!   with the attempt, so the mirror stays clean and no attempt can harm another.
//! - The *agent's git directory* is a plain `.git` in the checkout, so that `git status`, `diff`, `log` and `commit`
//!   work as they do anywhere. The host writes it once and never runs git in it. It has no remote.
//!
//! A worktree of the mirror would be the other way (`git worktree add`). It is refused because its `.git` file
//! points into the mirror: an agent that may commit could write the configuration, hooks, refs and objects that all
//! attempts and the host itself use, and a sandbox that guards the mirror would break `git commit`.
//!
//! Work is brought over as data. Files are staged from the checkout into the attempt's index, repositories inside of
//! the checkout by the commit they are at, without running git in them. Commits that the agent made are found by
//! reading `.git/HEAD`, and fetched, with every object checked (`fetch.fsckObjects`), from a passing git directory
//! of the host's that borrows the agent's objects. A history that is not sound, or not on the base, is left out with
//! a warning; the files still count.
//!
//! A later attempt takes a checkout over as it is, with what is open in it. The host's git directory says whose it is
//! (`lime-run`), which is written last, so one that was never finished is nobody's. Where a checkout was, another one
//! of the tenant can be made once it is gone, since an agent's session is found by its folder.
//!
//! This guards what git reads and runs, and not the file system: an agent that may write outside of its checkout
//! reaches the rest as any program of the same user does, so it needs a sandbox around it.
//!
//! # How git is run
//!
//! - With an empty environment but for a documented list; without system, user or attribute files of the machine;
//!   with hooks, fsmonitor, signatures, maintenance and prompts off; over file, git, http, https and ssh only.
//! - Git directory and work tree are named, never looked for, so a `.git` that was swapped for another changes
//!   nothing.
//! - With a time limit, a bound on output, in a process group that ends with the call. Errors carry the last lines
//!   of what git said, without credentials.
//! - A token is given by a credential helper that reads it from git's environment and answers for the one host
//!   alone; it is never in an argument, a URL, a file or a log.
//! - Content filters are not run, that of Git LFS included: such files are pointers in a checkout.

mod attempt;
mod call;
mod changes;
mod failure;
mod files;
mod git;
mod history;
mod lock;
mod mirror;
mod names;
mod publish;
mod remote;
mod repos;
mod stage;
mod workspaces;

pub use repos::LocalRepos;
pub use workspaces::GitWorkspaces;
