//! Only with the feature `otel`.

use std::sync::{Arc, Mutex};

use assembly_lime::runs::RunStatus;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::routing::post;
use rustix::process::Signal;
use tokio::net::TcpListener;

use crate::ground::{Ground, Process};

type Kept = Arc<Mutex<Vec<u8>>>;

/// Keeps what a collector would be sent.
async fn keep(State(kept): State<Kept>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    kept.lock().unwrap().extend_from_slice(&body);
}

#[tokio::test]
async fn attempts_are_traced_to_where_it_is_said() {
    for (named, service) in [("fleet-7", "fleet-7"), ("", "lime-worker")] {
        let Some(sent) = traced(named).await else { return };
        for text in [service, "attempt", "tenant"] {
            assert!(sent.windows(text.len()).any(|window| window == text.as_bytes()), "{text} was not sent");
        }
    }
}

/// What is sent of a run, with this `OTEL_SERVICE_NAME`.
async fn traced(service: &str) -> Option<Vec<u8>> {
    let (ground, scene) = Ground::set().await?;
    let kept = Kept::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Router::new().route("/v1/traces", post(keep)).with_state(kept.clone());
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let mut command = ground.command("w");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_SERVICE_NAME", service);
    let mut worker = Process::start(command).await;
    let run = scene.submit("Write the notes").await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));

    let sent = kept.lock().unwrap().clone();
    Some(sent)
}
