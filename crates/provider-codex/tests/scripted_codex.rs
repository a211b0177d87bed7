//! The provider against a Codex that is a shell script: what a real one never does, or seldom.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use lime_core::ErrorKind;
use lime_core::governance::{EnvValue, PriceTable, ToolPattern};
use lime_core::ports::{AgentProvider, Readiness};
use lime_core::runs::{AgentEvent, Constraints, FailureKind, Limit, Outcome, ToolStatus};
use lime_provider_codex::{CONFIGURED_ENV, CodexProvider};
use support::{KEY, Place, THREAD, all, living, mark, messages, play, until, wait_for};

/// The port's 2 s, and half a second for a busy machine.
const CANCEL_WITHIN: Duration = Duration::from_millis(2_500);

fn kind(outcome: &Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failure) => failure.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_turn_is_played() {
    let place = Place::new();
    let codex = place.scripted("message hello\n used 10\n ended completed", "").build();
    let (events, report) = play(&codex, place.spec("Hello?")).await;
    assert_eq!(messages(&events), ["hello"]);
    assert_eq!(report.outcome, Outcome::Succeeded { summary: Some("hello".into()) });
    assert_eq!(report.session_id.as_deref(), Some(THREAD));
    assert_eq!((report.usage.turns, report.usage.input_tokens), (1, 10));
    assert!(report.usage.cost.is_some());
    assert!(fs::read_dir(place.state().join("runs")).unwrap().next().is_none(), "a home is left");
}

#[tokio::test]
async fn the_environment_is_what_is_documented() {
    let place = Place::new();
    // The environment that the shell was given, before it adds its own.
    let codex = place
        .scripted("tr '\\0' '\\n' < /proc/$$/environ > env.txt\n ended completed", "")
        .pass("LANG", "C")
        .base_url("http://127.0.0.1:1/v1")
        .build();
    let mut spec = place.spec("Look around.");
    spec.env = vec![EnvValue::secret("GREETING", "hi").unwrap()];
    play(&codex, spec).await;
    let text = fs::read_to_string(place.workdir.join("env.txt")).unwrap();
    let found: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    let mut expected = BTreeSet::from(["HOME", "PATH", "LANG", "GREETING", lime_provider_cli::RUN_MARK]);
    expected.extend(CONFIGURED_ENV);
    assert_eq!(found, expected);
    assert!(text.contains(&format!("OPENAI_API_KEY={KEY}\n")));
}

#[tokio::test]
async fn a_runs_own_key_goes_before_the_providers_and_a_login_needs_none() {
    let place = Place::new();
    let look =
        "echo \"${OPENAI_API_KEY-none}\" > key.txt; cp \"$CODEX_HOME/config.toml\" .\n ended completed";
    let mut spec = place.spec("Look.");
    spec.env = vec![EnvValue::secret("OPENAI_API_KEY", "sk-of-the-run-itself").unwrap()];
    play(&place.scripted(look, "").build(), spec).await;
    assert_eq!(fs::read_to_string(place.workdir.join("key.txt")).unwrap(), "sk-of-the-run-itself\n");

    let login = tempfile::tempdir().unwrap();
    fs::write(login.path().join("auth.json"), "{}").unwrap();
    let keyless = CodexProvider::builder(place.state())
        .binary(place.folder.path().join("codex"))
        .pass("PATH", std::env::var("PATH").unwrap())
        .login(login.path())
        .build();
    let (_, report) = play(&keyless, place.spec("Look.")).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
    assert_eq!(fs::read_to_string(place.workdir.join("key.txt")).unwrap(), "none\n");
    let config = fs::read_to_string(place.workdir.join("config.toml")).unwrap();
    assert!(config.contains("requires_openai_auth = true"), "{config}");
}

#[tokio::test]
async fn secrets_are_hidden() {
    let place = Place::new();
    let codex = place
        .scripted(
            "message \"the key is $OPENAI_API_KEY\"\n echo \"oh $OPENAI_API_KEY\" >&2\n ended completed",
            "",
        )
        .build();
    let (events, report) = play(&codex, place.spec("Tell me.")).await;
    assert_eq!(messages(&events), ["the key is [secret]"]);
    let all = format!("{report:?} {codex:?}");
    assert!(!all.contains(KEY), "{all}");
    assert!(all.contains("oh [secret]"), "{all}");
}

