//! The provider with the real Codex, on a scripted model: the program is named by `LIME_CODEX_BIN`.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up must fail")]

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use lime_core::governance::{EnvValue, ToolPattern};
use lime_core::ports::{AgentProvider, AgentSession, Readiness, ToolAnswer};
use lime_core::runs::{AgentEvent, AgentMode, FailureKind, Outcome, ToolStatus};
use lime_provider_codex::CodexProvider;
use lime_scripted_model::{Ending, Fault, Script, ScriptedModel, Turn};
use serde_json::json;
use support::{KEY, Place, all, living, mark, messages, play, real_codex, until, wait_for};

/// A provider with the real program and a scripted model; the place and the model must outlive it.
fn codex(script: Script) -> Option<(Place, ScriptedModel, CodexProvider)> {
    let binary = real_codex()?;
    let place = Place::new();
    let model = ScriptedModel::start(script).unwrap();
    let provider = place.builder().binary(binary).base_url(model.openai_base_url()).build();
    Some((place, model, provider))
}

fn kind(outcome: &Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn it_edits_a_file() {
    let Some((place, model, codex)) = codex(Script::edit_file("a.txt", "hello\n", "I wrote it.")) else {
        return;
    };
    let mut spec = place.spec("Write it.");
    spec.instructions = "Write politely.".into();
    let (events, report) = play(&codex, spec).await;
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("I wrote it.".into()) }, "{events:#?}");
    assert_eq!(fs::read_to_string(place.workdir.join("a.txt")).unwrap(), "hello\n");
    let diffs = events.iter().filter(|event| matches!(event, AgentEvent::Diff { .. })).count();
    assert_eq!(diffs, 1, "{events:#?}");
    let unknown: Vec<_> = events.iter().filter(|event| matches!(event, AgentEvent::Unknown(_))).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert_eq!(report.usage.turns, 2);
    assert!(report.usage.cost.is_some());
    assert!(model.requests()[0].body.to_string().contains("Write politely."));
    assert!(fs::read_dir(place.state().join("runs")).unwrap().next().is_none(), "a home is left");
}

