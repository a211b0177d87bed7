//! Making a checkout, looking at what has changed in it, removing it.

use lime_core::ErrorKind;
use lime_core::ports::{CommittedFiles, FilesWanted, WhyLeftOut, WorkspaceSpec};

use super::{Fixture, commit, head, prepared, spec};

/// `prepare`: makes a checkout on a fresh branch.
pub async fn prepare_checks_out_the_base_on_a_fresh_branch<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("README.md", "hello\n"), ("src/deep/a.txt", "a\n")]).await;
    let workspace = prepared(fixture, &origin, "lime/run-1").await;
    assert_eq!(fixture.read(&workspace, "README.md").await.as_deref(), Some("hello\n"));
    assert_eq!(fixture.read(&workspace, "src/deep/a.txt").await.as_deref(), Some("a\n"));
    assert_eq!(Some(&workspace.base_commit), head(fixture, &origin, "main").await.as_ref());
    assert_eq!((workspace.base.as_str(), workspace.branch.as_str()), ("main", "lime/run-1"));
    assert_eq!(workspace.branch_was, None);
    assert!(!workspace.git_dir.starts_with(&workspace.path), "the git directory is in the checkout");
}

/// `WorkspaceSpec::base`: the branch, tag or commit to start from.
pub async fn prepare_starts_from_a_branch_a_tag_or_a_commit<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let first = head(fixture, &origin, "main").await.unwrap();
    fixture.tag(&origin, "v1", &first).await;
    let second = fixture.push(&origin, "feature/x", "a", "2\n").await;
    for (base, commit, content) in [
        ("feature/x", &second, "2\n"),
        ("v1", &first, "1\n"),
        (&*first, &first, "1\n"),
        (&second[..12], &second, "2\n"),
    ] {
        let workspace = fixture.workspaces().prepare(&spec(&origin, base, "work")).await.unwrap();
        assert_eq!(&workspace.base_commit, commit, "{base}");
        assert_eq!(workspace.base, base);
        assert_eq!(fixture.read(&workspace, "a").await.as_deref(), Some(content), "{base}");
    }
}

/// `prepare`: the base is where it is in the repository now, not where it was the last time.
pub async fn prepare_sees_the_repository_as_it_is_now<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    prepared(fixture, &origin, "one").await;
    let pushed = fixture.push(&origin, "main", "a", "2\n").await;
    let workspace = prepared(fixture, &origin, "two").await;
    assert_eq!(workspace.base_commit, pushed);
    assert_eq!(fixture.read(&workspace, "a").await.as_deref(), Some("2\n"));
}

/// `Workspace::branch_was`: where the branch was in the repository.
pub async fn prepare_says_where_the_branch_was<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let there = fixture.push(&origin, "work", "b", "1\n").await;
    let workspace = prepared(fixture, &origin, "work").await;
    assert_eq!(workspace.branch_was, Some(there));
    assert_eq!(fixture.read(&workspace, "b").await, None, "the checkout is not of the base");
}

/// `committed_files`: as they were committed, whatever an agent has written since.
pub async fn committed_files_are_those_of_the_commit<F: Fixture>(fixture: &F) {
    let files = [
        ("AGENTS.md", "é\r\n"),
        ("sub/AGENTS.md", "no"),
        ("rules/b.md", "b"),
        ("rules/a.md", "a"),
        ("rules/c.txt", "no"),
        ("rules/x/d.md", "no"),
    ];
    let origin = fixture.origin(&files).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "AGENTS.md", Some("written by an agent")).await;
    fixture.write(&workspace, "CLAUDE.md", Some("written by an agent")).await;
    fixture.write(&workspace, "rules/a.md", None).await;
    fixture.git(&workspace, &["add", "-A"]).await;
    fixture.git(&workspace, &["commit", "-q", "-m", "The agent's own"]).await;
    let found = fixture.workspaces().committed_files(&workspace, &wanted()).await.unwrap();
    let found: Vec<_> = found.files.iter().map(|file| (file.path.as_str(), file.content.as_str())).collect();
    assert_eq!(found, [("AGENTS.md", "é\r\n"), ("rules/a.md", "a"), ("rules/b.md", "b")]);
}

