use std::path::Path;

use crate::user::{QUICK, Seen, User, git, names};

/// What is wrong with the arguments is said in a few lines, with status 2, before anything is made.
#[tokio::test]
async fn a_run_that_cannot_start_leaves_nothing_behind() {
    let user = User::new();
    let repository = user.repository().await;
    let repository = repository.to_str().unwrap();
    let recording = user.file("quick.toml", QUICK);
    let recording = recording.to_str().unwrap();
    let broken = user.file("broken.toml", "version = 1\nname = \"x\"\n[[step]]\nsay = 1\n");
    let broken = broken.to_str().unwrap();
    let for_others = user.file("for-others.toml", &QUICK.replace("[ticket]", "when = \"parser\"\n[ticket]"));
    let for_others = for_others.to_str().unwrap();
    let no_repository = user.file("file", "");
    let no_repository = no_repository.parent().unwrap().to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--repo", repository], "--prompt"),
        (&["--max-turns", "0"], "--max-turns"),
        (&["--prompt", " \n"], "the prompt is empty"),
        (&["--prompt", "-"], "the prompt is empty"),
        (&["--repo", no_repository, "--prompt", "x"], "not a git repository"),
        (&["--repo", "/nothing/here", "--prompt", "x"], "/nothing/here"),
        (&["--repo", repository, "--prompt", "x"], "Claude:"),
        (&["--prompt", "another ticket"], "Codex:"),
        (&["--provider", "claude"], "npm install"),
        (&["--provider", "codex"], "npm install"),
        (&["--repo", repository, "--prompt", "x", "--provider", "replay"], "--recording"),
        (&["--provider", "codex", "--recording", recording], "--recording"),
        (&["--recording", "/nothing/here"], "/nothing/here"),
        (&["--recording", broken], "line 4"),
        (&["--recording", for_others], "parser"),
        (&["--database-url", "mysql://localhost/x"], "error"),
    ];
    for (arguments, said) in cases {
        let seen = Seen::of(without_agents(&user, arguments)).await;
        assert_eq!(seen.status.code(), Some(2), "{arguments:?}");
        assert!(seen.stderr.contains(said), "{arguments:?}: {}", seen.stderr);
        assert!(!user.data().exists(), "{arguments:?} left something");
    }
    assert_eq!(
        git(Path::new(repository), &["for-each-ref", "--format=%(refname)"]).await,
        "refs/heads/main\n"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_its_password() {
    let user = User::new();
    let seen = user.run(["--database-url", "postgres://lime:sesame@127.0.0.1:1/lime"]).await;
    assert_eq!(seen.status.code(), Some(2));
    assert!(seen.stderr.starts_with("error: "));
    assert!(!format!("{}{}", seen.stdout, seen.stderr).contains("sesame"));
    assert!(!user.data().exists());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_refused() {
    let user = User::new();
    user.file("data", "a file, where the folder should be");
    let seen = user.run([""; 0]).await;
    assert_eq!(seen.status.code(), Some(2));
    assert!(seen.stderr.contains("--data-dir"));
}

#[tokio::test]
async fn a_branch_that_is_checked_out_is_refused() {
    let user = User::new();
    let repository = user.repository().await;
    let recording = user.file("quick.toml", QUICK);
    let (repository, recording) = (repository.to_str().unwrap(), recording.to_str().unwrap());
    let arguments = ["--repo", repository, "--recording", recording, "--prompt", "x", "--branch", "main"];
    let seen = user.run(arguments).await;
    assert_eq!(seen.status.code(), Some(2));
    assert!(seen.stderr.contains("main is checked out"));
    assert_eq!(names(&user.data().join("work/checkouts")), [""; 0]);
    assert_eq!(
        git(Path::new(repository), &["for-each-ref", "--format=%(refname)"]).await,
        "refs/heads/main\n"
    );
}

/// The command for somebody who has git, and no agent.
fn without_agents(user: &User, arguments: &[&str]) -> tokio::process::Command {
    let folder = user.data().with_file_name("bin");
    if !folder.exists() {
        std::fs::create_dir(&folder).unwrap();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let git =
            std::env::split_paths(&path).map(|folder| folder.join("git")).find(|git| git.exists()).unwrap();
        std::os::unix::fs::symlink(git, folder.join("git")).unwrap();
    }
    let mut command = user.command(arguments);
    command.env("PATH", folder);
    command
}
