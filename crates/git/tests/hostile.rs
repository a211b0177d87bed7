//! What an agent can leave in its checkout, and what the host makes of it: data, never a program to run.
#![allow(clippy::unwrap_used, reason = "a test fails where the scene cannot be set")]

mod support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lime_core::ErrorKind;
use lime_core::ports::{FilesWanted, WhyLeftOut, Workspaces};
use support::{Place, diff_in, git, has_git, run, script, write};

type Swap = fn(&Path, &Path);
type Trap<'a> = &'a dyn Fn(&Path);

/// A program that leaves a file when it is run, and passes its input on.
struct Canary {
    program: PathBuf,
    mark: PathBuf,
}

impl Canary {
    fn in_place(place: &Place) -> Self {
        let (program, mark) = (place.dir.path().join("canary"), place.dir.path().join("sang"));
        script(&program, &format!("touch '{}'; cat", mark.display()));
        Self { program, mark }
    }

    fn sang(&self) -> bool {
        let sang = self.mark.exists();
        let _ = fs::remove_file(&self.mark);
        sang
    }

    /// Names the program in every setting and hook by which git would run it.
    fn arm(&self, folder: &Path) {
        let program = self.program.to_str().unwrap();
        for setting in [
            "core.fsmonitor",
            "core.pager",
            "core.editor",
            "core.sshCommand",
            "core.askPass",
            "core.gitProxy",
            "core.alternateRefsCommand",
            "credential.helper",
            "diff.external",
            "diff.x.command",
            "diff.x.textconv",
            "filter.x.clean",
            "filter.x.smudge",
            "filter.x.process",
            "gpg.program",
            "gpg.ssh.program",
            "merge.x.driver",
            "uploadpack.packObjectsHook",
            "interactive.diffFilter",
            "sequence.editor",
            "trailer.x.command",
        ] {
            git(folder, &["config", setting, program]);
        }
        for (setting, value) in [
            ("commit.gpgSign", "true"),
            ("filter.x.required", "true"),
            ("alias.write-tree", &format!("!{program}")),
            ("submodule.recurse", "true"),
            ("diff.ignoreSubmodules", "none"),
        ] {
            git(folder, &["config", setting, value]);
        }
        for hook in [
            "applypatch-msg",
            "commit-msg",
            "fsmonitor-watchman",
            "post-checkout",
            "post-commit",
            "post-index-change",
            "post-update",
            "pre-commit",
            "pre-push",
            "pre-receive",
            "prepare-commit-msg",
            "reference-transaction",
            "update",
        ] {
            script(folder.join(".git/hooks").join(hook), &format!("exec '{program}'"));
        }
        write(folder.join(".git/info/attributes"), "* filter=x diff=x merge=x\n");
    }
}