/// `committed_files`: only plain files in UTF-8 without NUL, and no more than is wanted.
pub async fn committed_files_leave_out_what_cannot_be_told<F: Fixture>(fixture: &F) {
    let long = "x".repeat(101);
    let most = "x".repeat(100);
    let files = [
        ("AGENTS.md", &*long),
        ("CLAUDE.md/is/a", "folder"),
        ("rules/a.md", "a\0b"),
        ("rules/b.md", &*most),
        ("rules/c.md", &*most),
        ("rules/d.md", "d"),
        ("rules/e.md", "e"),
    ];
    let origin = fixture.origin(&files).await;
    let workspace = prepared(fixture, &origin, "work").await;
    let found = fixture.workspaces().committed_files(&workspace, &wanted()).await.unwrap();
    let told: Vec<_> = found.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(told, ["rules/b.md", "rules/d.md"]);
    let mut left_out: Vec<_> = found.left_out.iter().map(|left| (left.path.as_str(), left.why)).collect();
    left_out.sort_unstable();
    assert_eq!(
        left_out,
        [
            ("AGENTS.md", WhyLeftOut::TooLong),
            ("CLAUDE.md", WhyLeftOut::NoFile),
            ("rules/a.md", WhyLeftOut::NoText),
            ("rules/c.md", WhyLeftOut::TooMany),
            ("rules/e.md", WhyLeftOut::TooMany),
        ]
    );
}

/// `committed_files`: a path where nothing is gives nothing.
pub async fn committed_files_may_be_none<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("rules", "a file")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    let found = fixture.workspaces().committed_files(&workspace, &wanted()).await.unwrap();
    assert_eq!(found, CommittedFiles::default());
}

fn wanted() -> FilesWanted {
    FilesWanted {
        paths: ["AGENTS.md", "CLAUDE.md", "rules/*.md"].map(Into::into).to_vec(),
        max_files: 3,
        max_file_bytes: 100,
        max_bytes: 110,
    }
}

/// `WorkspaceSpec::attempt`: two attempts of a run never share a checkout.
pub async fn attempts_do_not_share_a_checkout<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let one = spec(&origin, "main", "work");
    let two = WorkspaceSpec { run: one.run, ..spec(&origin, "main", "work") };
    let one = fixture.workspaces().prepare(&one).await.unwrap();
    let two = fixture.workspaces().prepare(&two).await.unwrap();
    assert_ne!(one.path, two.path);
    fixture.write(&one, "a", Some("one\n")).await;
    assert_eq!(fixture.read(&two, "a").await.as_deref(), Some("1\n"));
    assert_eq!(fixture.workspaces().changes(&two).await.unwrap().paths, Vec::<String>::new());
}

/// `prepare`: the repository's own working tree is not touched, and nothing is written to it.
pub async fn nothing_is_written_to_the_repository_before_publish<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let before = fixture.state(&origin).await;
    let workspace = prepared(fixture, &origin, "work").await;
    assert_eq!(fixture.state(&origin).await, before, "prepare wrote to the repository");
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.workspaces().changes(&workspace).await.unwrap();
    commit(fixture, &workspace, "Work").await.unwrap();
    fixture.workspaces().remove(&workspace).await.unwrap();
    assert_eq!(fixture.state(&origin).await, before, "something before publish wrote to the repository");
}

/// `prepare`: fails with `NotFound` for a base and `Invalid` for a branch name; then nothing is left behind.
pub async fn a_failed_prepare_leaves_nothing_behind<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let before = fixture.kept().await;
    let absent = "0123456789012345678901234567890123456789";
    for base in ["nowhere", absent, "main~1", "-u./x", "", "main:a"] {
        let error = fixture.workspaces().prepare(&spec(&origin, base, "work")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{base:?}: {error}");
    }
    for branch in ["", "-x", "a..b", "a b", "a.lock", "/a", "a/", "@", "HEAD", "a\nb", "a~1", "x@{1}"] {
        let error = fixture.workspaces().prepare(&spec(&origin, "main", branch)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{branch:?}: {error}");
    }
    assert_eq!(fixture.kept().await, before);
}

/// A checkout is a git repository to its agent: clean at first, and it can compare with the base by its name.
pub async fn an_agent_can_use_git_in_its_checkout<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    assert_eq!(fixture.git(&workspace, &["status", "--porcelain"]).await, "");
    assert_eq!(fixture.git(&workspace, &["branch", "--show-current"]).await.trim(), "work");
    fixture.write(&workspace, "a", Some("2\n")).await;
    assert_eq!(fixture.git(&workspace, &["diff", "--name-only", "main"]).await.trim(), "a");
    fixture.git(&workspace, &["commit", "--quiet", "-am", "By the agent"]).await;
    assert_eq!(fixture.git(&workspace, &["rev-list", "--count", "main..HEAD"]).await.trim(), "1");
}

