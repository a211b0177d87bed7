use assembly_lime::identity::{Slug, Tenants};
use assembly_lime::planning::Ticket;
use assembly_lime::postgres::Embedded;
use assembly_lime::repos::CodeDiff;
use assembly_lime::runs::{AgentRun, RunStatus};
use assembly_lime::{LookupExt, Query, Scope};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::user::{QUICK, Seen, User, git, in_time, names};

const BRANCH: &str = "lime/show-which-tasks-are-overdue";

/// Also: a second run goes on with the same data, on a branch of its own; what is piped has no escape codes.
#[tokio::test]
async fn the_demo_ends_with_a_commit_a_diff_a_cost_and_a_log() {
    let user = User::new();
    let first = user.run(["--json"]).await;
    assert_eq!(first.status.code(), Some(0));
    let events = first.events();
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["status"]), (&"status".into(), &"succeeded".into()));

    let demo = user.data().join("demo");
    let diff = events.iter().rfind(|event| event["type"] == "diff").unwrap()["unifiedDiff"].as_str().unwrap();
    assert_eq!(git(&demo, &["rev-list", "--count", &format!("start..{BRANCH}")]).await.trim(), "1");
    git(&demo, &["checkout", "--quiet", "--detach", "start"]).await;
    let patch = user.file("the.patch", diff);
    git(&demo, &["apply", "--index", patch.to_str().unwrap()]).await;
    let applied = git(&demo, &["write-tree"]).await;
    assert_eq!(
        applied,
        git(&demo, &["rev-parse", &format!("{BRANCH}^{{tree}}")]).await,
        "the diff is the commit"
    );

    let second = user.run(["--provider", "replay"]).await;
    assert_eq!(second.status.code(), Some(0));
    assert!(!second.stdout.contains('\u{1b}'), "plain lines in a pipe");
    for said in [
        &format!("{BRANCH}-2"),
        "Show which tasks are overdue",
        "Done in",
        "$0.",
        "git -C",
        "    test_todo.py\n",
    ] {
        assert!(second.stdout.contains(said), "{said} is shown");
    }
    assert_eq!(second.stderr, "");
    assert_eq!(names(&user.data().join("work/checkouts")), [""; 0], "no checkout stays");
    let trees = [BRANCH, "lime/show-which-tasks-are-overdue-2"].map(|branch| format!("{branch}^{{tree}}"));
    assert_eq!(git(&demo, &["rev-parse", &trees[0]]).await, git(&demo, &["rev-parse", &trees[1]]).await);

    let embedded = Embedded::open(user.data().join("postgres")).await.unwrap();
    let storage = embedded.storage();
    let tenant = storage.tenant_by_slug(&Slug::parse("quickstart").unwrap()).await.unwrap().unwrap();
    let scope = Scope::system(tenant.id, "a test");
    let runs = storage.all(&scope, Query::<AgentRun>::all()).await.unwrap();
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Succeeded; 2]);
    assert_eq!(runs[0].last_seq, i64::try_from(events.len()).unwrap());
    assert!(runs[0].usage.cost.is_some_and(|cost| cost.0 > 0));
    let stored = storage.all(&scope, Query::<CodeDiff>::all()).await.unwrap();
    assert_eq!(stored[0].unified_diff, diff);
    assert_eq!(stored[0].head_ref, git(&demo, &["rev-parse", BRANCH]).await.trim());
    let ticket = storage.find(&scope, Query::<Ticket>::all()).await.unwrap().unwrap();
    assert_eq!(ticket.branch.as_deref(), Some(BRANCH));
    embedded.close().await.unwrap();
}

#[tokio::test]
async fn a_reader_who_goes_does_not_stop_the_run() {
    let user = User::new();
    let recording = user.file("quick.toml", QUICK);
    let mut command = user.command(["--json", "--recording", recording.to_str().unwrap()]);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    in_time(lines.next_line()).await.unwrap().unwrap();
    drop(lines);
    let output = in_time(child.wait_with_output()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(git(&user.data().join("demo"), &["show", "lime/write-notes:NOTES.md"]).await, "hello\n");
}

#[tokio::test]
async fn help_explains_itself() {
    let user = User::new();
    let help = user.run(["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    for said in ["--repo", "Ctrl-C", "Examples", "--data-dir"] {
        assert!(help.stdout.contains(said), "{said}");
    }
    assert!(!user.data().exists());
}

/// Every file of the demo project is in the program.
#[tokio::test]
async fn the_demo_project_is_whole() {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("demo");
    let source = include_str!("../../src/demo.rs");
    let mut folders = vec![demo.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(&demo).unwrap().to_str().unwrap().to_owned();
            if name.contains("__pycache__") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                assert!(source.contains(&format!("\"{name}\"")), "{name} is missing in src/demo.rs");
            }
        }
    }
}

#[tokio::test]
async fn a_recording_of_ones_own_is_played_in_ones_own_repository() {
    let user = User::new();
    let repository = user.repository().await;
    let recording = user.file("quick.toml", QUICK);
    git(&repository, &["branch", "lime/write-it"]).await;
    let arguments = [
        "--repo",
        repository.to_str().unwrap(),
        "--recording",
        recording.to_str().unwrap(),
        "--prompt",
        "Write it",
        "--keep",
    ];
    let seen = Seen::of(user.command(arguments)).await;
    assert_eq!(seen.status.code(), Some(0));
    assert!(seen.stdout.contains("'"), "a path with a blank is quoted");
    assert_eq!(git(&repository, &["show", "lime/write-it-2:NOTES.md"]).await, "hello\n");
    assert_eq!(git(&repository, &["status", "--porcelain"]).await, "", "the working tree is as it was");
    assert_eq!(names(&user.data().join("work/checkouts")).len(), 1, "--keep keeps the checkout");
}
