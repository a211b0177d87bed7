//! What the worker says of itself over HTTP: whether it lives, whether it works, and what it has done.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use assembly_lime::postgres::PgStorage;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::exit::Refusal;
use crate::metrics::{Counted, Survey};

/// How long the database may take to answer before the worker is not ready.
const PATIENCE: Duration = Duration::from_secs(2);
/// OpenMetrics, which Prometheus reads since 2.5.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) registry: Registry,
    pub(crate) survey: Survey,
    pub(crate) storage: PgStorage,
    pub(crate) counted: Counted,
    /// How long the queue may be silent: several polls and heartbeats.
    pub(crate) most_silence: Duration,
    pub(crate) draining: CancellationToken,
}

/// A socket to listen on, so that a wrong address is known before anything begins.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Refusal> {
    TcpListener::bind(address).await.map_err(|error| {
        let why = format!("nothing can listen on {address}: {error}");
        if error.kind() == std::io::ErrorKind::AddrInUse {
            // Often the worker before it, which still lets its runs end.
            return Refusal::failed(format!("LIME_HTTP_ADDR: {why}"));
        }
        Refusal::variable("LIME_HTTP_ADDR", why)
    })
}

/// Answers until it is told to stop.
pub(crate) async fn serve(listener: TcpListener, report: Arc<Report>, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(report);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "nothing is told over HTTP any more");
    }
}

/// Whether the worker takes runs: the database answers, and the queue has done so lately.
async fn ready(State(report): State<Arc<Report>>) -> Response {
    let not = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response();
    if report.draining.is_cancelled() {
        return not("it is stopping".to_owned());
    }
    match timeout(PATIENCE, report.storage.connection().ping()).await {
        Ok(Ok(())) => {}
        // What the driver says can have an address in it, and this is open to whoever can connect.
        Ok(Err(_)) | Err(_) => return not("the database does not answer".to_owned()),
    }
    match report.counted.silence() {
        Some(silence) if silence <= report.most_silence => "ready\n".into_response(),
        Some(silence) => not(format!("the queue was last heard of {} s ago", silence.as_secs())),
        None => not("it has not looked for work yet".to_owned()),
    }
}

async fn metrics(State(report): State<Arc<Report>>) -> Response {
    report.survey.refresh().await;
    let mut text = String::new();
    match encode(&mut text, &report.registry) {
        Ok(()) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
