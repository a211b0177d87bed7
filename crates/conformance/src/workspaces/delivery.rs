//! Commits, and the branch that they are brought to.

use lime_core::ErrorKind;

use super::{Commit, Fixture, commit, head, prepared};

/// `commit`: commits what has changed since the base, by the given author.
pub async fn commit_is_by_the_author_on_the_base<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n"), ("gone", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.write(&workspace, "gone", None).await;
    fixture.write(&workspace, "new/b", Some("2\n")).await;
    let id = commit(fixture, &workspace, "Fix: it\n\nAnd # say why").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    let log = fixture.log(&origin, "work").await;
    let by = "Lime Ünit <lime@example.com>".to_owned();
    let made = Commit { id, author: by.clone(), committer: by, message: "Fix: it\n\nAnd # say why".into() };
    assert_eq!(log[0], made);
    assert_eq!(log[1].id, workspace.base_commit);
    assert_eq!(fixture.file(&origin, "work", "a").await.as_deref(), Some("2\n"));
    assert_eq!(fixture.file(&origin, "work", "new/b").await.as_deref(), Some("2\n"));
    assert_eq!(fixture.file(&origin, "work", "gone").await, None);
}

/// `commit`: `None` if nothing has changed.
pub async fn commit_is_none_if_nothing_has_changed<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    assert_eq!(commit(fixture, &workspace, "Nothing").await, None);
}

/// `commit`: no hook, signature, filter or configuration of the checkout has a say.
pub async fn commit_lets_nothing_of_the_checkout_have_a_say<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    for (name, value) in [
        ("user.name", "Somebody"),
        ("commit.gpgSign", "true"),
        ("gpg.program", "/nowhere/gpg"),
        ("core.fsmonitor", "/nowhere/fsmonitor"),
        ("filter.shout.clean", "tr a-z A-Z"),
        ("filter.shout.required", "true"),
        ("core.excludesFile", ".gitattributes"),
        ("core.autocrlf", "input"),
    ] {
        fixture.git(&workspace, &["config", name, value]).await;
    }
    fixture.write(&workspace, ".git/hooks/pre-commit", Some("#!/bin/sh\nexit 1\n")).await;
    fixture.write(&workspace, ".git/info/exclude", Some("a\nb\n")).await;
    fixture.write(&workspace, ".gitattributes", Some("b filter=shout\n")).await;
    fixture.write(&workspace, "b", Some("quiet\r\n")).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    assert_eq!(fixture.file(&origin, "work", "b").await.as_deref(), Some("quiet\r\n"));
    assert_eq!(fixture.log(&origin, "work").await[0].author, "Lime Ünit <lime@example.com>");
}

/// `commit`: commits that the agent made itself stay below it.
pub async fn commit_keeps_the_commits_of_the_agent_below_it<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.git(&workspace, &["commit", "--quiet", "-am", "By the agent"]).await;
    fixture.write(&workspace, "b", Some("left over\n")).await;
    let id = commit(fixture, &workspace, "The rest").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    let messages: Vec<_> =
        fixture.log(&origin, "work").await.into_iter().map(|commit| commit.message).collect();
    assert_eq!(messages[..2], ["The rest", "By the agent"]);
    assert_eq!(messages.len(), 3);
    assert_eq!(fixture.file(&origin, "work", "a").await.as_deref(), Some("2\n"));
    assert_eq!(fixture.file(&origin, "work", "b").await.as_deref(), Some("left over\n"));
}

/// `publish`: creates the branch; nothing else in the repository changes.
pub async fn publish_creates_the_branch_and_nothing_else<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let main = fixture.log(&origin, "main").await;
    let workspace = prepared(fixture, &origin, "lime/run-1").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.git(&workspace, &["tag", "of-the-agent"]).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    let before = fixture.state(&origin).await;
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    assert_eq!(head(fixture, &origin, "lime/run-1").await, Some(id.clone()));
    assert_eq!(fixture.log(&origin, "main").await, main);
    let state = fixture.state(&origin).await;
    let new: Vec<_> = state.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    assert!(matches!(*new, [line] if line.contains(&id)), "more than the branch has changed: {new:?}");
}

/// `publish`: moves the branch from where it was when the workspace was made, whatever the base is.
pub async fn publish_moves_the_branch_from_where_it_was<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    fixture.push(&origin, "work", "old", "1\n").await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    assert_eq!(head(fixture, &origin, "work").await, Some(id));
    // It goes on from its own work, too.
    fixture.write(&workspace, "a", Some("3\n")).await;
    let next = commit(fixture, &workspace, "More").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &next).await.unwrap();
    let messages: Vec<_> =
        fixture.log(&origin, "work").await.into_iter().map(|commit| commit.message).collect();
    assert_eq!(messages[..2], ["More", "Work"]);
}

/// `publish`: a branch that has moved meanwhile is a `Conflict`, and stays as it is.
pub async fn publish_leaves_a_branch_that_has_moved_meanwhile<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    fixture.push(&origin, "work", "old", "1\n").await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    let moved = fixture.push(&origin, "work", "old", "2\n").await;
    let error = fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(head(fixture, &origin, "work").await, Some(moved));
}

/// `publish`: a branch that was made meanwhile is a `Conflict`, and stays as it is.
pub async fn publish_leaves_a_branch_that_was_made_meanwhile<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    let made = fixture.push(&origin, "work", "b", "1\n").await;
    let error = fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(head(fixture, &origin, "work").await, Some(made));
}

/// `publish`: doing it again with the same commit changes nothing.
pub async fn publish_of_the_same_commit_again_changes_nothing<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    let state = fixture.state(&origin).await;
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    assert_eq!(fixture.state(&origin).await, state);
}
