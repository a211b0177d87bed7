//! Nothing is left, whatever the tools do; and nothing else is hit.

use std::path::Path;
use std::time::{Duration, Instant};

use lime_provider_cli::{CliExit, CliProcess, RUN_MARK, StopPlan};

use crate::scene::{alive, eventually, exists, parent, ready, spawn, token};

/// The requirement: how long a stop may take, from the call to the last process gone.
const STOP_BOUND: Duration = Duration::from_secs(2);

/// A daemon as tools make them: forked twice, in a session of its own, deaf to polite signals.
const DAEMON: &str = r#"(setsid sh -c 'trap "" TERM INT HUP; sleep $T & sleep $T; wait' >/dev/null 2>&1 &);"#;

/// Stops the agent and checks that it took no longer than it may and that nothing is left, zombies included.
async fn stop_clean(agent: &mut CliProcess, plan: StopPlan, token: &str) -> CliExit {
    let supervisor = parent(agent.pid()).unwrap();
    let mut pids = alive(token);
    pids.extend([agent.pid(), supervisor]);
    let begin = Instant::now();
    let exit = agent.stop(plan).await;
    assert!(begin.elapsed() < STOP_BOUND, "the stop took {:?}", begin.elapsed());
    assert!(!exit.survivors);
    assert!(alive(token).is_empty());
    for pid in pids {
        assert!(!exists(pid), "{pid} is left, at least as a zombie");
    }
    exit
}

#[tokio::test]
async fn daemons_in_sessions_of_their_own_are_killed() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} {DAEMON} sleep 0.1; echo ready; sleep $T"), &token);
    ready(&mut agent).await;
    eventually("both daemons sleep", || alive(&token).len() == 5);
    let exit = stop_clean(&mut agent, StopPlan::NOW, &token).await;
    assert!(exit.forced && exit.signal == Some(9) && exit.code.is_none());
    assert!(exit.leftovers_killed >= 2, "{exit:?}");
    assert_eq!(agent.stop(StopPlan::default()).await, exit, "a second stop answers the same");
}

#[tokio::test]
async fn daemons_with_a_cleared_environment_are_killed() {
    let token = token();
    let script =
        format!(r#"(env -i PATH="$PATH" T=$T sh -c '{}' &) ; echo ready; sleep $T"#, "setsid sleep $T");
    let mut agent = spawn(&script, &token);
    ready(&mut agent).await;
    eventually("the daemon sleeps", || alive(&token).len() == 2);
    stop_clean(&mut agent, StopPlan::NOW, &token).await;
}

#[tokio::test]
async fn an_agent_that_ignores_everything_is_killed_in_time() {
    let token = token();
    let mut agent = spawn("trap '' TERM INT HUP; echo ready; while :; do sleep $T; done", &token);
    ready(&mut agent).await;
    let exit = stop_clean(&mut agent, StopPlan::default(), &token).await;
    assert!(exit.forced);
}

#[tokio::test]
async fn an_agent_may_end_in_order() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} echo ready; read line; exit 3"), &token);
    ready(&mut agent).await;
    let exit = stop_clean(&mut agent, StopPlan::default(), &token).await;
    assert_eq!((exit.code, exit.signal, exit.forced), (Some(3), None, false));

    let mut agent = spawn("trap 'exit 4' INT; echo ready; while :; do sleep 0.02; done", &token);
    ready(&mut agent).await;
    let exit = stop_clean(&mut agent, StopPlan::default(), &token).await;
    assert_eq!((exit.code, exit.forced), (Some(4), false));
}

#[tokio::test]
async fn the_end_of_the_agent_ends_its_tools() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} sleep $T & sleep 0.2; echo done; exit 0"), &token);
    // The second tool holds stdout open: the stream ends only because it is killed.
    let mut last = None;
    while let Some(line) = agent.next_line().await.unwrap() {
        last = Some(line.text);
    }
    assert_eq!(last.as_deref(), Some("done"));
    let exit = agent.finish().await;
    assert!(exit.success() && !exit.survivors && exit.leftovers_killed >= 2, "{exit:?}");
    assert!(alive(&token).is_empty());
}

#[tokio::test]
async fn a_storm_of_forks_is_ended() {
    let token = token();
    let storm = r#"trap "" TERM INT; i=0; while [ $i -lt 300 ]; do setsid sleep $T & i=$((i+1)); done; wait"#;
    let mut agent = spawn(&format!("(setsid sh -c '{storm}' &); echo ready; sleep $T"), &token);
    ready(&mut agent).await;
    eventually("the storm is on", || alive(&token).len() > 20);
    stop_clean(&mut agent, StopPlan::NOW, &token).await;
}

/// How many generations of the fleeing process there were so far; all of them would be 20000.
fn fled(script: &Path) -> u32 {
    let at = std::fs::read_to_string(script.with_extension("at")).unwrap_or_default();
    at.trim().parse().map_or(0, |left: u32| 20_000 - left)
}