#[tokio::test]
async fn what_is_not_understood_is_data() {
    let place = Place::new();
    let odd = r#"say 'not json'; say ''; say '{"method":"hologram/shown","params":{"depth":3}}'; say '[1]'
      say '{"method":"item/completed","params":{"item":{"type":"hologram","id":"h"}}}'
      say '{"id":99,"result":{}}'; printf '\377\n'; ended completed"#;
    let (events, report) = play(&place.scripted(odd, "").build(), place.spec("Go.")).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }));
    let unknown = events.iter().filter(|event| matches!(event, AgentEvent::Unknown(_))).count();
    let logs = events.iter().filter(|event| matches!(event, AgentEvent::Log { .. })).count();
    assert_eq!((unknown, logs), (3, 2), "{events:#?}");
}

#[tokio::test]
async fn a_question_that_nobody_knows_is_answered() {
    let place = Place::new();
    let asks = r#"say '{"id":"q","method":"new/thing","params":{}}'; read -r answer
      case "$answer" in *'"id":"q"'*-32601*) message refused ;; *) message "odd" ;; esac
      say '{"id":7,"method":"item/commandExecution/requestApproval","params":{"itemId":"c"}}'; read -r answer
      case "$answer" in *'"decision":"decline"'*) message declined ;; *) message "odd" ;; esac
      ended completed"#;
    let (events, _) = play(&place.scripted(asks, "").build(), place.spec("Go.")).await;
    assert_eq!(messages(&events), ["refused", "declined"]);
}

#[tokio::test]
async fn an_early_death_is_a_crash() {
    let place = Place::new();
    for (script, expected) in [
        ("read -r line; echo 'Segmentation fault' >&2; exit 3", FailureKind::Crashed),
        ("echo 'Error: unknown configuration field `x`' >&2; exit 1", FailureKind::InvalidRequest),
        ("read -r line; kill -9 $$", FailureKind::Crashed),
        ("exit 0", FailureKind::Crashed),
    ] {
        let (_, report) = play(&place.shell(script).build(), place.spec("Go.")).await;
        assert_eq!(kind(&report.outcome), expected, "{script}: {report:?}");
    }
    let (_, report) =
        play(&place.scripted("message hi\n tool started t\n exit 4", "").build(), place.spec("Go.")).await;
    assert_eq!(kind(&report.outcome), FailureKind::Crashed);
    assert!(report.diagnostics.unwrap().contains("exit code 4"));
    assert_eq!(report.session_id.as_deref(), Some(THREAD));
}

#[tokio::test]
async fn a_refused_call_is_the_outcome() {
    let place = Place::new();
    let refuses = r#"while IFS= read -r line; do case "$line" in
        *'"initialize"'*) echo '{"id":1,"result":{}}' ;;
        *thread/start*) echo '{"id":2,"error":{"code":-32600,"message":"no rollout found for thread id x"}}' ;;
      esac; done"#;
    let (_, report) = play(&place.shell(refuses).build(), place.spec("Go.")).await;
    assert_eq!(kind(&report.outcome), FailureKind::SessionGone);
}

