use assembly_lime::runs::RunStatus;
use futures_util::future::join_all;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ground::{Ground, Process, Way, in_time};

/// The value of the series with this name and these labels, as it is written.
pub(crate) fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Checks what a scraper relies on: each family has a type before its samples, each sample a number, and an end.
fn well_formed(metrics: &str) {
    let mut families = Vec::new();
    let lines: Vec<_> = metrics.lines().collect();
    assert_eq!(lines.last(), Some(&"# EOF"));
    for line in &lines[..lines.len() - 1] {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
            assert!(!families.contains(&name), "{name} comes twice");
            families.push(name);
        } else if !line.starts_with("# ") {
            let (series, number) = line.rsplit_once(' ').unwrap();
            number.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.starts_with("lime_"), "{line}");
            assert!(name.starts_with(families.last().unwrap()), "{line} is in no family");
        }
    }
}

#[tokio::test]
async fn health_is_told() {
    let Some((ground, _scene)) = Ground::set().await else { return };
    let mut worker = Process::start(ground.command("w")).await;
    assert_eq!(worker.get("/healthz").await, (200, "alive\n".to_owned()));
    in_time(async {
        while worker.get("/readyz").await != (200, "ready\n".to_owned()) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(worker.get("/else").await.0, 404);
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));
}

#[tokio::test]
async fn however_many_ask_whether_it_is_ready_the_database_is_asked_once() {
    const MANY: usize = 16;
    let Some((ground, _scene)) = Ground::set().await else { return };
    let way = Way::to(&ground).await;
    let mut command = ground.command("w");
    command.env("DATABASE_URL", &way.url).env("LIME_DATABASE_CONNECTIONS", "40").env("LIME_POLL_MS", "60000");
    let worker = Process::start(command).await;
    way.cut();
    let before = way.came();
    for answer in join_all((0..MANY).map(|_| worker.get("/readyz"))).await {
        assert_eq!(answer, (503, "not ready: the database does not answer\n".to_owned()));
    }
    let connections = way.came() - before;
    assert!(connections < MANY / 2, "{connections} connections for {MANY} clients");
    assert_eq!(worker.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_is_cut_off() {
    let Some((ground, _scene)) = Ground::set().await else { return };
    let worker = Process::start(ground.command("w")).await;
    let mut client = worker.connection().await;
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: ").await.unwrap();
    let mut said = Vec::new();
    drop(in_time(client.read_to_end(&mut said)).await);
    assert_eq!(said, b"");
}

#[tokio::test]
async fn clients_that_only_stay_keep_nobody_from_an_answer() {
    let Some((ground, _scene)) = Ground::set().await else { return };
    let worker = Process::start(ground.command("w")).await;
    // Fewer files than clients: a worker that kept them all could not let another one in.
    let few = Rlimit { current: Some(128), maximum: Some(128) };
    prlimit(Some(worker.pid()), Resource::Nofile, few).unwrap();
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(worker.connection().await);
    }
    assert_eq!(worker.get("/healthz").await, (200, "alive\n".to_owned()));
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut worker = Process::start(ground.command("counted")).await;
    let (_, before) = worker.get("/metrics").await;
    well_formed(&before);
    assert_eq!(value(&before, "lime_worker_info{name=\"counted\",version=\"0.1.0\"}"), Some(1.0));
    assert_eq!(value(&before, "lime_database_up"), Some(1.0));
    for state in ["ready", "scheduled", "leased", "paused"] {
        assert_eq!(value(&before, &format!("lime_queue_runs{{state=\"{state}\"}}")), Some(0.0));
    }
    assert_eq!(value(&before, "lime_approvals{state=\"open\"}"), Some(0.0));
    assert_eq!(value(&before, "lime_queue_oldest_seconds{state=\"ready\"}"), Some(0.0));
    assert_eq!(value(&before, "lime_database_connections_max"), Some(10.0));
    for reason in ["lease_lost", "unavailable", "timeout", "other"] {
        let series = format!("lime_heartbeat_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(value(&before, &series), Some(0.0));
    }

    for _ in 0..2 {
        let run = scene.submit("Write the notes").await;
        assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    }
    let run = scene.submit("hanging").await;
    scene.worked(run).await;
    scene.factory.cancel(&scene.scope, run).await.unwrap();
    scene.end(run).await;

    // An event ends a run before the worker hears that it has ended it.
    let after = in_time(async {
        loop {
            let (_, metrics) = worker.get("/metrics").await;
            if value(&metrics, "lime_active_runs") == Some(0.0) {
                return metrics;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    well_formed(&after);
    let runs = |status, reason| {
        value(
            &after,
            &format!("lime_runs_total{{provider=\"replay\",status=\"{status}\",stop_reason=\"{reason}\"}}"),
        )
    };
    assert_eq!(runs("succeeded", "end_turn"), Some(2.0));
    assert_eq!(runs("cancelled", "cancelled"), Some(1.0));
    assert_eq!(value(&after, "lime_attempts_total"), Some(3.0));
    assert_eq!(value(&after, "lime_claim_latency_seconds_count"), Some(3.0));
    assert!(value(&after, "lime_claim_latency_seconds_sum").unwrap() < 60.0);
    assert!(value(&after, "lime_events_total").unwrap() >= 9.0);
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));
}

#[tokio::test]
async fn logs_are_json_without_secrets() {
    let Some((ground, scene)) = Ground::set().await else { return };
    let mut command = ground.command("w");
    command.env("LIME_LOG", "debug").env("ANTHROPIC_API_KEY", "sk-very-secret").env("LIME_CONCURENCY", "3");
    let mut worker = Process::start(command).await;
    let slip = worker.logged("this variable means nothing here; is it spelt right?").await;
    assert_eq!((&slip["name"], &slip["level"]), (&"LIME_CONCURENCY".into(), &"WARN".into()));
    let run = scene.submit("Write the notes").await;
    scene.end(run).await;
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));
    for line in worker.log() {
        let line: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["level"].is_string());
        assert!(!line.to_string().contains("sk-very-secret"));
    }
    let of_the_run =
        |line: &String| line.contains("\"attempt\"") && line.contains(&format!("\"run\":\"{run}\""));
    assert!(worker.log().iter().any(of_the_run), "lines of an attempt say which run it is");
}
