//! What a repository may say to a push.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use lime_core::ErrorKind;
use lime_core::ports::Workspaces;
use support::{Place, git, has_git, script, write};

#[tokio::test]
async fn a_branch_that_is_checked_out_is_left_alone() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let tree = place.dir.path().join("linked");
    git(&origin.path, &["worktree", "add", "--quiet", "-b", "side", tree.to_str().unwrap()]);
    for branch in ["main", "side"] {
        let workspace = place.prepare(&origin, branch).await;
        write(workspace.path.join("a"), "2\n");
        let commit = place.commit(&workspace).await.unwrap();
        let error = place.workspaces.publish(&workspace, &origin.access(), &commit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.message().contains("choose another branch"), "{error}");
        assert_eq!(origin.id_of(branch), workspace.base_commit);
        assert_eq!(git(&origin.path, &["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn only_the_branch_that_was_seen_is_moved() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    git(&origin.path, &["branch", "removed"]);
    let made = place.prepare(&origin, "made").await;
    let removed = place.prepare(&origin, "removed").await;
    git(&origin.path, &["branch", "made", "main"]);
    git(&origin.path, &["branch", "-D", "removed"]);
    for workspace in [made, removed] {
        write(workspace.path.join("a"), "2\n");
        let commit = place.commit(&workspace).await.unwrap();
        let error = place.workspaces.publish(&workspace, &origin.access(), &commit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    }
    assert_eq!(origin.id_of("made"), origin.id_of("main"));
    assert!(!git(&origin.path, &["branch", "--list"]).contains("removed"));
}

#[tokio::test]
async fn a_branch_that_cannot_be_beside_another_is_a_conflict() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    git(&origin.path, &["branch", "feature"]);
    let error = place.workspaces.prepare(&place.spec(&origin, "main", "feature/x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let workspace = place.prepare(&origin, "topic/x").await;
    git(&origin.path, &["branch", "topic"]);
    write(workspace.path.join("a"), "2\n");
    let commit = place.commit(&workspace).await.unwrap();
    let error = place.workspaces.publish(&workspace, &origin.access(), &commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}

#[tokio::test]
async fn the_repositorys_own_hook_decides_on_pushes() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    write(workspace.path.join("a"), "2\n");
    let commit = place.commit(&workspace).await.unwrap();
    script(origin.path.join(".git/hooks/pre-receive"), "echo 'no pushes on Fridays' >&2; exit 1");
    let error = place.workspaces.publish(&workspace, &origin.access(), &commit).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("no pushes on Fridays"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_pushed_is_an_error_that_says_why() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    let publish = async |commit: &str| {
        place.workspaces.publish(&workspace, &origin.access(), &commit.to_owned()).await.unwrap_err()
    };
    git(&origin.path, &["branch", "work"]);
    for text in ["", "main", "HEAD", "--all", ":main", &"0".repeat(40)] {
        assert_eq!(publish(text).await.kind(), ErrorKind::Invalid, "{text:?}");
    }
    publish(&"a".repeat(40)).await;
    assert_eq!(origin.id_of("work"), workspace.base_commit);
    std::fs::remove_dir_all(&origin.path).unwrap();
    let error = publish(&workspace.base_commit).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}