#[tokio::test]
async fn cancelling_ends_what_does_not_listen() {
    let place = Place::new();
    let mark = mark();
    let deaf = format!("trap '' TERM INT HUP; message ready; while :; do sleep 0.{mark}; done");
    let mut session = place.scripted(&deaf, "").build().start(place.spec("Go.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
    let began = Instant::now();
    session.cancel().await;
    assert!(began.elapsed() < CANCEL_WITHIN, "{:?}", began.elapsed());
    assert_eq!(living(&mark), 0);
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn cancelling_ends_daemons_too() {
    let place = Place::new();
    let mark = mark();
    let forks = format!(
        "(setsid sleep 86{mark} >/dev/null 2>&1 &) ; (setsid env -i /bin/sleep 87{mark} &); message ready"
    );
    let codex = place.scripted(&forks, "ended interrupted").build();
    let mut session = codex.start(place.spec("Go.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
    wait_for("the daemons run", || living(&mark) == 2).await;
    session.cancel().await;
    assert_eq!(living(&mark), 0);
    let report = session.report().await;
    assert_eq!(report.outcome, Outcome::Cancelled);
    assert!(report.diagnostics.unwrap().contains("leftover"));
}

#[tokio::test]
async fn a_cancelled_agent_is_cancelled_whatever_it_says() {
    let place = Place::new();
    let codex = place.scripted("message ready", "message bye\n ended completed").build();
    let mut session = codex.start(place.spec("Go.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
    session.cancel().await;
    assert_eq!(messages(&all(&mut session).await), ["bye"]);
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_flood_is_stopped_in_time() {
    let place = Place::new();
    let mark = mark();
    let flood = format!(
        "message ready; yes '{{\"method\":\"item/agentMessage/delta\",\"params\":{{\"delta\":\"{mark}\"}}}}'"
    );
    let mut session = place.scripted(&flood, "").build().start(place.spec("Go.")).await.unwrap();
    for _ in 0..1_000 {
        session.next_event().await.unwrap();
    }
    let began = Instant::now();
    session.cancel().await;
    assert!(began.elapsed() < CANCEL_WITHIN, "{:?}", began.elapsed());
    assert_eq!(living(&mark), 0);
    assert_eq!(session.report().await.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_line_without_end_is_cut_and_marked() {
    let place = Place::new();
    let long = "head -c 20000000 /dev/zero | tr '\\0' x; echo; message after\n ended completed";
    let (events, report) = play(&place.scripted(long, "").build(), place.spec("Go.")).await;
    assert_eq!(messages(&events), ["after"]);
    let AgentEvent::Log { text } = &events[1] else {
        panic!("{:?}", events[1].type_name());
    };
    assert!(text.contains("20000000 bytes") && text.len() < 1_000, "{text}");
    assert!(report.diagnostics.unwrap().contains("1 lines cut"));
}

#[tokio::test]
async fn no_event_is_lost_in_a_select() {
    let place = Place::new();
    let slow = "i=0; while [ $i -lt 40 ]; do message \"$i\"; i=$((i+1)); sleep 0.005; done; ended completed";
    let mut session = place.scripted(slow, "").build().start(place.spec("Count.")).await.unwrap();
    let mut events = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_millis(1), session.next_event()).await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(_) => {}
        }
    }
    let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    assert_eq!(messages(&events), expected);
}

#[tokio::test]
async fn the_turns_are_limited() {
    let place = Place::new();
    let calls =
        "tool started a; tool completed a; used 10; tool started b; tool completed b; used 20; message on";
    let codex = place.scripted(calls, "ended interrupted").build();
    let constraints = Constraints { max_turns: Some(2), ..Constraints::default() };
    let (_, report) = play(&codex, place.limited(constraints)).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Turns));
    assert_eq!(report.usage.turns, 2);
}

#[tokio::test]
async fn the_last_turn_that_is_allowed_may_end_well() {
    let place = Place::new();
    let calls = "tool started a; tool completed a; used 10; message done; used 20; ended completed";
    let constraints = Constraints { max_turns: Some(2), ..Constraints::default() };
    let (_, report) = play(&place.scripted(calls, "").build(), place.limited(constraints)).await;
    assert!(matches!(report.outcome, Outcome::Succeeded { .. }), "{report:?}");
}

#[tokio::test]
async fn the_cost_is_limited_and_must_be_known() {
    let place = Place::new();
    let constraints = || Constraints { max_cost_cents: Some(1), ..Constraints::default() };
    let calls = "tool started a; tool completed a; used 1000000";
    let codex = place.scripted(calls, "ended interrupted").build();
    let (_, report) = play(&codex, place.limited(constraints())).await;
    assert_eq!(report.outcome, Outcome::Limited(Limit::Cost));

    let mut nothing = PriceTable::shipped();
    nothing.models.clear();
    let codex = place.scripted(calls, "").prices(nothing).build();
    let (_, report) = play(&codex, place.limited(constraints())).await;
    assert_eq!(kind(&report.outcome), FailureKind::InvalidRequest);
    assert_eq!(report.usage.turns, 0, "the turn was not begun");
}

#[tokio::test]
async fn calls_that_the_end_cuts_off_are_closed() {
    let place = Place::new();
    let codex = place.scripted("tool started t; ended completed", "").build();
    let (events, _) = play(&codex, place.spec("Go.")).await;
    let statuses: Vec<ToolStatus> = events
        .iter()
        .filter_map(|event| match event {
            AgentEvent::Tool { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [ToolStatus::Started, ToolStatus::Failed]);
}

#[tokio::test]
async fn dropping_the_session_ends_it() {
    let place = Place::new();
    let mark = mark();
    let codex = place.scripted(&format!("message ready; sleep 86{mark}"), "").build();
    let mut session = codex.start(place.spec("Go.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
    wait_for("the tool runs", || living(&mark) > 0).await;
    drop(session);
    wait_for("nothing is left", || living(&mark) == 0).await;
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let place = Place::new();
    let absent = place.builder().binary("no/such/codex").build();
    assert!(matches!(absent.readiness().await, Readiness::MissingBinary(_)));
    let (events, report) = play(&absent, place.spec("Go.")).await;
    assert_eq!((events, kind(&report.outcome)), (Vec::new(), FailureKind::MissingBinary));

    let path = place.folder.path().join("codex");
    let ready = place.scripted("", "").build().readiness().await;
    let Readiness::Ready(found) = ready else { panic!("{ready:?}") };
    assert!(found.contains("0.0.1") && !found.contains(KEY), "{found}");
    let keyless = CodexProvider::builder(place.state()).binary(&path).build();
    assert!(matches!(keyless.readiness().await, Readiness::MissingCredentials(_)));
    let (_, report) = play(&keyless, place.spec("Go.")).await;
    assert_eq!(kind(&report.outcome), FailureKind::MissingCredentials);
    let loggedout = CodexProvider::builder(place.state()).binary(&path).login(place.folder.path()).build();
    assert!(matches!(loggedout.readiness().await, Readiness::MissingCredentials(_)));

    let codex = place.builder().binary(&path).build();
    let mut nowhere = place.spec("Go.");
    nowhere.workdir = place.folder.path().join("gone");
    assert_eq!(kind(&play(&codex, nowhere).await.1.outcome), FailureKind::Workspace);
    for id in [THREAD, "../../etc", "x"] {
        let mut unknown = place.spec("Go.");
        unknown.resume = Some(id.to_owned());
        assert_eq!(kind(&play(&codex, unknown).await.1.outcome), FailureKind::SessionGone);
    }
}

#[tokio::test]
async fn what_codex_cannot_do_is_refused() {
    let place = Place::new();
    let codex = place.scripted("", "").build();
    let mut moved = place.spec("Go.");
    moved.env = vec![EnvValue::secret("CODEX_HOME", "/").unwrap()];
    for spec in [place.with_tools(&["Bash(git *)"]), place.with_tools(&["Read"]), moved] {
        match codex.start(spec).await {
            Ok(_) => panic!("it was started"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
        }
    }
}

#[tokio::test]
async fn a_codex_that_does_not_ask_is_not_let_work() {
    let place = Place::new();
    let asking = |place: &Place| {
        let mut spec = place.spec("Go.");
        spec.ask = vec![ToolPattern::parse("shell").unwrap()];
        spec
    };
    // A call that did not come to the gate, a hook that failed, and a Codex without hooks.
    let unasked = place.scripted("tool started a; sleep 60", "").build();
    let (events, report) = play(&unasked, asking(&place)).await;
    assert_eq!(kind(&report.outcome), FailureKind::InvalidRequest, "{events:#?}");
    let broken = place.scripted("hook started running; hook completed failed; sleep 60", "").build();
    assert_eq!(kind(&play(&broken, asking(&place)).await.1.outcome), FailureKind::InvalidRequest);
    let hookless = r#"while IFS= read -r line; do case "$line" in
        *'"initialize"'*) echo '{"id":1,"result":{}}' ;;
        *hooks/list*) echo '{"id":6,"error":{"code":-32601,"message":"unknown method"}}' ;;
        *thread/start*) touch begun ;;
      esac; done"#;
    let (_, report) = play(&place.shell(hookless).build(), asking(&place)).await;
    assert_eq!(kind(&report.outcome), FailureKind::InvalidRequest);
    assert!(!place.workdir.join("begun").exists());
}

#[tokio::test]
async fn a_message_that_codex_does_not_take_is_told() {
    let place = Place::new();
    let refuses = r#"message hi; IFS= read -r line; id=${line#*'"id":'}; id=${id%%,*}
      say '{"id":'"$id"',"error":{"code":-32600,"message":"too late"}}'; ended completed"#;
    let mut session = place.scripted(refuses, "").build().start(place.spec("Go.")).await.unwrap();
    until(&mut session, |event| matches!(event, AgentEvent::Message { .. })).await;
    assert!(session.send("One more thing.").await.unwrap());
    let events = all(&mut session).await;
    let told = |event: &AgentEvent| matches!(event, AgentEvent::Log { text } if text.contains("too late"));
    assert!(events.iter().any(told), "{events:#?}");
    assert!(matches!(session.report().await.outcome, Outcome::Succeeded { .. }));
}