#[tokio::test]
async fn nothing_that_an_agent_sets_up_is_run() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let canary = Canary::in_place(&place);
    let origin = place.origin(&[("a", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    write(workspace.path.join("a"), "2\n");
    git(&workspace.path, &["commit", "--quiet", "-am", "By the agent"]);
    canary.arm(&workspace.path);
    write(workspace.path.join(".gitattributes"), "* filter=x diff=x merge=x\n");
    write(workspace.path.join("a"), "3\n");
    write(workspace.path.join("b"), "3\n");
    run(&workspace.path, &["status"]);
    assert!(canary.sang(), "the trap is not armed");

    let changes = place.changes(&workspace).await;
    let commit = place.deliver(&origin, &workspace).await;
    assert!(!canary.sang());
    assert_eq!(changes.unified_diff, diff_in(&origin, &workspace.base_commit, &commit));
    assert_eq!(origin.show(&commit, "b"), b"3\n");
    assert_eq!(git(&origin.path, &["log", "--format=%s", &commit]), "Work\nBy the agent\nFirst\n");
    place.prepare(&origin, "next").await;
    place.workspaces.remove(&workspace).await.unwrap();
    assert!(!canary.sang());
}

#[tokio::test]
async fn nothing_is_run_in_a_repository_inside_of_the_checkout() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let canary = Canary::in_place(&place);
    let inner = place.origin(&[("inside", "1\n")]);
    let origin = place.origin(&[("a", "1\n")]);
    let known = inner.id_of("HEAD");
    git(&origin.path, &["update-index", "--add", "--cacheinfo", &format!("160000,{known},sub")]);
    git(&origin.path, &["commit", "--quiet", "-m", "With a submodule"]);
    let workspace = place.prepare(&origin, "work").await;
    assert_eq!(place.changes(&workspace).await.paths, Vec::<String>::new(), "a submodule that is not filled");

    let sub = workspace.path.join("sub");
    for folder in [&sub, &workspace.path.join("deep/new")] {
        git(&inner.path, &["clone", "--quiet", ".", folder.to_str().unwrap()]);
        write(folder.join(".gitattributes"), "* filter=x diff=x\n");
        canary.arm(folder);
        write(folder.join("inside"), "dirty\n");
    }
    git(&workspace.path, &["init", "--quiet", "unborn"]);
    run(&workspace.path, &["add", "-A"]);
    assert!(canary.sang(), "the trap is not armed");

    let changes = place.changes(&workspace).await;
    assert_eq!(changes.paths, ["deep/new"], "{}", changes.unified_diff);
    assert!(changes.unified_diff.contains(&format!("+Subproject commit {known}")));
    assert!(!canary.sang());

    // The submodule goes on by a commit; what is not committed in it is its own business.
    let next = inner.commit(&[("inside", "2\n")], "Next");
    write(sub.join(".git/refs/heads/main"), format!("{next}\n"));
    let commit = place.deliver(&origin, &workspace).await;
    assert_eq!(git(&origin.path, &["rev-parse", &format!("{commit}:sub")]).trim(), next);
    assert!(!canary.sang());

    // What a submodule's `.git` file points to is read too, and removing it all is a change as any other.
    fs::rename(sub.join(".git"), place.dir.path().join("elsewhere")).unwrap();
    write(sub.join(".git"), format!("gitdir: {}\n", place.dir.path().join("elsewhere").display()));
    assert!(!place.changes(&workspace).await.paths.contains(&"unborn".to_owned()));
    fs::remove_dir_all(&sub).unwrap();
    assert_eq!(place.changes(&workspace).await.paths, ["deep/new", "sub"]);
    assert!(!canary.sang());
}

#[tokio::test]
async fn a_git_directory_that_was_swapped_changes_nothing() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let canary = Canary::in_place(&place);
    let other = place.origin(&[("secret", "of another\n")]);
    canary.arm(&other.path);
    let swaps: [(&str, Swap); 8] = [
        ("removed", |_, _| ()),
        ("file", |dot_git, other| write(dot_git, format!("gitdir: {}\n", other.display()))),
        ("link", |dot_git, other| symlink(other, dot_git).unwrap()),
        ("copy", |dot_git, other| {
            assert!(Command::new("cp").arg("-r").args([other, dot_git]).status().unwrap().success());
        }),
        ("empty", |dot_git, _| fs::create_dir(dot_git).unwrap()),
        ("junk", |dot_git, _| write(dot_git.join("HEAD"), [255, 0, 1])),
        ("loop", |dot_git, _| {
            write(dot_git.join("HEAD"), "ref: refs/heads/a\n");
            write(dot_git.join("refs/heads/a"), "ref: refs/heads/a\n");
        }),
        ("pipe", |dot_git, _| {
            fs::create_dir(dot_git).unwrap();
            assert!(Command::new("mkfifo").arg(dot_git.join("HEAD")).status().unwrap().success());
        }),
    ];
    for (name, swap) in swaps {
        let origin = place.origin(&[("a", "1\n")]);
        let workspace = place.prepare(&origin, "work").await;
        let dot_git = workspace.path.join(".git");
        fs::remove_dir_all(&dot_git).unwrap();
        swap(&dot_git, &other.path.join(".git"));
        write(workspace.path.join("a"), "2\n");
        assert_eq!(place.changes(&workspace).await.paths, ["a"], "{name}");
        let commit = place.deliver(&origin, &workspace).await;
        assert_eq!(origin.id_of(&format!("{commit}^")), workspace.base_commit, "{name}");
        assert!(!canary.sang(), "{name}");
        place.workspaces.remove(&workspace).await.unwrap();
        assert!(other.path.join(".git/HEAD").exists(), "{name}");
    }
}

