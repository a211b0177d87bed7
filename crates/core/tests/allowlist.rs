//! Lists of tools: what the documents say of them, and that narrowing never widens.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::path::Path;

use lime_core::governance::{Allowlist, DefaultTools, ToolGrant, ToolLayer, ToolPattern, WhyDenied};
use lime_core::runs::ProviderId;
use lime_core::{Entity, Value};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value as Json, json};

const CLAUDE: ProviderId = ProviderId::from_static("claude");
const CODEX: ProviderId = ProviderId::from_static("codex");
const HOME: &str = "/srv/app";

fn list(layer: ToolLayer, tools: &[&str]) -> Allowlist {
    Allowlist::parse(layer, tools).unwrap()
}

fn patterns(texts: &[&str]) -> Vec<ToolPattern> {
    texts.iter().map(|text| ToolPattern::parse(*text).unwrap()).collect()
}

fn denial(list: &Allowlist, tool: &str, input: &Json) -> Option<WhyDenied> {
    list.check(tool, input, Path::new(HOME)).err().map(|denied| denied.why)
}

fn runs(list: &Allowlist, command: &str) -> bool {
    denial(list, "Bash", &json!({ "command": command })).is_none()
}

fn granted(list: &Allowlist) -> Vec<String> {
    let join = |grant: &ToolGrant| grant.patterns().map(ToolPattern::as_str).collect::<Vec<_>>().join(" & ");
    list.grants().unwrap().iter().map(join).collect()
}

#[test]
fn the_documents_own_lists() {
    let tools = DefaultTools {
        provider: None,
        allowed: patterns(&["read", "edit", "bash", "grep"]),
        denied: vec![],
        enabled: true,
    };
    let of_000 = Allowlist::defaults([&tools], &CLAUDE);
    let of_001 = list(ToolLayer::Project, &["Read", "Edit", "Bash", "Glob", "Grep"]);
    let run = of_000.narrow(&of_001);
    for tool in ["Read", "Edit", "Bash", "Grep", "shell", "apply_patch"] {
        assert_eq!(denial(&run, tool, &json!({})), None, "{tool}");
    }
    for tool in ["Glob", "WebFetch", "mcp__shop__buy", "web_search"] {
        assert!(denial(&run, tool, &json!({})).is_some(), "{tool}");
    }
    assert_eq!((tools.provider_word(), tools.validate()), ("any", Ok(())));
    assert_eq!((DefaultTools::PROVIDER.column.value)(&tools), Value::Text("any".into()));
    assert!(DefaultTools { provider: Some(ProviderId::from_static("any")), ..tools }.validate().is_err());
}

#[test]
fn a_providers_own_defaults_narrow_those_for_any_and_disabled_ones_do_not_count() {
    let tools = |provider, allowed: &[&str], enabled| DefaultTools {
        provider,
        allowed: patterns(allowed),
        denied: vec![],
        enabled,
    };
    let all = [
        tools(None, &["Read", "Bash"], true),
        tools(Some(CLAUDE), &["Read", "WebFetch"], true),
        tools(Some(CODEX), &[], false),
    ];
    assert_eq!(granted(&Allowlist::defaults(&all, &CLAUDE)), ["Read"]);
    assert_eq!(granted(&Allowlist::defaults(&all, &CODEX)), ["Bash", "Read"]);
    assert_eq!(Allowlist::defaults(&[], &CODEX).grants(), None);
    assert_eq!(denial(&Allowlist::all(), "Anything", &Json::Null), None);
}

#[test]
fn a_command_is_allowed_if_every_part_of_it_is() {
    let git = list(ToolLayer::Run, &["Bash(git *)", "Bash(cd *)"]);
    for command in
        ["git", "git status", "cd app && git push", "git log | git apply", "git log 2>&1", "bash -c 'git x'"]
    {
        assert!(runs(&git, command), "{command}");
    }
    for command in [
        "git status; rm -rf /",
        "git status && rm x",
        "git log | sh",
        "git log & rm x",
        "git status\nrm -rf /",
        "git $(rm -rf /)",
        "git `rm x`",
        "git log > /etc/passwd",
        "git diff <(rm x)",
        "PATH=/tmp git status",
        "PATH=/tmp; git status",
        "gitx",
        "rm git ",
        "\"git status\" x",
        "git status # '\nrm x\n# '",
        "bash -c 'git x; rm y'",
        "sh run.sh",
        "",
        "env git status",
        "{ git status; }",
        "git\u{a0}status",
    ] {
        assert!(!runs(&git, command), "{command}");
    }
    let why = denial(&git, "Bash", &json!({ "command": "git status; rm x" }));
    let listed = "Bash(cd *), Bash(git *)".to_owned();
    assert_eq!(why, Some(WhyDenied::PartNotListed { part: "rm x".into(), listed }));
    assert!(matches!(denial(&git, "Bash", &json!({ "command": "git $X" })), Some(WhyDenied::Unclear(_))));
    assert_eq!(denial(&git, "Bash", &json!({})), Some(WhyDenied::Nameless));
    assert!(runs(&list(ToolLayer::Run, &["Bash"]), "for x in *; do echo $x; done"), "the whole tool");
}