/// Each generation starts the next and ends at once, so that no number lives long enough to be looked up.
#[tokio::test]
async fn a_process_that_always_flees_is_caught() {
    let token = token();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("flee");
    std::fs::write(&script, "[ $2 -gt 0 ] && sh $0 $1 $(($2 - 1)) &\necho $2 >$0.at\nexit\n").unwrap();
    let start = format!("(setsid sh {} $T 20000 &); echo ready; sleep $T", script.display());
    let mut agent = spawn(&start, &token);
    ready(&mut agent).await;
    eventually("it flees", || fled(&script) > 10);
    stop_clean(&mut agent, StopPlan::NOW, &token).await;
    assert!(fled(&script) < 20_000, "it ended by itself");
}

#[tokio::test]
async fn a_process_that_flees_into_ever_new_sessions_is_caught() {
    let token = token();
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("flee");
    std::fs::write(&script, "[ $2 -gt 0 ] && setsid sh $0 $1 $(($2 - 1)) &\necho $2 >$0.at\nexit\n").unwrap();
    let start = format!("(setsid sh {} $T 20000 &); echo ready; sleep $T", script.display());
    let mut agent = spawn(&start, &token);
    ready(&mut agent).await;
    eventually("it flees", || fled(&script) > 10);
    stop_clean(&mut agent, StopPlan::NOW, &token).await;
    assert!(fled(&script) < 20_000, "it ended by itself");
}

#[tokio::test]
async fn a_flood_does_not_hinder_the_stop() {
    let token = token();
    let mut agent = spawn("trap '' INT; echo ready; yes $T", &token);
    ready(&mut agent).await;
    stop_clean(&mut agent, StopPlan::default(), &token).await;
}

#[tokio::test]
async fn dropping_kills() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} echo ready; sleep $T"), &token);
    ready(&mut agent).await;
    eventually("the daemon sleeps", || alive(&token).len() == 3);
    let (pid, supervisor) = (agent.pid(), parent(agent.pid()).unwrap());
    drop(agent);
    eventually("everything is gone", || alive(&token).is_empty() && !exists(pid));
    let end = Instant::now() + STOP_BOUND;
    while exists(supervisor) {
        assert!(Instant::now() < end, "the supervisor is left, at least as a zombie");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_killed_supervisor_does_not_save_the_tools() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} sleep 0.1; echo ready; sleep $T"), &token);
    ready(&mut agent).await;
    eventually("the daemon sleeps", || alive(&token).len() == 3);
    let supervisor = rustix::process::Pid::from_raw(parent(agent.pid()).unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let begin = Instant::now();
    let exit = agent.stop(StopPlan::default()).await;
    assert!(begin.elapsed() < STOP_BOUND);
    assert_eq!((exit.code, exit.signal, exit.survivors), (None, None, false));
    eventually("everything is gone", || alive(&token).is_empty());
}

#[tokio::test]
async fn a_stopped_supervisor_still_kills() {
    let token = token();
    let mut agent = spawn(&format!("{DAEMON} echo ready; sleep $T"), &token);
    ready(&mut agent).await;
    let supervisor = rustix::process::Pid::from_raw(parent(agent.pid()).unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(supervisor, rustix::process::Signal::STOP).unwrap();
    stop_clean(&mut agent, StopPlan::NOW, &token).await;
}

#[tokio::test]
async fn others_are_untouched() {
    let (mine, other, sibling) = (token(), token(), token());
    let mut bystander = std::process::Command::new("sleep").arg(&sibling).spawn().unwrap();
    let mut one = spawn(&format!("{DAEMON} echo ready; sleep $T"), &mine);
    let mut two = spawn(&format!("{DAEMON} echo ready; sleep $T"), &other);
    ready(&mut one).await;
    ready(&mut two).await;
    eventually("both daemons sleep", || alive(&mine).len() == 3 && alive(&other).len() == 3);
    stop_clean(&mut one, StopPlan::NOW, &mine).await;
    assert_eq!(alive(&other).len(), 3, "the other run lives");
    stop_clean(&mut two, StopPlan::NOW, &other).await;
    assert!(bystander.try_wait().unwrap().is_none(), "the worker's own child lives");
    bystander.kill().unwrap();
    assert!(!bystander.wait().unwrap().success(), "and its status is ours to take");
}

#[tokio::test]
async fn the_environment_is_exactly_the_list() {
    let command = lime_provider_cli::CliCommand::new("env")
        .env("B", "two")
        .env("A", "one")
        .pass_env(["PATH", "NO_SUCH_VARIABLE"])
        .secret_env("KEY", lime_provider_cli::SecretString::from("secret"));
    let mut agent = CliProcess::spawn(&command, &lime_provider_cli::CliLimits::default()).unwrap();
    let mut seen = Vec::new();
    while let Some(line) = agent.next_line().await.unwrap() {
        seen.push(line.text);
    }
    seen.sort();
    let mark = seen.remove(seen.iter().position(|set| set.starts_with(RUN_MARK)).unwrap());
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    assert!(mark.strip_prefix(RUN_MARK).is_some_and(|rest| rest.len() == 33), "{mark}");
    assert_eq!(seen, ["A=one", "B=two", "KEY=secret", path.as_str()]);
    assert!(agent.finish().await.success());
}