#[tokio::test]
async fn a_history_that_is_not_sound_is_left_out() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let other = place.origin(&[("secret", "of another\n")]);
    let borrowed = format!("{}\n", other.path.join(".git/objects").display());
    let traps: [(&str, Trap<'_>); 5] = [
        ("borrowed objects", &|checkout| {
            let file = checkout.join(".git/objects/info/alternates");
            write(&file, fs::read_to_string(&file).unwrap() + &borrowed);
            let tree = git(&other.path, &["rev-parse", "HEAD^{tree}"]);
            commit_of_tree(checkout, tree.trim());
        }),
        ("an evil path", &|checkout| {
            let blob = git(checkout, &["rev-parse", "HEAD:a"]);
            let tree = format!("40000 {} .git\n", tree_of(checkout, "100644", blob.trim(), "config"));
            commit_of_tree(checkout, &mktree_raw(checkout, &tree));
        }),
        ("a missing object", &|checkout| {
            write(checkout.join("b"), "to be lost\n");
            git(checkout, &["add", "b"]);
            git(checkout, &["commit", "--quiet", "-m", "By the agent"]);
            let blob = git(checkout, &["rev-parse", "HEAD:b"]);
            fs::remove_file(checkout.join(".git/objects").join(&blob[..2]).join(blob[2..].trim())).unwrap();
        }),
        ("a head that is no commit", &|checkout| {
            write(checkout.join("b"), "1\n");
            let blob = git(checkout, &["hash-object", "-w", "b"]);
            write(checkout.join(".git/HEAD"), blob);
        }),
        ("a linked object folder", &|checkout| {
            git(checkout, &["commit", "--quiet", "--allow-empty", "-m", "By the agent"]);
            let objects = checkout.join(".git/objects");
            fs::rename(&objects, checkout.join(".git/moved")).unwrap();
            symlink("moved", &objects).unwrap();
        }),
    ];
    for (name, trap) in traps {
        let origin = place.origin(&[("a", "1\n")]);
        let workspace = place.prepare(&origin, "work").await;
        trap(&workspace.path);
        write(workspace.path.join("a"), "2\n");
        let commit = place.deliver(&origin, &workspace).await;
        assert_eq!(origin.id_of(&format!("{commit}^")), workspace.base_commit, "{name}");
        assert_eq!(origin.show(&commit, "a"), b"2\n", "{name}");
        assert_eq!(place.kept().len(), 2, "{name}: {:?}", place.kept());
        place.workspaces.remove(&workspace).await.unwrap();
    }
}

fn commit_of_tree(checkout: &Path, tree: &str) {
    let id = git(checkout, &["commit-tree", tree, "-p", "HEAD", "-m", "By the agent"]);
    write(checkout.join(".git/refs/heads/work"), id);
}

fn tree_of(checkout: &Path, mode: &str, blob: &str, name: &str) -> String {
    mktree_raw(checkout, &format!("{mode} {blob} {name}\n"))
}

/// A tree with any name in it, which `git mktree` would refuse.
fn mktree_raw(checkout: &Path, entry: &str) -> String {
    let [mode, id, name] = entry.trim().split(' ').collect::<Vec<_>>()[..] else { panic!("{entry}") };
    let mut bytes = format!("{mode} {name}\0").into_bytes();
    bytes.extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
    let file = checkout.join(".git/raw-tree");
    write(&file, bytes);
    let file = file.to_str().unwrap();
    git(checkout, &["hash-object", "--literally", "-t", "tree", "-w", file]).trim().to_owned()
}