#[tokio::test]
async fn refusals_of_the_api_are_told_apart() {
    for (fault, expected) in [
        (Fault::unauthorized(), FailureKind::BadCredentials),
        (Fault::rate_limited(Duration::ZERO), FailureKind::RateLimited),
        (Fault::http(400), FailureKind::InvalidRequest),
        (Fault::http(500), FailureKind::Overloaded),
        (Fault::ContextFull, FailureKind::ContextFull),
        (Fault::Quota, FailureKind::QuotaExceeded),
        (Fault::MaxTokens, FailureKind::OutputLimit),
        (Fault::Refusal, FailureKind::Refused),
        (Fault::Cut { after_deltas: 0 }, FailureKind::Network),
    ] {
        let Some((place, _model, codex)) = codex(Script::failing(fault.clone())) else {
            return;
        };
        let (_, report) = play(&codex, place.spec("Go.")).await;
        assert_eq!(kind(&report.outcome), expected, "{fault:?}: {report:?}");
    }
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_network_fault() {
    let Some(binary) = real_codex() else { return };
    let place = Place::new();
    let codex = place.builder().binary(binary).base_url("http://127.0.0.1:1/v1").build();
    let (_, report) = play(&codex, place.spec("Go.")).await;
    assert_eq!(kind(&report.outcome), FailureKind::Network);
}

#[tokio::test]
async fn cancelling_in_a_tool_leaves_no_process() {
    let mark = mark();
    let script = Script::run_command(format!("sleep 86{mark} & sleep 87{mark}"), "Slept.");
    let Some((place, _model, codex)) = codex(script) else { return };
    let mut session = codex.start(place.spec("Sleep.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Tool { status: ToolStatus::Started, .. })).await;
    wait_for("the tool runs", || living(&mark) > 0).await;
    let began = Instant::now();
    session.cancel().await;
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!(living(&mark), 0);
    let report = session.report().await;
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!(report.session_id.is_some());
}

#[tokio::test]
async fn a_thread_is_resumed_and_told_what_is_new() {
    let story = Script::new().turn(Turn::new().say("First.")).turn(Turn::new().say("Second."));
    let Some((place, model, codex)) = codex(story) else { return };
    let mut first = place.spec("Begin with apples.");
    first.instructions = "Be brief.".into();
    let (_, begun) = play(&codex, first).await;
    let mut second = place.spec("Go on with pears.");
    second.instructions = "Be thorough.".into();
    second.resume = begun.session_id.clone();
    let (events, report) = play(&codex, second).await;
    assert_eq!(messages(&events), ["Second."]);
    assert_eq!(report.session_id, begun.session_id);
    assert_eq!(report.usage.turns, 1);
    assert_eq!(report.usage.input_tokens, begun.usage.input_tokens, "only this session's are counted");
    let asked = model.requests().last().unwrap().body.to_string();
    for told in ["apples", "pears", "Be brief.", "Be thorough."] {
        assert!(asked.contains(told), "{told}");
    }
}

#[tokio::test]
async fn a_cancelled_thread_is_resumed() {
    let mark = mark();
    let script = Script::new()
        .turn(Turn::new().run_command(format!("sleep 86{mark}")))
        .then(Ending::Say("Back again.".into()));
    let Some((place, _model, codex)) = codex(script) else { return };
    let mut session = codex.start(place.spec("Sleep.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Tool { .. })).await;
    session.cancel().await;
    let mut again = place.spec("Wake up.");
    again.resume = session.report().await.session_id;
    let (events, _) = play(&codex, again).await;
    assert_eq!(messages(&events), ["Back again."]);
}

#[tokio::test]
async fn a_review_can_change_nothing() {
    let script = Script::new()
        .turn(Turn::new().write_file("a.txt", "hello\n"))
        .turn(Turn::new().run_command("touch b.txt"))
        .turn(Turn::new().say("I could not."));
    let Some((place, model, codex)) = codex(script) else { return };
    let mut spec = place.spec("Review it.");
    spec.request.mode = AgentMode::Review;
    let (events, report) = play(&codex, spec).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
    assert_eq!(fs::read_dir(&place.workdir).unwrap().count(), 0, "{events:#?}");
    assert_eq!(report.denials.len(), 1, "{events:#?}");
    assert!(model.requests()[0].body.to_string().contains("Answer with your review."));
}

#[tokio::test]
async fn tools_that_are_not_allowed_are_not_there() {
    let Some((place, model, codex)) = codex(Script::text("Done.")) else {
        return;
    };
    play(&codex, place.with_tools(&["Edit"])).await;
    play(&codex, place.spec("Go.")).await;
    let offered: Vec<String> =
        model.requests().iter().map(|request| request.body["tools"].to_string()).collect();
    for tool in ["exec_command", "web_search", "view_image"] {
        assert!(!offered[0].contains(&format!("\"{tool}\"")), "{tool}: {}", offered[0]);
        assert!(offered[1].contains(&format!("\"{tool}\"")), "{tool}: {}", offered[1]);
    }
    for tool in ["create_goal", "spawn_agent"] {
        assert!(!offered[1].contains(tool), "{tool}: {}", offered[1]);
    }
}

#[tokio::test]
async fn the_tools_shell_has_no_key_and_no_home_of_codex() {
    let Some((place, _model, codex)) = codex(Script::run_command("env", "Looked.")) else {
        return;
    };
    let mut spec = place.spec("Look.");
    spec.env = vec![EnvValue::secret("OTHER_SECRET", "another-secret").unwrap()];
    let (events, _) = play(&codex, spec).await;
    let output = events.iter().find_map(|event| match event {
        AgentEvent::Tool { output: Some(output), .. } => Some(output),
        _ => None,
    });
    let output = output.expect("the command said something");
    assert!(output.contains("PATH="), "{output}");
    for absent in [KEY, "OPENAI_API_KEY", "CODEX_HOME", "OTHER_SECRET", "[secret]"] {
        assert!(!output.contains(absent), "{absent}: {output}");
    }
}

/// A repository's own settings can name programs, which Codex starts outside of its sandbox.
#[tokio::test]
async fn a_repositorys_own_settings_start_nothing() {
    let Some((place, model, codex)) = codex(Script::text("Done.")) else {
        return;
    };
    let started = place.folder.path().join("started");
    let settings = format!(
        "[mcp_servers.evil]\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"touch {}; cat\"]\n",
        started.display()
    );
    let git = |folder: &std::path::Path, args: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.test"])
            .args(args)
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&place.workdir, &["init", "-q"]);
    fs::create_dir(place.workdir.join(".codex")).unwrap();
    fs::write(place.workdir.join(".codex/config.toml"), settings).unwrap();
    git(&place.workdir, &["add", "-A"]);
    git(&place.workdir, &["commit", "-qm", "settings"]);
    let worktree = place.folder.path().join("tree");
    git(&place.workdir, &["worktree", "add", "-q", worktree.to_str().unwrap()]);
    for workdir in [place.workdir.clone(), worktree] {
        let mut spec = place.spec("Go.");
        spec.workdir = workdir;
        let (_, report) = play(&codex, spec).await;
        assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
        assert!(!started.exists());
    }
    // And they would be, if they were trusted.
    let trusting = place
        .builder()
        .binary(real_codex().unwrap())
        .base_url(model.openai_base_url())
        .project_settings(true)
        .build();
    play(&trusting, place.spec("Go.")).await;
    wait_for("the trusted settings are loaded", || started.exists()).await;
}

#[tokio::test]
async fn it_is_ready() {
    let Some((_place, _model, codex)) = codex(Script::text("Done.")) else {
        return;
    };
    let ready = codex.readiness().await;
    assert!(matches!(&ready, Readiness::Ready(found) if !found.contains(KEY)), "{ready:?}");
}

fn patterns(tools: &[&str]) -> Vec<ToolPattern> {
    tools.iter().map(|tool| ToolPattern::parse(*tool).unwrap()).collect()
}

/// Waits for a question: the call's id, and the question.
async fn question(session: &mut Box<dyn AgentSession>) -> (String, AgentEvent) {
    loop {
        let event = session.next_event().await.expect("a question comes");
        if let AgentEvent::Approval { call_id: Some(call_id), .. } = &event {
            return (call_id.clone(), event);
        }
    }
}

#[tokio::test]
async fn several_questions_are_answered_in_any_order() {
    let turn = Turn::new().run_command("touch a").run_command("touch b").run_command("touch c");
    let Some((place, model, codex)) = codex(Script::new().turn(turn)) else { return };
    let mut spec = place.spec("Touch them.");
    spec.ask = patterns(&["shell(touch *)"]);
    let mut session = codex.start(spec).await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let (call, event) = question(&mut session).await;
        let AgentEvent::Approval { payload: Some(payload), action, .. } = event else { panic!() };
        assert_eq!(action, "shell");
        asked.push((payload["command"].as_str().unwrap().to_owned(), call));
    }
    asked.sort();
    for (command, call) in asked.into_iter().rev() {
        let answer = if command == "touch b" { ToolAnswer::Deny("Not b.".into()) } else { ToolAnswer::Allow };
        session.answer(&call, answer).await;
    }
    let events = all(&mut session).await;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{events:#?}");
    assert_eq!(report.denials.len(), 1);
    let there = |file: &str| place.workdir.join(file).exists();
    assert!(there("a") && !there("b") && there("c"), "{events:#?}");
    assert!(model.requests().last().unwrap().body.to_string().contains("Not b."));
}

/// A person's yes is no way out of the sandbox: neither in a run that reviews, nor where a call asks to leave it.
#[tokio::test]
async fn leave_never_goes_beyond_what_the_run_may_do() {
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = outside.path().join("made");
    let escalates =
        json!({ "cmd": format!("touch {}", path.display()), "sandbox_permissions": "require_escalated" });
    let script = Script::new()
        .turn(Turn::new().run_command("touch made"))
        .turn(Turn::new().call_tool("exec_command", escalates))
        .turn(Turn::new().run_command(format!("touch {}", path.display())));
    let Some((place, _model, codex)) = codex(script) else { return };
    let mut spec = place.spec("Review it.");
    spec.request.mode = AgentMode::Review;
    spec.ask = patterns(&["shell"]);
    let mut session = codex.start(spec).await.unwrap();
    for _ in 0..3 {
        let (call, _) = question(&mut session).await;
        session.answer(&call, ToolAnswer::Allow).await;
    }
    let events = all(&mut session).await;
    let report = session.report().await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
    assert!(!place.workdir.join("made").exists() && !path.exists(), "{events:#?}");
    assert_eq!(report.denials.len(), 1, "what asked to leave the sandbox was denied: {events:#?}");
}

#[tokio::test]
async fn commands_cannot_answer_in_a_persons_place() {
    let place = Place::new();
    let asks = format!("{}/runs/*/home", place.state().display());
    let tries = format!("for d in {asks} {asks}/asks; do touch $d/x && echo WROTE; ls $d; done; true");
    let Some(binary) = real_codex() else { return };
    let model = ScriptedModel::start(Script::run_command(tries, "I tried.")).unwrap();
    let codex = place.builder().binary(binary).base_url(model.openai_base_url()).build();
    let mut spec = place.spec("Try.");
    spec.ask = patterns(&["shell(git push *)"]);
    let (events, report) = play(&codex, spec).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
    let output = events.iter().find_map(|event| match event {
        AgentEvent::Tool { output: Some(output), .. } => Some(output),
        _ => None,
    });
    let output = output.expect("the command said something");
    assert!(output.contains("config.toml") && !output.contains("WROTE"), "{output}");

    let mut spec = place.spec("Try.");
    spec.ask = patterns(&["shell"]);
    let inside = CodexProvider::builder(place.workdir.join("state")).api_key(KEY).binary("codex").build();
    assert!(inside.start(spec).await.is_err(), "a state folder that commands may write");
}

#[tokio::test]
async fn a_secret_in_a_question_is_hidden_and_the_call_has_it() {
    let Some((place, _model, codex)) =
        codex(Script::run_command("echo hunter2-hunter2 > token.txt", "Done."))
    else {
        return;
    };
    let mut spec = place.spec("Write it.");
    spec.env = vec![EnvValue::secret("TOKEN", "hunter2-hunter2").unwrap()];
    spec.ask = patterns(&["Bash"]);
    let mut session = codex.start(spec).await.unwrap();
    let (call, event) = question(&mut session).await;
    assert!(
        !format!("{event:?}").contains("hunter2") && format!("{event:?}").contains("[secret]"),
        "{event:?}"
    );
    session.answer(&call, ToolAnswer::Allow).await;
    all(&mut session).await;
    assert_eq!(fs::read_to_string(place.workdir.join("token.txt")).unwrap(), "hunter2-hunter2\n");
}

#[tokio::test]
async fn what_is_said_before_it_begins_is_heard() {
    let Some((place, model, codex)) = codex(Script::text("Heard.")) else { return };
    let mut session = codex.start(place.spec("Begin.")).await.unwrap();
    assert!(session.send("And mind the pears.").await.unwrap());
    let events = all(&mut session).await;
    assert!(!session.send("Too late.").await.unwrap());
    assert!(matches!(session.report().await.outcome, Outcome::Succeeded { .. }), "{events:#?}");
    assert!(model.requests().last().unwrap().body.to_string().contains("pears"));
}

#[tokio::test]
async fn there_is_no_web_search_where_it_would_need_leave() {
    let Some((place, model, codex)) = codex(Script::text("Done.")) else { return };
    let mut spec = place.spec("Go.");
    spec.ask = patterns(&["Web*"]);
    play(&codex, spec).await;
    assert!(!model.requests()[0].body["tools"].to_string().contains("web_search"));
}
