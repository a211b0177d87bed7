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
    let Some((ground, scene)) = Ground::set().await else { return };
    let kept = Kept::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Router::new().route("/v1/traces", post(keep)).with_state(kept.clone());
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let mut command = ground.command("w");
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).env("OTEL_SERVICE_NAME", "fleet-7");
    let mut worker = Process::start(command).await;
    let run = scene.submit("Write the notes").await;
    assert_eq!(scene.end(run).await.status, RunStatus::Succeeded);
    worker.signal(Signal::TERM);
    assert_eq!(worker.end().await, Some(0));

    let sent = kept.lock().unwrap().clone();
    let has = |text: &str| sent.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["fleet-7", "attempt", "tenant"] {
        assert!(has(text), "{text} was not sent");
    }
}
