//! Taking over the checkout of an earlier attempt, or the place where one was.

use std::path::PathBuf;

use lime_core::Id;
use lime_core::ports::WorkspaceSpec;

use super::{Fixture, commit, head, prepared, spec};

/// `adopt`: takes over the checkout with the work that is in it, which goes on from there.
pub async fn adopt_takes_over_the_checkout_with_its_work<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n"), ("b", "1\n")]).await;
    let first = spec(&origin, "main", "work");
    let earlier = fixture.workspaces().prepare(&first).await.unwrap();
    fixture.write(&earlier, "a", Some("2\n")).await;
    fixture.git(&earlier, &["commit", "--quiet", "-am", "By the agent"]).await;
    fixture.write(&earlier, "new", Some("1\n")).await;
    let before = fixture.workspaces().changes(&earlier).await.unwrap();

    let later = WorkspaceSpec { run: first.run, ..spec(&origin, "main", "work") };
    let adopted = fixture.workspaces().adopt(&later, &earlier).await.unwrap().unwrap();
    assert_eq!(adopted.path, earlier.path, "an agent's session is taken up only in the same folder");
    assert_eq!(adopted.base_commit, earlier.base_commit);
    assert_eq!(fixture.workspaces().changes(&adopted).await.unwrap(), before);
    assert_eq!(before.paths, ["a", "new"]);
    fixture.write(&adopted, "b", Some("2\n")).await;
    let id = commit(fixture, &adopted, "The rest").await.unwrap();
    fixture.workspaces().publish(&adopted, &origin.access, &id).await.unwrap();
    let log = fixture.log(&origin, "work").await;
    let messages: Vec<_> = log.iter().map(|commit| commit.message.as_str()).collect();
    assert_eq!(messages[..2], ["The rest", "By the agent"]);
    for (path, content) in [("a", "2\n"), ("b", "2\n"), ("new", "1\n")] {
        assert_eq!(fixture.file(&origin, "work", path).await.as_deref(), Some(content), "{path}");
    }
    let third = WorkspaceSpec { run: first.run, ..spec(&origin, "main", "work") };
    let again = fixture.workspaces().adopt(&third, &adopted).await.unwrap();
    assert_eq!(again.map(|workspace| workspace.path), Some(adopted.path), "it can be taken over again");
}

/// `adopt`: writes nothing to the repository, and does not move with it.
pub async fn adopt_leaves_the_repository_alone<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let first = spec(&origin, "main", "work");
    let earlier = fixture.workspaces().prepare(&first).await.unwrap();
    fixture.write(&earlier, "b", Some("1\n")).await;
    let moved = fixture.push(&origin, "main", "a", "2\n").await;
    let before = fixture.state(&origin).await;
    let later = WorkspaceSpec { run: first.run, ..spec(&origin, "main", "work") };
    let adopted = fixture.workspaces().adopt(&later, &earlier).await.unwrap().unwrap();
    assert_eq!(fixture.state(&origin).await, before);
    assert_ne!(adopted.base_commit, moved);
    assert_eq!(fixture.read(&adopted, "a").await.as_deref(), Some("1\n"));
    assert_eq!(fixture.workspaces().changes(&adopted).await.unwrap().paths, ["b"]);
}

/// `adopt`: `None` if the checkout is not there, not whole, or another run's; what is another's stays as it is.
pub async fn adopt_is_none_for_what_cannot_be_taken_over<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let theirs = spec(&origin, "main", "work");
    let workspace = fixture.workspaces().prepare(&theirs).await.unwrap();
    fixture.write(&workspace, "a", Some("2\n")).await;
    let other_run = spec(&origin, "main", "work");
    let other_tenant = WorkspaceSpec { tenant: Id::new(2), ..theirs.clone() };
    for (whose, other) in [("another run", other_run), ("another tenant", other_tenant)] {
        let adopted = fixture.workspaces().adopt(&other, &workspace).await.unwrap();
        assert_eq!(adopted, None, "{whose} took over the checkout");
    }
    assert_eq!(fixture.read(&workspace, "a").await.as_deref(), Some("2\n"));
    let later = WorkspaceSpec { run: theirs.run, ..spec(&origin, "main", "work") };
    fixture.damage(&workspace).await;
    assert_eq!(fixture.workspaces().adopt(&later, &workspace).await.unwrap(), None, "it is not whole");
    fixture.workspaces().remove(&workspace).await.unwrap();
    assert_eq!(fixture.workspaces().adopt(&later, &workspace).await.unwrap(), None, "it is gone");
}

/// `WorkspaceSpec::place`: a fresh checkout is made where an earlier one was, if the place is free.
pub async fn prepare_uses_the_place_of_an_earlier_checkout<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let earlier = prepared(fixture, &origin, "work").await;
    fixture.write(&earlier, "a", Some("2\n")).await;
    fixture.write(&earlier, "left", Some("over\n")).await;
    let id = commit(fixture, &earlier, "Work").await.unwrap();
    fixture.workspaces().publish(&earlier, &origin.access, &id).await.unwrap();
    fixture.workspaces().remove(&earlier).await.unwrap();

    let place = Some(earlier.path.clone());
    let later = WorkspaceSpec { place, ..spec(&origin, "main", "next") };
    let workspace = fixture.workspaces().prepare(&later).await.unwrap();
    assert_eq!(workspace.path, earlier.path);
    assert_eq!(Some(&workspace.base_commit), head(fixture, &origin, "main").await.as_ref());
    assert_eq!(fixture.read(&workspace, "a").await.as_deref(), Some("1\n"));
    assert_eq!(fixture.read(&workspace, "left").await, None, "it is not a fresh one");
    assert_eq!(fixture.git(&workspace, &["branch", "--show-current"]).await.trim(), "next");
    assert_eq!(fixture.workspaces().changes(&workspace).await.unwrap().paths, Vec::<String>::new());
}

/// `WorkspaceSpec::place`: a place that is not free, or not one of the adapter's own for the tenant, is not used.
pub async fn prepare_uses_no_place_of_somebody_else<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let taken = prepared(fixture, &origin, "work").await;
    fixture.write(&taken, "a", Some("2\n")).await;
    let foreign = WorkspaceSpec { tenant: Id::new(2), ..spec(&origin, "main", "work") };
    let foreign = fixture.workspaces().prepare(&foreign).await.unwrap();
    fixture.workspaces().remove(&foreign).await.unwrap();
    let beside = taken.path.parent().unwrap().join("somewhere-else");
    let places = [
        taken.path.clone(),
        taken.git_dir.clone(),
        taken.path.join("within"),
        taken.path.join("..").join(taken.path.file_name().unwrap()),
        foreign.path,
        beside.clone(),
        PathBuf::from("/"),
        PathBuf::from("relative"),
        PathBuf::new(),
    ];
    for place in places {
        let spec = WorkspaceSpec { place: Some(place.clone()), ..spec(&origin, "main", "next") };
        let workspace = fixture.workspaces().prepare(&spec).await.unwrap();
        assert_ne!(workspace.path, place, "a place of somebody else was used");
        assert_eq!(fixture.read(&workspace, "a").await.as_deref(), Some("1\n"));
        assert_eq!(fixture.read(&taken, "a").await.as_deref(), Some("2\n"), "{}", place.display());
    }
    assert_eq!(fixture.workspaces().changes(&taken).await.unwrap().paths, ["a"]);
}