#[test]
fn a_patch_is_allowed_if_every_file_of_it_is() {
    let src = list(ToolLayer::Run, &["Write(src/*)"]);
    let may = |tool: &str, input: Json| denial(&src, tool, &input).is_none();
    assert!(may("Write", json!({ "file_path": "/srv/app/src/a.rs" })));
    assert!(may(
        "apply_patch",
        json!({ "changes": [{ "path": "src/a.rs" }, { "path": "/srv/app/src/b.rs" }] })
    ));
    assert!(!may("apply_patch", json!({ "changes": [{ "path": "src/a.rs" }, { "path": "b.rs" }] })));
    assert!(!may("apply_patch", json!({ "changes": [{ "path": "src/a.rs", "movedTo": "/etc/x" }] })));
    assert!(!may("Write", json!({ "file_path": "src/../../etc/passwd" })));
    assert!(!may("Write", json!({ "file_path": "/srv/app2/src/a.rs" })));
    assert!(!may("Edit", json!({ "file_path": "src/a.rs" })));
}

#[test]
fn what_is_never_called_is_not_however_it_is_written() {
    let never = Allowlist::new(
        ToolLayer::Default,
        None::<Vec<_>>,
        patterns(&["Bash(git push *)", "Write(.env)", "Task"]),
    );
    for command in [
        "git push",
        "git 'push' origin",
        "cd x; git pu\\sh",
        "bash -lc 'git push'",
        "git p* origin",
        "git $X",
        "g=1 git push",
    ] {
        assert!(!runs(&never, command), "{command}");
    }
    assert!(runs(&never, "git commit -m 'then; git push'") && runs(&never, "git pull"));
    assert!(denial(&never, "Write", &json!({ "file_path": "/srv/app/./.env" })).is_some());
    assert!(denial(&never, "Write", &json!({ "file_path": "x/../.env" })).is_some());
    assert_eq!(denial(&never, "Write", &json!({ "file_path": "/srv/app/a" })), None);
    assert_eq!(denial(&never, "Task", &json!({})), Some(WhyDenied::Never(patterns(&["Task"])[0].clone())));
}

#[test]
fn the_first_layer_that_denies_is_named() {
    let run = list(ToolLayer::Run, &["Bash(git *)"])
        .narrow(&list(ToolLayer::Project, &["Read", "Bash(git push *)"]));
    let denied = run.check("Bash", &json!({ "command": "rm x" }), Path::new(HOME)).unwrap_err();
    assert_eq!(denied.layer, ToolLayer::Project);
    assert_eq!(
        denied.to_string(),
        "this call of Bash is denied by the project list of tools: `rm x` is not on the list, \
         which has Bash(git push *)"
    );
    let denied = run.check("Read", &json!({}), Path::new(HOME)).unwrap_err();
    assert_eq!((denied.layer, denied.why), (ToolLayer::Run, WhyDenied::NotListed("Bash(git *)".into())));
}

#[test]
fn grants_are_what_all_layers_have() {
    let wide = list(ToolLayer::Default, &["Read", "Bash", "mcp__*", "Edit"]);
    let narrow = list(ToolLayer::Run, &["Bash(git *)", "mcp__shop__*", "WebFetch", "apply_patch"]);
    assert_eq!(granted(&wide.narrow(&narrow)), ["Bash(git *)", "Edit & apply_patch", "mcp__shop__*"]);
    let (whole, below) = (["Write(/srv/app/src/*)"], ["Write(src/*)"]);
    for (first, second) in [(whole, below), (below, whole)] {
        let paths = list(ToolLayer::Default, &first).narrow(&list(ToolLayer::Run, &second));
        assert_eq!(granted(&paths), ["Write(/srv/app/src/*) & Write(src/*)"]);
        assert_eq!(denial(&paths, "Write", &json!({ "file_path": "src/a.rs" })), None);
    }
    let tail = list(ToolLayer::Agent, &["Bash(* --dry-run)", "Bash(cargo *)"]);
    let both = wide.narrow(&narrow).narrow(&tail);
    assert_eq!(granted(&both), ["Bash(* --dry-run) & Bash(git *)"]);
    assert!(
        runs(&both, "git push --dry-run") && !runs(&both, "git push") && !runs(&both, "cargo x --dry-run")
    );
    assert!(both.grants().unwrap().iter().all(|grant| grant.exact().is_none()));
}

