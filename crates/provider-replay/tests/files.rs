//! What a session does to files, and to which ones it does nothing.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

mod stage;

use std::fs;

use lime_conformance::agent::spec;
use lime_core::ports::AgentProvider;
use lime_core::runs::{AgentEvent, FailureKind, ToolStatus};
use lime_provider_replay::ReplayProvider;

use self::stage::{failure, folder, play, recording, tools};

#[tokio::test]
async fn files_are_changed_between_the_start_and_the_end_of_a_tool() {
    let folder = folder(&[("kept.txt", "one\ntwo\n"), ("old/name.txt", "x"), ("gone.txt", "x")]);
    let steps = "
        [[step]]
        read = 'kept.txt'
        [[step]]
        write = 'new/deep/file.txt'
        content = '''
a
b
'''
        [[step]]
        append = 'kept.txt'
        content = \"three\\n\"
        [[step]]
        edit = 'kept.txt'
        find = 'two'
        replace = '2'
        [[step]]
        delete = 'gone.txt'
        [[step]]
        rename = 'old/name.txt'
        to = 'other dir/name.txt'
    ";
    let provider = ReplayProvider::new(recording(steps)).speed(0.0);
    let mut session = provider.start(spec(folder.path(), "Do it.")).await.unwrap();
    let at = |path: &str| folder.path().join(path);
    let mut events = Vec::new();
    while let Some(event) = session.next_event().await {
        if let AgentEvent::Tool { name, status, .. } = &event
            && name == "Write"
        {
            assert_eq!(at("new/deep/file.txt").exists(), *status == ToolStatus::Completed);
        }
        events.push(event);
    }

    assert_eq!(fs::read_to_string(at("new/deep/file.txt")).unwrap(), "a\nb\n");
    assert_eq!(fs::read_to_string(at("kept.txt")).unwrap(), "one\n2\nthree\n");
    assert!(!at("gone.txt").exists() && !at("old/name.txt").exists());
    assert_eq!(fs::read_to_string(at("other dir/name.txt")).unwrap(), "x");
    let ended: Vec<_> =
        tools(&events).into_iter().filter(|(_, status, _)| *status != ToolStatus::Started).collect();
    let expected = [
        ("Read", ToolStatus::Completed, "one\ntwo\n"),
        ("Write", ToolStatus::Completed, "Wrote 2 lines to new/deep/file.txt."),
        ("Edit", ToolStatus::Completed, "Added 1 lines to kept.txt."),
        ("Edit", ToolStatus::Completed, "Edited kept.txt."),
        ("Bash", ToolStatus::Completed, ""),
        ("Bash", ToolStatus::Completed, ""),
    ];
    assert_eq!(ended, expected);
    let inputs: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Tool { name, input: Some(input), .. } if name == "Bash" => Some(&input["command"]),
            _ => None,
        })
        .collect();
    assert_eq!(inputs, ["rm gone.txt", "mv old/name.txt 'other dir/name.txt'"]);
}

#[tokio::test]
async fn an_edit_that_does_not_fit_ends_the_session() {
    let cases = [
        ("edit = 'a.txt'\nfind = 'z'\nreplace = ''", "is there 0 times"),
        ("edit = 'a.txt'\nfind = 'x'\nreplace = ''", "is there 2 times"),
        ("edit = 'b.txt'\nfind = 'x'\nreplace = ''", "`b.txt` cannot be read"),
        ("append = 'b.txt'\ncontent = 'x'", "`b.txt` cannot be appended to"),
        ("delete = 'b.txt'", "`b.txt` cannot be deleted"),
        ("read = 'b.txt'", "`b.txt` cannot be read"),
        ("rename = 'b.txt'\nto = 'c.txt'", "`b.txt` cannot be renamed"),
        ("rename = 'a.txt'\nto = 'dir/c.txt'", "`dir/c.txt` is there already"),
        ("write = 'dir'\ncontent = ''", "`dir` cannot be written"),
        ("write = 'a.txt/b'\ncontent = ''", "`a.txt/b` cannot be written"),
    ];
    for (step, why) in cases {
        let folder = folder(&[("a.txt", "x x"), ("dir/c.txt", "")]);
        let (events, report) =
            play(&format!("[[step]]\n{step}\n[[step]]\nsay = 'Never said.'"), folder.path()).await;
        let (kind, message) = failure(&report);
        assert_eq!(kind, FailureKind::InvalidRequest);
        assert!(message.contains(why) && message.contains("line 3"), "{message}");
        let last = tools(&events).pop().unwrap();
        assert!(last.1 == ToolStatus::Failed && last.2.contains(why), "{last:?}");
        assert!(matches!(events.last(), Some(AgentEvent::Tool { .. })), "it went on: {events:#?}");
        assert_eq!(fs::read_to_string(folder.path().join("a.txt")).unwrap(), "x x");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn symbolic_links_are_not_followed() {
    let outside = folder(&[("secret.txt", "x")]);
    for step in [
        "write = 'link/new.txt'\ncontent = 'y'",
        "write = 'file.txt'\ncontent = 'y'",
        "append = 'file.txt'\ncontent = 'y'",
        "edit = 'file.txt'\nfind = 'x'\nreplace = 'y'",
        "read = 'file.txt'",
        "delete = 'link/secret.txt'",
        "rename = 'link/secret.txt'\nto = 'b'",
        "rename = 'own.txt'\nto = 'link/own.txt'",
    ] {
        let folder = folder(&[("own.txt", "")]);
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.txt"), folder.path().join("file.txt"))
            .unwrap();
        let (_, report) = play(&format!("[[step]]\n{step}"), folder.path()).await;
        assert!(failure(&report).1.contains("symbolic link"), "{step}: {report:?}");
        assert_eq!(fs::read_to_string(outside.path().join("secret.txt")).unwrap(), "x");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
