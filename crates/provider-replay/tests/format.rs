//! What a recording may say, and what an error says about it.

#![allow(clippy::unwrap_used, reason = "a test panics where the behaviour does not hold")]

use lime_core::ErrorKind;
use lime_provider_replay::Recording;

const HEAD: &str = "version = 1\nname = 'r'\n";

#[test]
fn an_error_names_the_line_and_the_fault() {
    let long = "x".repeat(81);
    let cases: &[(&str, usize, &str)] = &[
        ("", 1, "there is no `version = 1`"),
        ("name = 'r'\nversion = 2\nholograms = true", 2, "version 2 is not known"),
        ("version = '1'", 1, "invalid type"),
        ("version = 1\nname = 'r'", 1, "there is no `[[step]]`"),
        ("version = 1\nname = 'r'\n[step]\nsay = 'x'", 3, "write each step as `[[step]]`"),
        ("version = 1\nname = 'r'\nstep = [7]", 3, "write each step as `[[step]]`"),
        ("version = 1\n[[step]]\nsay = 'x'", 1, "missing field `name`"),
        ("version = 1\nname = ''\n[[step]]\nsay = 'x'", 2, "`name` has 1 to 80 characters"),
        (&format!("version = 1\n\nname = '{long}'\n[[step]]\nsay = 'x'"), 3, "`name` has 1 to 80 characters"),
        ("version = 1\nname = 'r'\nauthor = 'me'\n[[step]]\nsay = 'x'", 3, "unknown field `author`"),
        ("version = 1\nname = 'r'\n[[step]]\nsay = 'x\n", 4, "invalid literal string"),
        (
            "version = 1\nname = 'r'\n[ticket]\ntitle = 'x'\n[[step]]\nsay = 'x'",
            3,
            "missing field `description`",
        ),
    ];
    for (text, line, message) in cases {
        check(text, *line, message);
    }
}

#[test]
fn an_error_names_the_step_and_the_fault() {
    let cases: &[(&str, usize, &str)] = &[
        ("wait_ms = 5", 3, "the step does nothing that is known; it has one of: say, think"),
        ("wirte = 'a'\ncontent = ''", 3, "does nothing that is known"),
        ("write = 'a'\nsay = 'b'\ncontent = ''", 3, "the step does 2 things"),
        ("write = 'a'", 3, "missing field `content`"),
        ("write = 'a'\n\ncontents = 'b'", 6, "unknown field `contents`, expected one of"),
        ("write = 7\ncontent = ''", 4, "invalid type: integer `7`"),
        ("write = '../a'\ncontent = ''", 4, "leaves the worktree"),
        ("write = '/a'\ncontent = ''", 4, "leaves the worktree"),
        ("delete = '.git/config'", 4, "is git's own"),
        ("rename = 'a'\nto = 'b/../../c'", 5, "leaves the worktree"),
        ("edit = 'a'\nfind = ''\nreplace = 'b'", 5, "`find` must not be empty"),
        ("say = 'a'\nwait_ms = 600_001", 5, "a time is at most 600000 ms"),
        ("say = 'a'\nwait_ms = -1", 5, "invalid value"),
        ("run = 'make'\nfails = 'yes'", 5, "invalid type"),
        ("tool = ''", 4, "a tool's name has 1 to 200 characters"),
        ("usage = { tokens = 7 }", 4, "unknown field `tokens`"),
        ("usage = { cost_micros = 1.5 }", 4, "invalid type: floating point"),
        ("fail = 'tired'\nmessage = 'x'", 4, "unknown variant `tired`"),
        ("fail = 'crashed'", 3, "missing field `message`"),
        ("limit = 'patience'", 4, "unknown variant `patience`"),
        ("hang = false", 4, "it can only be true"),
        ("event = { type = 'usage', turns = 1 }", 4, "comes from steps of its own"),
        ("say = 'a'\nonly_if = 'maybe'", 5, "unknown variant `maybe`"),
        ("usage = {}\nonly_if = 'denied'", 3, "a turn is counted always"),
        ("hang = true\n[[step]]\nsay = 'x'", 5, "the step before this one ends the session"),
    ];
    for (step, line, message) in cases {
        check(&format!("{HEAD}[[step]]\n{step}\n"), *line, message);
    }
}

fn check(text: &str, line: usize, message: &str) {
    let error = Recording::parse(text).expect_err(text);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let said = error.message();
    assert!(said.starts_with(&format!("line {line}: ")), "{said:?} is not about line {line} of:\n{text}");
    assert!(said.contains(message), "{said:?} does not say {message:?} about:\n{text}");
}

#[test]
fn limits_are_kept() {
    let mut text = HEAD.to_owned() + &"[[step]]\nsay = 'x'\n".repeat(Recording::MAX_STEPS);
    Recording::parse(&text).unwrap();
    text.push_str("[[step]]\nsay = 'x'\n");
    let error = Recording::parse(&text).unwrap_err();
    assert_eq!(error.message(), "line 20003: a recording has at most 10000 steps");

    let text = format!("{HEAD}[[step]]\nsay = '{}'", "x".repeat(Recording::MAX_BYTES));
    assert_eq!(Recording::parse(&text).unwrap_err().kind(), ErrorKind::LimitExceeded);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &text).unwrap();
    assert_eq!(Recording::load(file.path()).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_file_is_named_in_its_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.toml");
    assert_eq!(Recording::load(&path).unwrap_err().kind(), ErrorKind::Missing);
    std::fs::write(&path, "version = 3").unwrap();
    let error = Recording::load(&path).unwrap_err().to_string();
    assert!(error.contains("version 3") && error.contains("r.toml"), "{error}");
}

#[test]
fn the_header_can_be_read() {
    let recording = Recording::parse(
        "version = 1\nname = 'r'\nmodel = 'm'\nwhen = 'due'\n[ticket]\ntitle = 't'\ndescription = 'd'\n\
         [[step]]\nsay = 'x'",
    )
    .unwrap();
    assert_eq!(recording.name(), "r");
    assert_eq!(recording.model(), Some("m"));
    assert_eq!(recording.when(), Some("due"));
    let ticket = recording.ticket().unwrap();
    assert_eq!((ticket.title.as_str(), ticket.description.as_str()), ("t", "d"));
}

/// The guide's examples are recordings, or steps of one.
#[test]
fn the_guides_examples_are_right() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/providers.md");
    let Ok(guide) = std::fs::read_to_string(guide) else {
        lime_conformance::skip("docs/providers.md is not here");
        return;
    };
    let examples: Vec<_> =
        guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 10, "{} examples", examples.len());
    for example in examples {
        let whole =
            if example.contains("version =") { example.to_owned() } else { format!("{HEAD}{example}") };
        Recording::parse(&whole).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}