const PATTERNS: &[&str] = &[
    "*",
    "Bash",
    "bash",
    "Bash(*)",
    "Bash(git *)",
    "Bash(git:*)",
    "Bash(git push *)",
    "Bash(git push)",
    "Bash(* --dry)",
    "Bash(git* --dry)",
    "Bash(cd *)",
    "Bash(rm *)",
    "shell",
    "exec_command(git *)",
    "B*(git *)",
    "Read",
    "Write",
    "Edit",
    "Write(src/*)",
    "Write(*.rs)",
    "Write(/srv/app/src/*)",
    "Write(*/src/*.rs)",
    "apply_patch",
    "apply_patch(*.rs)",
    "mcp__*",
    "mcp__shop__*",
    "mcp__*__buy",
    "W*",
    "WebFetch(https://docs.rs/*)",
];
const COMMANDS: &[&str] = &[
    "git",
    "git push",
    "git push --dry",
    "git push origin",
    "git log --dry",
    "rm -rf /",
    "cd app",
    "cd app && git push",
    "git status; rm x",
    "git $(rm)",
    "git 'push'",
    "git* push",
    "gitx --dry",
    "bash -lc 'git push'",
    "git log > x",
    "",
];
const PATHS: &[&str] = &["src/a.rs", "/srv/app/src/a.rs", "a.rs", "/etc/src/b.rs", "src/../x", "src/a.txt"];

fn layer() -> impl Strategy<Value = Allowlist> {
    let some = |most| subsequence(PATTERNS.to_vec(), 0..=most);
    (select(ToolLayer::ALL), prop::option::of(some(8)), some(2))
        .prop_map(|(from, may, never)| Allowlist::new(from, may.map(|may| patterns(&may)), patterns(&never)))
}

fn narrowed() -> impl Strategy<Value = Allowlist> {
    prop::collection::vec(layer(), 0..4)
        .prop_map(|layers| layers.iter().fold(Allowlist::all(), |all, one| all.narrow(one)))
}

fn call() -> impl Strategy<Value = (&'static str, Json)> {
    let command = |tools: &'static [&'static str]| {
        (select(tools), select(COMMANDS)).prop_map(|(tool, command)| (tool, json!({ "command": command })))
    };
    let path = (select(&["Write", "Edit", "Read"][..]), select(PATHS))
        .prop_map(|(tool, path)| (tool, json!({ "file_path": path })));
    let patch = prop::collection::vec(select(PATHS), 1..3).prop_map(|paths| {
        let changes: Vec<_> = paths.into_iter().map(|path| json!({ "path": path })).collect();
        ("apply_patch", json!({ "changes": changes }))
    });
    let other = (
        select(&["mcp__shop__buy", "mcp__x__buy", "WebFetch", "Task"][..]),
        select(&["https://docs.rs/x", "http://x"][..]),
    )
        .prop_map(|(tool, url)| (tool, json!({ "url": url })));
    prop_oneof![command(&["Bash", "shell", "exec_command"]), path, patch, other]
}

