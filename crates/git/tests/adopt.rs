//! A checkout that a later attempt takes over, and a place that a later run takes.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::fs;

use lime_core::Id;
use lime_core::ports::{Workspace, WorkspaceSpec, Workspaces};
use support::{Origin, Place, git, has_git, write};

/// The spec of a later attempt at the same run.
fn later(place: &Place, origin: &Origin, first: &WorkspaceSpec) -> WorkspaceSpec {
    WorkspaceSpec { run: first.run, ..place.spec(origin, "main", &first.branch) }
}

#[tokio::test]
async fn a_later_attempt_goes_on_in_the_checkout_with_all_that_is_in_it() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let spec = place.spec(&origin, "main", "work");
    let workspace = place.workspaces.prepare(&spec).await.unwrap();
    write(workspace.path.join("committed"), "1\n");
    git(&workspace.path, &["add", "-A"]);
    git(&workspace.path, &["commit", "--quiet", "-m", "By the agent"]);
    write(workspace.path.join("open"), "1\n");
    let first = place.commit(&workspace).await.unwrap();

    let kept = Workspace::clone(&workspace);
    let adopted = place.workspaces.adopt(&later(&place, &origin, &spec), &kept).await.unwrap().unwrap();
    assert_eq!(adopted, workspace);
    assert_eq!(place.changes(&adopted).await.paths, ["committed", "open"]);
    assert_eq!(place.commit(&adopted).await.unwrap(), first, "the same work is another commit");
    write(adopted.path.join("more"), "1\n");
    let commit = place.deliver(&origin, &adopted).await;
    let tree = git(&origin.path, &["ls-tree", "-r", "--name-only", &commit]);
    assert_eq!(tree, "a\ncommitted\nmore\nopen\n");
    place.workspaces.remove(&adopted).await.unwrap();
    assert_eq!(place.kept(), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_there_not_whole_or_not_the_runs_is_not_taken_over() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let spec = place.spec(&origin, "main", "work");
    let workspace = place.workspaces.prepare(&spec).await.unwrap();
    let adopt = async |spec: &WorkspaceSpec, earlier: &Workspace| {
        place.workspaces.adopt(spec, earlier).await.unwrap()
    };
    assert_eq!(adopt(&spec, &workspace).await.as_ref(), Some(&workspace));

    let others = WorkspaceSpec { run: Id::new(999), ..spec.clone() };
    assert_eq!(adopt(&others, &workspace).await, None, "another run's");
    let foreign = WorkspaceSpec { tenant: Id::new(8), ..spec.clone() };
    assert_eq!(adopt(&foreign, &workspace).await, None, "another tenant's");
    let elsewhere = WorkspaceSpec { branch: "other".into(), ..spec.clone() };
    assert_eq!(adopt(&elsewhere, &workspace).await, None, "for another branch");
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    assert_eq!(adopt(&spec, &Workspace { path: outside, ..workspace.clone() }).await, None, "not made here");
    let option = Workspace { base_commit: "--all".into(), ..workspace.clone() };
    assert_eq!(adopt(&spec, &option).await, None, "an option in the place of a commit");
    let missing = Workspace { base_commit: "d".repeat(40), ..workspace.clone() };
    assert_eq!(adopt(&spec, &missing).await, None, "without its base");

    fs::rename(workspace.git_dir.join("index"), workspace.git_dir.join("index.away")).unwrap();
    assert_eq!(adopt(&spec, &workspace).await, None, "without an index");
    fs::rename(workspace.git_dir.join("index.away"), workspace.git_dir.join("index")).unwrap();
    fs::remove_dir_all(&workspace.path).unwrap();
    assert_eq!(adopt(&spec, &workspace).await, None, "without its files");
    place.workspaces.remove(&workspace).await.unwrap();
    assert_eq!(adopt(&spec, &workspace).await, None, "gone");
}

#[tokio::test]
async fn a_checkout_is_made_where_an_earlier_one_was() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let earlier = place.prepare(&origin, "work").await;
    write(earlier.path.join("a"), "2\n");
    place.deliver(&origin, &earlier).await;
    place.workspaces.remove(&earlier).await.unwrap();

    let there = |spec: WorkspaceSpec| WorkspaceSpec { place: Some(earlier.path.clone()), ..spec };
    let spec = there(place.spec(&origin, "work", "work"));
    let another = there(place.spec(&origin, "work", "else"));
    let (one, other) = tokio::join!(place.workspaces.prepare(&spec), place.workspaces.prepare(&another));
    let (one, other) = (one.unwrap(), other.unwrap());
    let (here, away) = if one.path == earlier.path { (one, other) } else { (other, one) };
    assert_eq!(here.path, earlier.path);
    assert_ne!(away.path, earlier.path, "two runs share a checkout");
    assert_eq!(fs::read_to_string(here.path.join("a")).unwrap(), "2\n");
    write(here.path.join("a"), "3\n");
    place.deliver(&origin, &here).await;
}

#[tokio::test]
async fn a_place_that_is_not_the_tenants_own_or_not_free_is_not_used() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let taken = place.prepare(&origin, "taken").await;
    write(taken.path.join("precious"), "1\n");
    let checkouts = place.state().join("checkouts");
    let outside = place.dir.path().join("7-5");
    let places = [
        taken.path.clone(),
        outside.clone(),
        checkouts.join("8-5"),
        checkouts.join("7-"),
        checkouts.join("7-5x"),
        checkouts.join(".."),
        checkouts.clone(),
        checkouts.join("7-5/../7-5"),
        "7-5".into(),
    ];
    for asked in places {
        let spec = place.spec(&origin, "main", "work");
        let own = checkouts.join(format!("7-{}", spec.attempt));
        let spec = WorkspaceSpec { place: Some(asked.clone()), ..spec };
        assert_eq!(place.workspaces.prepare(&spec).await.unwrap().path, own, "{}", asked.display());
    }
    assert!(!outside.exists());
    assert_eq!(fs::read_to_string(taken.path.join("precious")).unwrap(), "1\n");

    // What a crash left in a place is not free, and one that could not be filled is free again.
    let left = checkouts.join("7-5000");
    fs::create_dir(&left).unwrap();
    let spec = WorkspaceSpec { place: Some(left.clone()), ..place.spec(&origin, "main", "work") };
    assert_ne!(place.workspaces.prepare(&spec).await.unwrap().path, left);
    fs::remove_dir(&left).unwrap();
    let bad = WorkspaceSpec { base: "no-such-base".into(), ..spec.clone() };
    assert!(place.workspaces.prepare(&bad).await.is_err());
    assert_eq!(place.workspaces.prepare(&spec).await.unwrap().path, left);
}