/// `changes`: what has changed since the base, files that git does not know yet included.
pub async fn changes_are_those_since_the_base_with_new_files<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("b", "1\n2\n"), ("gone", "1\n"), ("same", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "b", Some("1\nzwei\n")).await;
    fixture.write(&workspace, "gone", None).await;
    fixture.write(&workspace, "new/c", Some("new\n")).await;
    fixture.write(&workspace, "a", Some("by the agent\n")).await;
    fixture.git(&workspace, &["add", "a"]).await;
    fixture.git(&workspace, &["commit", "--quiet", "-m", "By the agent"]).await;
    let changes = fixture.workspaces().changes(&workspace).await.unwrap();
    assert_eq!(changes.paths, ["a", "b", "gone", "new/c"]);
    assert_eq!(
        (changes.stats.files_changed, changes.stats.insertions, changes.stats.deletions),
        (4, 3, 2),
        "{}",
        changes.unified_diff
    );
    for line in [
        "diff --git a/b b/b",
        "-2",
        "+zwei",
        "+++ b/new/c",
        "+new",
        "deleted file mode 100644",
        "+by the agent",
    ] {
        assert!(changes.unified_diff.lines().any(|found| found == line), "{line}: {}", changes.unified_diff);
    }
}

/// `changes`: ignored files are left out.
pub async fn changes_leave_ignored_files_out<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[(".gitignore", "target/\n*.log\n"), ("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "target/out", Some("x")).await;
    fixture.write(&workspace, "deep/run.log", Some("x")).await;
    assert_eq!(fixture.workspaces().changes(&workspace).await.unwrap().paths, Vec::<String>::new());
    assert_eq!(commit(fixture, &workspace, "Nothing").await, None);
}

/// `Changes::unified_diff`: empty if nothing has changed.
pub async fn changes_are_empty_if_nothing_has_changed<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.write(&workspace, "a", Some("1\n")).await;
    let changes = fixture.workspaces().changes(&workspace).await.unwrap();
    assert_eq!(
        (changes.unified_diff.as_str(), changes.stats, changes.paths),
        ("", Default::default(), vec![])
    );
}

/// `changes`: nothing is committed by it, and it says the same again.
pub async fn changes_commit_nothing<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "a", Some("2\n")).await;
    fixture.write(&workspace, "b", Some("2\n")).await;
    let changes = fixture.workspaces().changes(&workspace).await.unwrap();
    assert_eq!(fixture.workspaces().changes(&workspace).await.unwrap(), changes);
    assert_eq!(fixture.git(&workspace, &["rev-parse", "HEAD"]).await.trim(), workspace.base_commit);
    assert_eq!(fixture.git(&workspace, &["status", "--porcelain"]).await, " M a\n?? b\n");
    // And the agent can go on: what it undoes now is not in the commit.
    fixture.write(&workspace, "b", None).await;
    let id = commit(fixture, &workspace, "Work").await.unwrap();
    fixture.workspaces().publish(&workspace, &origin.access, &id).await.unwrap();
    assert_eq!(fixture.file(&origin, "work", "b").await, None);
}

/// `remove`: removes the checkout from the disk, and all that belongs to it.
pub async fn remove_takes_the_checkout_from_the_disk<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let other = prepared(fixture, &origin, "other").await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.write(&workspace, "deep/new", Some("1\n")).await;
    fixture.workspaces().remove(&workspace).await.unwrap();
    assert_eq!(fixture.read(&workspace, "a").await, None);
    let name = workspace.path.file_name().unwrap().to_str().unwrap();
    assert!(!fixture.kept().await.iter().any(|kept| kept.contains(name)), "{:?}", fixture.kept().await);
    assert_eq!(fixture.read(&other, "a").await.as_deref(), Some("1\n"));
    let error = fixture.workspaces().changes(&workspace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// `remove`: one that is gone already is no error.
pub async fn remove_of_what_is_gone_is_no_error<F: Fixture>(fixture: &F) {
    let origin = fixture.origin(&[("a", "1\n")]).await;
    let workspace = prepared(fixture, &origin, "work").await;
    fixture.workspaces().remove(&workspace).await.unwrap();
    fixture.workspaces().remove(&workspace).await.unwrap();
}
