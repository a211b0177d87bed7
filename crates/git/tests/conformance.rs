//! The behaviour that every adapter of these ports shows.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use lime_conformance::{repos, workspaces};
use lime_core::Id;
use lime_core::ports::{RepoAccess, RepoProvider, Workspace, Workspaces};
use lime_git::LocalRepos;
use support::{Origin, Place, git, has_git, run, state_of, write};

struct Local {
    place: Place,
}

impl Local {
    fn origin(&self, origin: &workspaces::Origin) -> Origin {
        Origin { path: origin.access.url.clone().into(), id: origin.repository.raw() }
    }
}

impl workspaces::Fixture for Local {
    fn workspaces(&self) -> &dyn Workspaces {
        &self.place.workspaces
    }

    async fn origin(&self, files: &[(&str, &str)]) -> workspaces::Origin {
        let origin = self.place.origin(files);
        workspaces::Origin { repository: Id::new(origin.id), access: origin.access() }
    }

    async fn push(&self, origin: &workspaces::Origin, branch: &str, path: &str, content: &str) -> String {
        let origin = self.origin(origin);
        let known = run(&origin.path, &["rev-parse", "--verify", "--quiet", &format!("refs/heads/{branch}")]);
        match known.status.success() {
            true => git(&origin.path, &["checkout", "--quiet", branch]),
            false => git(&origin.path, &["checkout", "--quiet", "-b", branch, "main"]),
        };
        let id = origin.commit(&[(path, content)], "By somebody else");
        git(&origin.path, &["checkout", "--quiet", "main"]);
        id
    }

    async fn tag(&self, origin: &workspaces::Origin, name: &str, commit: &String) {
        git(&self.origin(origin).path, &["tag", "-a", "-m", "A tag", name, commit]);
    }

    async fn log(&self, origin: &workspaces::Origin, branch: &str) -> Vec<workspaces::Commit> {
        let args =
            ["log", "-z", "--format=%H%n%an <%ae>%n%cn <%ce>%n%B", &format!("refs/heads/{branch}"), "--"];
        let output = run(&self.origin(origin).path, &args);
        let text = String::from_utf8(output.stdout).unwrap();
        let commit = |entry: &str| {
            let mut lines = entry.splitn(4, '\n').map(str::to_owned);
            let mut next = || lines.next().unwrap();
            workspaces::Commit {
                id: next(),
                author: next(),
                committer: next(),
                message: next().trim().to_owned(),
            }
        };
        text.split('\0').filter(|entry| !entry.is_empty()).map(commit).collect()
    }

    async fn file(&self, origin: &workspaces::Origin, branch: &str, path: &str) -> Option<String> {
        let output =
            run(&self.origin(origin).path, &["cat-file", "blob", &format!("refs/heads/{branch}:{path}")]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    async fn state(&self, origin: &workspaces::Origin) -> String {
        state_of(&self.origin(origin).path)
    }

    async fn write(&self, workspace: &Workspace, path: &str, content: Option<&str>) {
        match content {
            Some(content) => write(workspace.path.join(path), content),
            None => fs::remove_file(workspace.path.join(path)).unwrap(),
        }
    }

    async fn read(&self, workspace: &Workspace, path: &str) -> Option<String> {
        fs::read_to_string(workspace.path.join(path)).ok()
    }

    async fn git(&self, workspace: &Workspace, args: &[&str]) -> String {
        git(&workspace.path, args)
    }

    async fn damage(&self, workspace: &Workspace) {
        fs::remove_dir_all(&workspace.path).unwrap();
    }

    async fn kept(&self) -> Vec<String> {
        self.place.kept()
    }
}

#[tokio::test]
async fn workspaces_behave_as_the_port_says() {
    if has_git() {
        workspaces::run(&Local { place: Place::new() }).await;
    }
}

struct LocalHost {
    repos: LocalRepos,
    place: Place,
    bare: bool,
    next: AtomicU32,
}

impl LocalHost {
    fn new(bare: bool) -> Self {
        Self { repos: LocalRepos::new(), place: Place::new(), bare, next: AtomicU32::new(0) }
    }
}

impl repos::Fixture for LocalHost {
    fn repos(&self) -> &dyn RepoProvider {
        &self.repos
    }

    async fn repository(&self, branch: &str) -> String {
        let origin = self.place.origin(&[("a", "1\n")]);
        git(&origin.path, &["branch", "--quiet", "-m", branch]);
        if !self.bare {
            return origin.access().url;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let bare = self.place.dir.path().join(format!("bare-{number}.git"));
        git(&origin.path, &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
        format!("file://{}", bare.display())
    }

    async fn empty(&self) -> String {
        self.place.init().access().url
    }

    async fn nothing(&self) -> String {
        self.place.dir.path().join("nothing").to_str().unwrap().to_owned()
    }

    async fn something_else(&self) -> Option<String> {
        let file = self.place.dir.path().join("else/file");
        write(&file, "");
        Some(file.parent().unwrap().to_str().unwrap().to_owned())
    }

    async fn branch(&self, location: &str, branch: &str) -> String {
        let path = location.trim_start_matches("file://").as_ref();
        git(path, &["branch", branch, "main"]);
        git(path, &["rev-parse", branch]).trim().to_owned()
    }

    async fn check_out(&self, location: &str, branch: &str, dirty: bool) -> bool {
        if self.bare {
            return false;
        }
        git(location.as_ref(), &["checkout", "--quiet", branch]);
        if dirty {
            write(format!("{location}/a"), "changed\n");
        }
        true
    }

    async fn reads(&self, access: &RepoAccess) -> bool {
        run(self.place.dir.path(), &["ls-remote", "--exit-code", &access.url]).status.success()
    }
}

#[tokio::test]
async fn repositories_on_disk_behave_as_the_port_says() {
    if has_git() {
        repos::run(&LocalHost::new(false)).await;
    }
}

#[tokio::test]
async fn bare_repositories_behave_as_the_port_says() {
    if has_git() {
        repos::run(&LocalHost::new(true)).await;
    }
}
