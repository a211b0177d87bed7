//! Repositories in temporary folders, made and looked at by the real git.
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicI64, Ordering};

use lime_core::Id;
use lime_core::ports::{Author, Changes, RepoAccess, Workspace, WorkspaceSpec, Workspaces};
use lime_git::GitWorkspaces;
use tempfile::TempDir;

/// Whether git is there; says so if not.
pub(crate) fn has_git() -> bool {
    let found = Command::new("git").arg("--version").output().is_ok();
    if !found {
        lime_conformance::skip("git is not installed");
    }
    found
}

/// Git as a person or an agent runs it: with an identity, and without the settings of this machine.
pub(crate) fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Writes a program, not by this process: a child of another test could hold it open, and it could not be run.
pub(crate) fn script(path: impl AsRef<Path>, body: &str) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf '%s' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written =
        Command::new("sh").args(["-c", write]).arg(path).arg(format!("#!/bin/sh\n{body}\n")).status();
    assert!(written.unwrap().success());
}

/// A repository of a team, with a working tree, on `main` with one commit.
pub(crate) struct Origin {
    pub(crate) path: PathBuf,
    pub(crate) id: i64,
}

impl Origin {
    pub(crate) fn commit(&self, files: &[(&str, &str)], message: &str) -> String {
        for (path, content) in files {
            write(self.path.join(path), content);
        }
        git(&self.path, &["add", "-A"]);
        git(&self.path, &["commit", "--quiet", "--allow-empty", "-m", message]);
        self.id_of("HEAD")
    }

    pub(crate) fn id_of(&self, revision: &str) -> String {
        git(&self.path, &["rev-parse", "--verify", revision]).trim().to_owned()
    }

    pub(crate) fn access(&self) -> RepoAccess {
        RepoAccess { url: self.path.to_str().unwrap().to_owned(), token: None }
    }

    /// A file as it is at a revision.
    pub(crate) fn show(&self, revision: &str, path: &str) -> Vec<u8> {
        let output = run(&self.path, &["cat-file", "blob", &format!("{revision}:{path}")]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

/// A state directory with workspaces in it, and repositories beside it.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) workspaces: GitWorkspaces,
    next: AtomicI64,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workspaces = GitWorkspaces::new(dir.path().join("state")).unwrap();
        Self { dir, workspaces, next: AtomicI64::new(1) }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn init(&self) -> Origin {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("team/repo-{id}"));
        fs::create_dir_all(&path).unwrap();
        git(&path, &["init", "--quiet", "--initial-branch=main"]);
        git(&path, &["config", "user.name", "A Person"]);
        git(&path, &["config", "user.email", "person@example.com"]);
        Origin { path: fs::canonicalize(path).unwrap(), id }
    }

    pub(crate) fn origin(&self, files: &[(&str, &str)]) -> Origin {
        let origin = self.init();
        origin.commit(files, "First");
        origin
    }

    pub(crate) fn spec(&self, origin: &Origin, base: &str, branch: &str) -> WorkspaceSpec {
        let attempt = self.next.fetch_add(1, Ordering::Relaxed);
        WorkspaceSpec {
            tenant: Id::new(7),
            run: Id::new(attempt),
            attempt: Id::new(attempt),
            repository: Id::new(origin.id),
            access: origin.access(),
            base: base.to_owned(),
            branch: branch.to_owned(),
            place: None,
        }
    }

    pub(crate) async fn prepare(&self, origin: &Origin, branch: &str) -> Workspace {
        self.workspaces.prepare(&self.spec(origin, "main", branch)).await.unwrap()
    }

    pub(crate) async fn changes(&self, workspace: &Workspace) -> Changes {
        self.workspaces.changes(workspace).await.unwrap()
    }

    pub(crate) async fn commit(&self, workspace: &Workspace) -> Option<String> {
        self.workspaces.commit(workspace, "Work", &author()).await.unwrap()
    }

    pub(crate) async fn publish(&self, origin: &Origin, workspace: &Workspace, commit: &str) {
        self.workspaces.publish(workspace, &origin.access(), &commit.to_owned()).await.unwrap();
    }

    /// Commits and publishes what is in the checkout.
    pub(crate) async fn deliver(&self, origin: &Origin, workspace: &Workspace) -> String {
        let commit = self.commit(workspace).await.unwrap();
        self.publish(origin, workspace, &commit).await;
        commit
    }

    /// What is kept of checkouts.
    pub(crate) fn kept(&self) -> Vec<String> {
        let mut names: Vec<_> = ["checkouts", "attempts"]
            .iter()
            .flat_map(|folder| fs::read_dir(self.state().join(folder)).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

pub(crate) fn author() -> Author {
    Author { name: "Lime".into(), email: "lime@example.com".into() }
}

/// The diff of a commit as anybody can make it in the repository.
pub(crate) fn diff_in(origin: &Origin, from: &str, to: &str) -> String {
    let args = ["-c", "core.quotePath=false", "diff", from, to];
    let output = command(&origin.path, &args).env("GIT_ATTR_SOURCE", to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything that can be seen of a repository: refs, working tree, index and settings.
pub(crate) fn state_of(origin: &Path) -> String {
    let mut state = git(origin, &["for-each-ref", "--format=%(refname) %(objectname)"]);
    let mut folders = vec![origin.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            let skipped =
                ["objects", "refs", "logs"].iter().any(|name| path.ends_with(format!(".git/{name}")));
            if entry.file_type().unwrap().is_dir() {
                if !skipped {
                    folders.push(path);
                }
            } else {
                let found = fs::symlink_metadata(&path).unwrap();
                files.push(format!("{} {:?} {}\n", path.display(), found.modified().unwrap(), found.len()));
            }
        }
    }
    files.sort();
    state.extend(files);
    state
}