#[tokio::test]
async fn links_are_stored_and_not_followed() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    write(outside.join("a"), "secret\n");
    write(outside.join("b"), "secret\n");
    let origin = place.origin(&[("folder/a", "1\n"), ("folder/c", "1\n"), ("file", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    fs::remove_dir_all(workspace.path.join("folder")).unwrap();
    symlink(&outside, workspace.path.join("folder")).unwrap();
    fs::remove_file(workspace.path.join("file")).unwrap();
    symlink(outside.join("a"), workspace.path.join("file")).unwrap();
    symlink("/etc/passwd", workspace.path.join("new")).unwrap();
    symlink(outside.join("b"), workspace.path.join(".gitattributes")).unwrap();
    symlink(outside.join("b"), workspace.path.join(".gitignore")).unwrap();
    let changes = place.changes(&workspace).await;
    assert_eq!(
        changes.paths,
        [".gitattributes", ".gitignore", "file", "folder", "folder/a", "folder/c", "new"]
    );
    assert!(!changes.unified_diff.contains("secret"));
    let commit = place.deliver(&origin, &workspace).await;
    assert_eq!(origin.show(&commit, "folder"), outside.as_os_str().as_bytes());
    assert_eq!(origin.show(&commit, "new"), b"/etc/passwd");
    place.workspaces.remove(&workspace).await.unwrap();
    assert!(outside.join("a").exists());

    // A checkout that was replaced as a whole is not followed either.
    let workspace = place.prepare(&origin, "next").await;
    fs::remove_dir_all(&workspace.path).unwrap();
    symlink(&outside, &workspace.path).unwrap();
    let error = place.workspaces.changes(&workspace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    place.workspaces.remove(&workspace).await.unwrap();
    assert!(outside.join("a").exists());
}

#[tokio::test]
async fn links_in_a_commit_are_not_read_through() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    write(outside.join("rules/a.md"), "secret\n");
    let origin = place.origin(&[("docs/a.md", "1\n")]);
    symlink("docs/a.md", origin.path.join("AGENTS.md")).unwrap();
    symlink("/etc/passwd", origin.path.join("CLAUDE.md")).unwrap();
    symlink(&outside, origin.path.join("rules")).unwrap();
    write(origin.path.join("latin.md"), b"caf\xe9\n");
    origin.commit(&[], "Links");
    let workspace = place.prepare(&origin, "work").await;
    let wanted = FilesWanted {
        paths: ["AGENTS.md", "CLAUDE.md", "rules/a.md", "rules/*.md", "latin.md"].map(Into::into).to_vec(),
        max_files: 9,
        max_file_bytes: 99,
        max_bytes: 99,
    };
    let found = place.workspaces.committed_files(&workspace, &wanted).await.unwrap();
    assert_eq!(found.files, []);
    let left_out: Vec<_> = found.left_out.iter().map(|left| (left.path.as_str(), left.why)).collect();
    let expected = [
        ("AGENTS.md", WhyLeftOut::NoFile),
        ("CLAUDE.md", WhyLeftOut::NoFile),
        ("latin.md", WhyLeftOut::NoText),
    ];
    assert_eq!(left_out, expected);
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_keeps_nobody_waiting() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n"), ("b", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    fs::remove_file(workspace.path.join("b")).unwrap();
    for pipe in ["new", "b"] {
        assert!(Command::new("mkfifo").arg(workspace.path.join(pipe)).status().unwrap().success());
    }
    write(workspace.path.join("a"), "2\n");
    let changes = tokio::time::timeout(Duration::from_secs(20), place.workspaces.changes(&workspace)).await;
    let changes = changes.expect("a pipe keeps us waiting").unwrap();
    assert_eq!(changes.paths, ["a", "b"]);
    assert!(changes.unified_diff.contains("deleted file mode"));
}

#[tokio::test]
async fn names_that_would_harm_who_checks_them_out_are_left_out() {
    if !has_git() {
        return;
    }
    let place = Place::new();
    let origin = place.origin(&[("a", "1\n")]);
    let workspace = place.prepare(&origin, "work").await;
    for name in ["deep/git~1", "deep/.GIT/config", "deep/.git/config", ".g\u{200c}it/config"] {
        write(workspace.path.join(name), "1\n");
    }
    write(workspace.path.join("b"), "1\n");
    assert_eq!(place.changes(&workspace).await.paths, ["b"]);
    let commit = place.deliver(&origin, &workspace).await;
    assert_eq!(git(&origin.path, &["ls-tree", "-r", "--name-only", &commit]), "a\nb\n");
}
