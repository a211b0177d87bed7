//! Repositories on another machine, which is this one: git's own daemon on loopback.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lime_core::identity::Tenant;
use lime_core::ports::{BranchState, RepoProvider, Workspaces};
use lime_core::repos::RepoKind;
use lime_core::{ErrorKind, Id, Scope};
use lime_git::LocalRepos;
use support::{Origin, Place, git, has_git, write};

/// A git daemon that serves the repositories of a place.
struct Daemon {
    process: Child,
    url: String,
}

impl Daemon {
    fn start(place: &Place) -> Option<Self> {
        if !has_git() {
            return None;
        }
        let program = PathBuf::from(git(place.dir.path(), &["--exec-path"]).trim()).join("git-daemon");
        if !program.exists() {
            lime_conformance::skip("git has no daemon here");
            return None;
        }
        let team = place.dir.path().join("team");
        std::fs::create_dir_all(&team).unwrap();
        let port = free_port();
        let process = Command::new(program)
            .args(["--reuseaddr", "--listen=127.0.0.1", "--export-all", "--enable=receive-pack"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", team.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { process, url: format!("git://127.0.0.1:{port}") };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the daemon does not listen");
    }

    fn url(&self, origin: &Origin) -> String {
        format!("{}/repo-{}", self.url, origin.id)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn work_goes_out_and_home_over_a_url() {
    let place = Place::new();
    let Some(daemon) = Daemon::start(&place) else { return };
    let origin = place.origin(&[("a", "1\n")]);
    git(&origin.path, &["checkout", "--quiet", "-b", "trunk"]);
    let repos = LocalRepos::new();
    let described = repos.describe(&daemon.url(&origin)).await.unwrap();
    assert_eq!((described.default_branch.as_str(), &described.clone_url), ("trunk", &daemon.url(&origin)));
    let repository = described.into_repository(RepoKind::Local);
    let scope = Scope::system(Id::<Tenant>::new(1), "test");
    let access = repos.access(&scope, &repository).await.unwrap();

    let mut spec = place.spec(&origin, "trunk", "work");
    spec.access = access.clone();
    let workspace = place.workspaces.prepare(&spec).await.unwrap();
    write(workspace.path.join("a"), "2\n");
    let commit = place.commit(&workspace).await.unwrap();
    assert_eq!(repos.branch_state(&scope, &repository, "work").await.unwrap(), BranchState::Missing);
    place.workspaces.publish(&workspace, &access, &commit).await.unwrap();
    assert_eq!(
        repos.branch_state(&scope, &repository, "work").await.unwrap(),
        BranchState::At(commit.clone())
    );
    assert_eq!(origin.id_of("work"), commit);

    // On from its own work, but not over somebody else's.
    write(workspace.path.join("a"), "3\n");
    let commit = place.commit(&workspace).await.unwrap();
    place.workspaces.publish(&workspace, &access, &commit).await.unwrap();
    git(&origin.path, &["branch", "--force", "work", "main"]);
    write(workspace.path.join("a"), "4\n");
    let commit = place.commit(&workspace).await.unwrap();
    let error = place.workspaces.publish(&workspace, &access, &commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn what_a_url_leads_to_is_told_apart() {
    let place = Place::new();
    let Some(daemon) = Daemon::start(&place) else { return };
    let empty = place.init();
    let kind = async |url: &str| LocalRepos::new().describe(url).await.unwrap_err().kind();
    assert_eq!(kind(&daemon.url(&empty)).await, ErrorKind::Invalid);
    let port = free_port();
    for scheme in ["git", "http"] {
        assert_eq!(
            kind(&format!("{scheme}://127.0.0.1:{port}/shop")).await,
            ErrorKind::Unavailable,
            "{scheme}"
        );
    }
    // A daemon does not say what is wrong, so as not to tell what is there.
    let nowhere = LocalRepos::new().describe(&format!("{}/nowhere", daemon.url)).await.unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::NotFound, "{nowhere}");
}

#[tokio::test]
async fn a_detached_head_is_no_default_branch() {
    let place = Place::new();
    let Some(daemon) = Daemon::start(&place) else { return };
    let origin = place.origin(&[("a", "1\n")]);
    git(&origin.path, &["branch", "other"]);
    git(&origin.path, &["checkout", "--quiet", "--detach"]);
    let described = LocalRepos::new().describe(&daemon.url(&origin)).await.unwrap();
    assert_eq!(described.default_branch, "main");
}
