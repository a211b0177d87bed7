//! What the worker says of itself over HTTP: whether it lives, whether it works, and what it has done.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::exit::Refusal;
use crate::metrics::{Counted, Survey};

/// How long a client may take to ask and to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many clients there may be at once.
const MOST: usize = 64;
/// OpenMetrics, which Prometheus reads since 2.5.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the answers are made of.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) registry: Registry,
    pub(crate) survey: Survey,
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
///
/// - One client too many ends the oldest, so that those who only stay keep nobody else from an answer.
pub(crate) async fn serve(mut listener: TcpListener, report: Arc<Report>, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(report);
    let mut clients = JoinSet::new();
    let mut oldest_first = VecDeque::<AbortHandle>::new();
    loop {
        let (stream, _) = tokio::select! {
            // Goes on after errors, such as too many open files.
            client = Listener::accept(&mut listener) => client,
            () = stop.cancelled() => return,
        };
        while clients.try_join_next().is_some() {}
        oldest_first.retain(|client| !client.is_finished());
        if oldest_first.len() == MOST
            && let Some(oldest) = oldest_first.pop_front()
        {
            oldest.abort();
        }
        oldest_first.push_back(clients.spawn(answer(stream, router.clone())));
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let answered = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a client was not answered"),
        Err(_) => tracing::debug!("a client took too long"),
    }
}

/// Whether the worker takes runs: the database answers, and the queue has done so lately.
async fn ready(State(report): State<Arc<Report>>) -> Response {
    let not = |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response();
    if report.draining.is_cancelled() {
        return not("it is stopping".to_owned());
    }
    if !report.survey.answers().await {
        return not("the database does not answer".to_owned());
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
