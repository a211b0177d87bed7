//! What is counted, for Prometheus.

mod counted;
mod passed_on;
mod survey;

use assembly_lime::ErrorKind;
use assembly_lime::ports::{Claim, HandbackReason};
use assembly_lime::runs::AgentRun;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub(crate) use self::counted::Counted;
pub(crate) use self::survey::Survey;

/// Bounds of waiting times in seconds: from what a wake-up takes to what a backlog takes.
const WAITS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0];

/// What this worker counts, since it began.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    attempts: Counter,
    rescues: Counter,
    handed_back: Counter,
    events: Counter,
    active: Gauge,
    runs: Family<RunLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    heartbeat_failures: Family<HeartbeatLabels, Counter>,
    claim_latency: Latency,
}

#[derive(Debug)]
struct Latency(Histogram);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new(WAITS))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RunLabels {
    provider: String,
    status: &'static str,
    stop_reason: &'static str,
}

/// Why a run is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    error_type: &'static str,
}

/// Why a sign of life did not come through.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeartbeatLabels {
    reason: &'static str,
}

/// The errors of heartbeats that have a word of their own, and the word for all others.
const MISSED: [(ErrorKind, &str); 3] = [
    (ErrorKind::StaleLease, "lease_lost"),
    (ErrorKind::Unavailable, "unavailable"),
    (ErrorKind::Timeout, "timeout"),
];
const MISSED_OTHERWISE: &str = "other";

/// A registry whose names begin with `lime_`, and which says who the worker is.
pub(crate) fn registry(worker: &str) -> Registry {
    let mut registry = Registry::with_prefix("lime");
    let about = [("name", worker.to_owned()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    registry.register("worker", "This worker", Info::new(about.to_vec()));
    registry
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let latency = "From the time that a run could be worked to the start of its first attempt, if that was here, on \
                       the database's clock";
        registry.register("claim_latency_seconds", latency, metrics.claim_latency.0.clone());
        registry.register("runs", "Runs that this worker has ended", metrics.runs.clone());
        registry.register("attempts", "Attempts that this worker has begun", metrics.attempts.clone());
        let retries = "Runs that this worker gave back to be tried again after a failure that may pass";
        registry.register("retries", retries, metrics.retries.clone());
        let handed_back = "Runs that this worker gave back since it stopped, or since they were paused";
        registry.register("handed_back", handed_back, metrics.handed_back.clone());
        let rescues = "Runs that this worker has taken up after a worker was lost with them";
        registry.register("crashes_rescued", rescues, metrics.rescues.clone());
        registry.register("events", "Events that this worker has recorded", metrics.events.clone());
        registry.register("active_runs", "Runs that this worker is at", metrics.active.clone());
        let failures = "Signs of life of this worker that did not come through";
        registry.register("heartbeat_failures", failures, metrics.heartbeat_failures.clone());
        for reason in MISSED.map(|(_, reason)| reason).into_iter().chain([MISSED_OTHERWISE]) {
            // From 0 on, or the first one would be no increase.
            drop(metrics.heartbeat_failures.get_or_create(&HeartbeatLabels { reason }));
        }
        metrics
    }

    /// An attempt began; `waited` is how long its run had to wait, if it is the first.
    fn began(&self, claim: &Claim, started: chrono::DateTime<chrono::Utc>) {
        self.attempts.inc();
        if claim.attempt_number == 1 {
            let from = claim.run.run_at.map_or(claim.run.created_at, |at| at.max(claim.run.created_at));
            // An asynchronous commit can make the start seem earlier than the submission by a moment.
            let waited = (started - from).to_std().unwrap_or_default();
            self.claim_latency.0.observe(waited.as_secs_f64());
        }
    }

    fn missed(&self, kind: ErrorKind) {
        let known = MISSED.iter().find(|(of, _)| *of == kind);
        let reason = known.map_or(MISSED_OTHERWISE, |(_, reason)| reason);
        self.heartbeat_failures.get_or_create(&HeartbeatLabels { reason }).inc();
    }

    fn ended(&self, run: &AgentRun) {
        let labels = RunLabels {
            provider: run.provider.to_string(),
            status: run.status.as_str(),
            stop_reason: run.stop_reason.map_or("none", |reason| reason.as_str()),
        };
        self.runs.get_or_create(&labels).inc();
    }

    fn given_back(&self, why: &HandbackReason) {
        match why {
            HandbackReason::Released => self.handed_back.inc(),
            HandbackReason::Retry { failure, .. } => {
                self.retries.get_or_create(&RetryLabels { error_type: failure.kind.as_str() }).inc()
            }
        };
    }
}
