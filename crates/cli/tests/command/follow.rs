use std::process::Stdio;

use lime_core::ports::{EventLog, Record};
use lime_core::runs::AgentEvent;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::ground::{Ground, LONG, claim, in_time, submit, succeed, tenant};

#[tokio::test]
async fn what_happens_is_shown_as_it_happens_until_the_end() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let mut child = ground.command(["runs", "follow", &run, "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events: Vec<Json> = Vec::new();
    let first = in_time(lines.next_line()).await.unwrap().unwrap();
    events.push(serde_json::from_str(&first).unwrap());
    assert_eq!((&events[0]["type"], &events[0]["status"]), (&"status".into(), &"queued".into()));

    // It waits for what comes now.
    let claim = claim(&storage, LONG).await;
    storage.append(&claim.lease, Record::from(vec![AgentEvent::system("hello")])).await.unwrap();
    succeed(&storage, &claim).await;
    while let Some(line) = in_time(lines.next_line()).await.unwrap() {
        events.push(serde_json::from_str(&line).unwrap());
    }
    assert!(in_time(child.wait()).await.unwrap().success());
    for (index, event) in events.iter().enumerate() {
        assert_eq!((&event["seq"], &event["runId"]), (&(index + 1).into(), &run.as_str().into()), "no gap");
    }
    assert_eq!(events.last().unwrap()["status"], "succeeded");

    let text = ground.run(["runs", "follow", &run, "--after", "2"]).await.stdout;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), events.len() - 2, "{text}");
    assert!(lines[0].contains("    3  message    system: hello"), "{text}");
    assert!(lines.last().unwrap().ends_with("status     succeeded"), "{text}");
}

#[tokio::test]
async fn an_operator_who_has_seen_enough_may_go() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let mut child = ground.command(["runs", "follow", &run]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(in_time(lines.next_line()).await.unwrap().unwrap().ends_with("queued"));
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(in_time(child.wait()).await.unwrap().code(), Some(0));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert!(said.contains(&format!("lime runs follow {run} --after 1")), "{said}");
    assert_eq!(ground.json(["runs", "show", &run]).await["run"]["status"], "queued", "the run goes on");
}

#[tokio::test]
async fn a_reader_who_goes_away_is_no_error() {
    let Some(ground) = Ground::migrated().await else { return };
    let storage = ground.storage().await;
    let (scope, project) = tenant(&storage, "acme").await;
    let run = submit(&storage, &scope, &project, "work").await.id.to_string();
    let mut child = ground.command(["runs", "follow", &run]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    in_time(lines.next_line()).await.unwrap().unwrap();
    drop(lines);
    let claim = claim(&storage, LONG).await;
    succeed(&storage, &claim).await;
    let output = in_time(child.wait_with_output()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
