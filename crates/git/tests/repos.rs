//! Repositories as people have them on their machines.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::fs;

use lime_core::identity::Tenant;
use lime_core::ports::{BranchState, RepoDescription, RepoProvider};
use lime_core::repos::RepoKind;
use lime_core::{ErrorKind, Id, Scope};
use lime_git::LocalRepos;
use support::{Place, git, has_git, script, write};

async fn described(location: impl AsRef<std::path::Path>) -> RepoDescription {
    LocalRepos::new().describe(location.as_ref().to_str().unwrap()).await.unwrap()
}

async fn kind_of_error(location: impl AsRef<std::path::Path>) -> ErrorKind {
    LocalRepos::new().describe(location.as_ref().to_str().unwrap()).await.unwrap_err().kind()
}

#[tokio::test]
async fn a_path_is_resolved_to_the_top_of_its_repository() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("deep/er/a", "1\n")]);
    let expected = RepoDescription {
        owner: "team".into(),
        name: format!("repo-{}", origin.id),
        full_name: origin.path.to_str().unwrap().into(),
        clone_url: origin.path.to_str().unwrap().into(),
        default_branch: "main".into(),
        external_repo_id: None,
    };
    let link = place.dir.path().join("link");
    std::os::unix::fs::symlink(&origin.path, &link).unwrap();
    let url = format!("file://{}", origin.path.display());
    for location in
        [origin.path.clone(), origin.path.join("deep/er"), origin.path.join("deep/.."), link, url.into()]
    {
        assert_eq!(described(&location).await, expected, "{location:?}");
    }
    let git_dir = origin.path.join(".git/objects");
    assert_eq!(kind_of_error(&git_dir).await, ErrorKind::Invalid);
    assert_eq!(kind_of_error(origin.path.join("deep/er/a")).await, ErrorKind::Invalid);
    assert_eq!(kind_of_error("~/somewhere").await, ErrorKind::NotFound);
}

#[tokio::test]
async fn bare_repositories_submodules_and_worktrees_are_repositories() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let at = |name: &str| fs::canonicalize(place.dir.path()).unwrap().join(name);
    git(&origin.path, &["clone", "--quiet", "--bare", ".", at("shop.git").to_str().unwrap()]);
    let bare = described(at("shop.git")).await;
    assert_eq!((bare.name.as_str(), bare.default_branch.as_str()), ("shop", "main"));
    assert_eq!(bare.full_name, at("shop.git").to_str().unwrap());

    git(&origin.path, &["worktree", "add", "--quiet", "-b", "side", at("linked").to_str().unwrap()]);
    let linked = described(at("linked")).await;
    assert_eq!((linked.name.as_str(), linked.default_branch.as_str()), ("linked", "side"));

    let above = place.origin(&[("a", "1\n")]);
    let url = origin.path.to_str().unwrap();
    git(&above.path, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "sub"]);
    assert_eq!(described(above.path.join("sub")).await.full_name, above.path.join("sub").to_str().unwrap());
}

#[tokio::test]
async fn the_default_branch_is_found_without_a_head_that_says_it() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let detached = async |branches: &[&str], settings: &[&[&str]]| {
        let origin = place.origin(&[("a", "1\n")]);
        for branch in branches {
            git(&origin.path, &["branch", branch]);
        }
        git(&origin.path, &["checkout", "--quiet", "--detach"]);
        if !branches.contains(&"main") {
            git(&origin.path, &["branch", "--quiet", "-D", "main"]);
        }
        for setting in settings {
            git(&origin.path, setting);
        }
        LocalRepos::new().describe(origin.path.to_str().unwrap()).await
    };
    assert_eq!(detached(&["only"], &[]).await.unwrap().default_branch, "only");
    assert_eq!(detached(&["master", "x"], &[]).await.unwrap().default_branch, "master");
    let set: &[&[&str]] = &[&["config", "init.defaultBranch", "y"]];
    assert_eq!(detached(&["x", "y", "master"], set).await.unwrap().default_branch, "y");
    let remote: &[&[&str]] = &[&["symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/x"]];
    assert_eq!(detached(&["x", "y"], remote).await.unwrap().default_branch, "x");
    let error = detached(&["x", "y"], &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");

    // On a branch that has no commit yet, beside one that has.
    let origin = place.origin(&[("a", "1\n")]);
    git(&origin.path, &["checkout", "--quiet", "--orphan", "fresh"]);
    assert_eq!(described(&origin.path).await.default_branch, "main");
}

#[tokio::test]
async fn a_branch_is_checked_out_wherever_a_worktree_has_it() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let commit = origin.id_of("main");
    let repository = described(&origin.path).await.into_repository(RepoKind::Local);
    let state = async |branch: &str| {
        let scope = Scope::system(Id::<Tenant>::new(1), "test");
        LocalRepos::new().branch_state(&scope, &repository, branch).await.unwrap()
    };
    let tree = place.dir.path().join("with\nbreak");
    git(&origin.path, &["worktree", "add", "--quiet", "-b", "side", tree.to_str().unwrap()]);
    let checked_out = |dirty| BranchState::CheckedOut { commit: commit.clone(), dirty };
    assert_eq!(state("main").await, checked_out(false));
    assert_eq!(state("side").await, checked_out(false));
    write(tree.join("new"), "1\n");
    assert_eq!(state("side").await, checked_out(true));
    assert_eq!(state("main").await, checked_out(false));
    fs::remove_dir_all(&tree).unwrap();
    assert_eq!(state("side").await, checked_out(false), "a worktree that is gone still has the branch");
    git(&origin.path, &["worktree", "prune"]);
    assert_eq!(state("side").await, BranchState::At(commit.clone()));

    // Looking changes nothing, and starts nothing.
    let mark = place.dir.path().join("sang");
    let program = place.dir.path().join("canary");
    script(&program, &format!("touch '{}'", mark.display()));
    git(&origin.path, &["config", "core.fsmonitor", program.to_str().unwrap()]);
    let before = support::state_of(&origin.path);
    assert!(!mark.exists() || fs::remove_file(&mark).is_ok());
    state("main").await;
    described(&origin.path).await;
    assert!(!mark.exists());
    assert_eq!(support::state_of(&origin.path), before);
}

#[tokio::test]
async fn a_repository_of_somebody_else_is_not_read() {
    if !has_git() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        lime_conformance::skip("only root may give files away");
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    for path in [origin.path.clone(), origin.path.join(".git")] {
        std::os::unix::fs::chown(path, Some(12_345), None).unwrap();
    }
    let error = LocalRepos::new().describe(origin.path.to_str().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.message().contains("owner"), "{error}");
}
