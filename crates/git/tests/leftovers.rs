//! What crashes and failures leave, and what becomes of it.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lime_core::ErrorKind;
use lime_core::ports::{WorkspaceSpec, Workspaces};
use support::{Place, has_git, write};

#[tokio::test]
async fn a_call_that_was_dropped_leaves_nothing_behind() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    place.prepare(&origin, "warm").await;
    let kept = place.kept();
    for millis in [1, 5, 10, 20, 40] {
        let spec = place.spec(&origin, "main", "work");
        let dropped =
            tokio::time::timeout(Duration::from_millis(millis), place.workspaces.prepare(&spec)).await;
        if let Ok(workspace) = dropped {
            place.workspaces.remove(&workspace.unwrap()).await.unwrap();
        }
        assert_eq!(place.kept(), kept, "after {millis} ms");
    }
    // And the mirror is whole.
    let workspace = place.prepare(&origin, "work").await;
    write(workspace.path.join("a"), "2\n");
    place.deliver(&origin, &workspace).await;
}

#[tokio::test]
async fn what_a_crash_left_is_cleaned_up() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let spec = place.spec(&origin, "main", "work");
    let killed = place.workspaces.prepare(&spec).await.unwrap();
    write(killed.path.join("half"), "done\n");
    write(killed.git_dir.join("index.lock"), "");
    // Two that git itself leaves in a mirror when it is killed during a fetch.
    let mirror = place.state().join(format!("mirrors/7-{}.git", origin.id));
    write(mirror.join("packed-refs.lock"), "");
    write(mirror.join("refs/heads/main.lock"), "");
    let moved = origin.commit(&[("a", "2\n")], "Second");

    let again = place.workspaces.prepare(&spec).await.unwrap();
    assert_eq!((&again.path, &again.base_commit), (&killed.path, &moved));
    assert!(!again.path.join("half").exists());
    write(again.git_dir.join("index.lock"), "");
    write(again.path.join("a"), "3\n");
    assert_eq!(place.changes(&again).await.paths, ["a"]);
    place.deliver(&origin, &again).await;
}

#[tokio::test]
async fn a_mirror_that_was_never_finished_is_made_again() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    write(place.state().join(format!("mirrors/7-{}.new/objects/junk", origin.id)), "half");
    place.prepare(&origin, "work").await;
    // One that cannot be fetched at all leaves nothing.
    let spec = place.spec(&origin, "main", "work");
    let mut spec = WorkspaceSpec { repository: lime_core::Id::new(999), ..spec };
    spec.access.url = place.dir.path().join("nothing").to_str().unwrap().to_owned();
    let error = place.workspaces.prepare(&spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let left: Vec<_> =
        fs::read_dir(place.state().join("mirrors")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!left.iter().any(|path| path.is_dir() && path.to_str().unwrap().contains("999")), "{left:?}");
}

#[tokio::test]
async fn folders_that_cannot_be_written_are_removed_too() {
    if !has_git() {
        return;
    }
    if rustix::process::geteuid().is_root() {
        lime_conformance::skip("root may write anywhere");
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    write(workspace.path.join("cache/mod/a"), "1\n");
    for folder in ["cache/mod", "cache"] {
        fs::set_permissions(workspace.path.join(folder), fs::Permissions::from_mode(0o500)).unwrap();
    }
    place.workspaces.remove(&workspace).await.unwrap();
    assert_eq!(place.kept(), Vec::<String>::new());
}