fn allows(list: &Allowlist, (tool, input): &(&str, Json)) -> bool {
    denial(list, tool, input).is_none()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn narrowing_gives_what_both_allow(one in narrowed(), other in narrowed(), call in call()) {
        let both = allows(&one, &call) && allows(&other, &call);
        prop_assert_eq!(allows(&one.narrow(&other), &call), both, "{:?}", call);
    }

    #[test]
    fn narrowing_commutes_and_again_changes_nothing(one in narrowed(), other in narrowed(), third in narrowed()) {
        let both = one.narrow(&other);
        prop_assert_eq!(&both, &other.narrow(&one));
        prop_assert_eq!(&both, &both.narrow(&one));
        prop_assert_eq!(both.narrow(&third), one.narrow(&other.narrow(&third)));
        prop_assert_eq!(&one.narrow(&Allowlist::all()), &one);
        prop_assert_eq!(both.grants(), other.narrow(&one).grants());
    }

    #[test]
    fn a_wider_pattern_allows_all_that_a_narrower_one_does(
        one in select(PATTERNS), other in select(PATTERNS), call in call(),
    ) {
        let (wide, narrow) = (list(ToolLayer::Run, &[one]), list(ToolLayer::Run, &[other]));
        if patterns(&[one])[0].contains(&patterns(&[other])[0]) && allows(&narrow, &call) {
            prop_assert!(allows(&wide, &call), "{} {} {:?}", one, other, call);
        }
    }

    /// A call of one part, which one pattern of each layer must allow, is allowed just where one grant allows it.
    #[test]
    fn grants_say_what_is_allowed(list in narrowed(), call in call()) {
        let parts = call.1["changes"].as_array().map_or(1, Vec::len);
        let plain = call.1["command"].as_str().is_none_or(|command| !command.contains([';', '&', '$']));
        if let (Some(grants), 1, true) = (list.grants(), parts, plain) && list.never().is_empty() {
            let alone = |pattern: &ToolPattern| {
                allows(&Allowlist::new(ToolLayer::Run, Some([pattern.clone()]), []), &call)
            };
            let granted = grants.iter().any(|grant| grant.patterns().all(alone));
            prop_assert_eq!(allows(&list, &call), granted, "{:?} {:?}", grants, call);
        }
    }

    #[test]
    fn only_the_calls_of_a_partial_tool_differ(list in narrowed(), call in call()) {
        let (tool, allowed) = (call.0, allows(&list, &call));
        prop_assert!(!allowed || list.may_use(tool), "{} {:?}", tool, list);
        if !list.is_partial(tool) {
            prop_assert_eq!(allowed, list.may_use(tool), "{} {:?}", tool, list);
        }
    }

    /// What is made of allowed commands is allowed, and one that is not spoils it all.
    #[test]
    fn a_compound_command_is_as_its_parts(
        parts in prop::collection::vec(
            select(&["git push", "git log --dry", "rm x", "cd app", "git", "gitx"][..]), 1..5,
        ),
        separators in prop::collection::vec(select(&["; ", " && ", " || ", " | ", "\n", "&"][..]), 4),
        list in narrowed(),
    ) {
        let mut line = String::new();
        for (part, separator) in parts.iter().zip(separators.iter().cycle()) {
            line.push_str(part);
            line.push_str(separator);
        }
        prop_assert_eq!(runs(&list, &line), parts.iter().all(|part| runs(&list, part)), "{}", line);
    }
}

#[test]
fn a_tool_is_there_in_part_where_its_calls_must_be_asked_about() {
    let wide = list(ToolLayer::Default, &["Read", "Bash", "mcp__*", "Edit"]);
    let run = wide.narrow(&list(ToolLayer::Run, &["Bash(git *)", "mcp__shop__buy", "apply_patch"]));
    for (tool, may, partial) in [
        ("Bash", true, true),
        ("shell", true, true),
        ("Edit", true, false),
        ("apply_patch", true, false),
        ("mcp__shop__buy", true, false),
        ("mcp__shop__sell", false, false),
        ("Read", false, false),
        ("WebFetch", false, false),
    ] {
        assert_eq!((run.may_use(tool), run.is_partial(tool)), (may, partial), "{tool}");
    }
    let asked: Vec<_> = run.asked().into_iter().map(String::from).collect();
    assert_eq!(asked, ["Bash"]);
    let never =
        Allowlist::new(ToolLayer::Default, None::<Vec<_>>, patterns(&["Task", "Write(.env)", "W*(x)"]));
    assert!(!never.may_use("Task") && never.may_use("Bash") && !never.is_partial("Bash"));
    assert!(never.is_partial("Write") && never.is_partial("WebFetch"));
    let asked: Vec<_> = never.asked().into_iter().map(String::from).collect();
    assert_eq!(asked, ["W*", "Write"]);
    assert!(Allowlist::all().may_use("anything") && Allowlist::all().asked().is_empty());
}

#[test]
fn a_question_about_a_call_may_have_another_agents_name_for_the_tool() {
    let codex = list(ToolLayer::Run, &["shell(git *)", "apply_patch", "web_search"]);
    assert!(runs(&codex, "git log") && !runs(&codex, "rm x"));
    for tool in ["Edit", "Write", "WebSearch"] {
        assert_eq!(denial(&codex, tool, &json!({})), None, "{tool}");
    }
    assert!(denial(&codex, "Read", &json!({})).is_some());
}
